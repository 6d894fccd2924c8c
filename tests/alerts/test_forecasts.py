"""Forecasts from a ledger: as sentences, and as alerts that are sent once."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import BaseCommand, ReadUsage, ReplyT_co, TopUp
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.manager.budgets import Budgets
from litellm_budget_plugin.manager.forecasts import Forecast
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.metrics.process import ProcessMetrics
from tests.alerts.conftest import NOON, Clocked, Process

ALICE = Subject("user", "alice")
Make = Callable[..., Process]
START = datetime.fromtimestamp(NOON / 1e6, tz=timezone.utc)


class Ledger:
    """A process's ledger with the interface that `Budgets` uses."""

    project, timezone = "p", "UTC"
    new_id = staticmethod(new_id)

    def __init__(self, process: Process) -> None:
        self._process = process

    def ask(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        return self._process.ask(command)

    ask_settled = ask

    def defaults_of(self, *subjects: Subject) -> tuple[Default, ...]:
        return self._process.defaults(*subjects)  # type: ignore[no-any-return]


def days_pass(process: Process, days: int, usd: str = "1", *subjects: Subject) -> None:
    for _ in range(days):
        process.charge(usd, *subjects)
        process.store.now += DAY


def forecast(process: Process, subject: Subject = ALICE) -> Forecast | None:
    return Budgets(Ledger(process)).forecast(subject)


def test_it_says_which_budget_runs_out_and_when(process: Make) -> None:
    one = process(user_limits="$10 per 30d, $100 per year, 1000 calls")
    days_pass(one, 2)
    assert forecast(one) is None  # one whole day has passed since the first
    days_pass(one, 3)
    found = forecast(one)
    # Four dollars were spent in the four and a half days since the first day; five of ten dollars are spent.
    at = START + timedelta(days=5) + timedelta(days=5 * 4.5 / 4)
    assert found == Forecast("$10 per 30d", at, f"at this rate $10 per 30d runs out on {at.date()}")


@pytest.mark.parametrize("values", [{}, {"user_limits": "$1000 per 30d"}, {"user_limits": "$1 per hour"}])
def test_what_lasts_or_cannot_be_said(process: Make, values: dict[str, Any]) -> None:
    one = process(**values)
    days_pass(one, 6, "0.5")
    assert forecast(one) is None


def test_a_balance_and_the_project(process: Make) -> None:
    one = process(project_limits="$20")
    one.ask(TopUp("paid", "p", ALICE, 10 * 10**9))
    project = Subject("project", "p")
    days_pass(one, 6, "1", ALICE, project)
    found = forecast(one)
    assert found is not None and found.budget == "a balance of $10"
    of_project = forecast(one, project)
    assert of_project is not None and of_project.runs_out_at > found.runs_out_at


def test_a_calendar_window_that_no_call_has_opened_yet(process: Make, store: Clocked) -> None:
    one = process()
    days_pass(one, 12)  # recorded without a limit
    one = process(user_limits="$15/month")
    found = forecast(one)
    assert found is not None and found.budget == "$15 per month"


def test_a_budget_that_ends_early_is_alerted_once(process: Make, store: Clocked) -> None:
    one, two = process(user_limits="$10 per 30d", alert_at="100"), process(user_limits="$10 per 30d", alert_at="100")
    for _ in range(5):
        one.charge("1")
        one.charge("0.01", Subject("user", "frugal"))
        for each in (one, two):
            for _ in range(8):
                each.tick()
        store.now += DAY
    said = [*one.sent, *two.sent]
    assert [(alert.kind, alert.subject) for alert in said] == [("forecast", "alice")]
    assert said[0].text.startswith("user 'alice': at this rate $10 per 30d runs out on 2024-10-")
    assert said[0].runs_out_at is not None and said[0].threshold is None


def test_the_scan_reads_no_days_of_accounts_that_are_far_from_ending(process: Make, store: Clocked) -> None:
    one = process(user_limits="$10 per 30d")
    for number in range(50):
        days_pass(one, 1, "0.01", Subject("user", f"u{number}"))
    store.commands.clear()
    for _ in range(10):
        one.tick()
    assert not [each for each in store.commands if isinstance(each, ReadUsage) and each.scope == "user"]


def test_metrics_say_when_the_project_runs_out(process: Make, store: Clocked) -> None:
    registry, one = CollectorRegistry(), process(project_limits="$20", user_limits="$1000")
    shown = ProcessMetrics(registry)
    shown.watch(one.worker)
    project = Subject("project", "p")
    family = "litellm_budget_runs_out_timestamp_seconds"
    one.tick()
    assert registry.get_sample_value(family, {"project": "p"}) == math.inf
    days_pass(one, 6, "1", ALICE, project)
    one.tick()
    found = forecast(one, project)
    assert found is not None
    assert registry.get_sample_value(family, {"project": "p"}) == pytest.approx(found.runs_out_at.timestamp(), abs=1)


def test_a_budget_without_a_window_is_alerted_a_week_before_its_end(process: Make, store: Clocked) -> None:
    one = process(user_limits="$20", alert_at="100")
    for day in range(1, 16):
        one.charge("1")
        for _ in range(8):
            one.tick()
        store.now += DAY
        assert len(one.sent) == (day >= 13), day
