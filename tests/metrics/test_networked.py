"""The metrics of a networked ledger: outages, the journal, slices, repeated charges, expired holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import BudgetStoreUnavailable
from litellm_budget_plugin.core.accounts import Amounts, Subject
from litellm_budget_plugin.core.commands import Release, Renew, Reserve, Settle, Sweep
from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.manager.ledger import BudgetLedger
from tests.hooks.desk import WORTH, Desk
from tests.manager.faraway import Faraway
from tests.metrics.reading import Shown, until
from tests.upstream import Upstream

OpenFar = Callable[..., Desk]
ALICE = (Subject("user", "alice"),)


def _ledger(desk: Desk) -> BudgetLedger:
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    return ledger


def _settle(desk: Desk, hold: str, project: str = "p") -> Settle:
    return Settle(hold, project, ALICE, ("m",), WORTH, "m", defaults=_ledger(desk).defaults)


def test_an_outage_shows_and_ends(shown: Shown, open_far: OpenFar, line: Faraway, upstream: Upstream) -> None:
    desk = open_far(default_limit="10")
    stream = litellm.completion(**desk.arguments("alice", stream=True))
    next(stream)
    assert shown("waiting_charges") == shown("breaker_open") == 0
    line.away = True
    for _ in stream:
        pass
    for number in range(1, 5):
        with pytest.raises(BudgetStoreUnavailable):
            litellm.completion(**desk.arguments("alice"))
        assert shown("refusals_total", scope="store", reason="unavailable") == number
    until(lambda: shown("waiting_charges", place="journal") >= 1)
    assert shown("breaker_open") == 1
    assert shown("store_errors_total", kind="unavailable") >= 3 and shown("store_errors_total", kind="error") == 0
    assert shown("spend_usd_total") == 0 and upstream.requests == 1
    line.away = False
    assert desk.calm("alice") == WORTH
    until(lambda: shown("waiting_charges") == shown("breaker_open") == 0)
    assert shown.nanos("spend_usd_total") == WORTH
    assert shown("refusals_total") == 4


def test_calls_that_go_out_without_a_hold_are_no_refusals(shown: Shown, open_far: OpenFar, line: Faraway) -> None:
    desk = open_far(default_limit="10", on_store_error="allow")
    line.away = True
    litellm.completion(**desk.arguments("alice"))
    assert shown("refusals_total") == shown("open_holds") == 0 and shown("store_errors_total") >= 1
    line.away = False
    assert desk.calm("alice") == shown.nanos("spend_usd_total") == WORTH


def test_calls_beyond_the_journals_limit_are_refusals(shown: Shown, open_far: OpenFar, line: Faraway) -> None:
    desk = open_far(default_limit="10", on_store_error="allow", journal_limit=2)
    line.away = True
    litellm.completion(**desk.arguments("alice"))
    # The charge of the call, and the release of its hold, which the ledger may not have granted.
    until(lambda: shown("waiting_charges") == 2)
    with pytest.raises(BudgetStoreUnavailable):
        litellm.completion(**desk.arguments("alice"))
    assert shown("refusals_total", scope="store", reason="full") == 1


def test_a_charge_whose_reply_was_lost_counts_once(shown: Shown, open_far: OpenFar, line: Faraway) -> None:
    desk = open_far(default_limit="10")
    litellm.completion(**desk.arguments("alice"))
    desk.calm("alice")
    line.deaf = True
    ledger = _ledger(desk)
    ledger.worker.deliver(_settle(desk, "late"), 1.0)
    with pytest.raises(BudgetStoreUnavailable):
        ledger.flush()
    assert shown.nanos("spend_usd_total") == WORTH
    line.deaf = False
    assert desk.calm("alice") == 2 * WORTH
    assert line.charged.count("late") >= 2
    assert shown.nanos("spend_usd_total") == 2 * WORTH


def test_a_charge_that_is_sent_again_with_its_batch_counts_once(
    shown: Shown, open_far: OpenFar, line: Faraway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The charges of a batch were acknowledged, but its releases were not, so the whole batch is kept and sent again."""
    desk = open_far(default_limit="10")
    ledger = _ledger(desk)
    answering = line.execute_all

    def no_releases(commands: Any, timeout: float | None = None) -> Any:
        if any(isinstance(command, Release) for command in commands):
            raise BudgetStoreUnavailable("the test has cut the line for releases")
        return answering(commands, timeout)

    monkeypatch.setattr(line, "execute_all", no_releases)
    with ledger.worker._working:
        ledger.worker.delivery.put(_settle(desk, "a"))
        ledger.worker.delivery.put(Release("b", "p"))
        with pytest.raises(BudgetStoreUnavailable):
            ledger.worker.delivery.run(1.0)
    assert shown.nanos("spend_usd_total") == WORTH and shown("waiting_charges", place="journal") == 2
    monkeypatch.setattr(line, "execute_all", answering)
    assert desk.calm("alice") == WORTH
    assert line.charged.count("a") >= 2
    assert shown.nanos("spend_usd_total") == WORTH


def test_a_charge_of_another_project_in_the_journal_counts(shown: Shown, open_far: OpenFar) -> None:
    desk = open_far(default_limit="10")
    ledger = _ledger(desk)
    ledger.worker.deliver(_settle(desk, "x", "another"), 1.0)
    ledger.flush()
    assert shown.nanos("spend_usd_total", project="another") == WORTH


def test_what_is_admitted_from_a_slice_is_counted(shown: Shown, open_far: OpenFar, line: Faraway) -> None:
    desk = open_far(default_limit="1000", slice="1")
    ledger = _ledger(desk)
    for _ in range(2):
        litellm.completion(**desk.arguments("alice"))
    until(lambda: shown.nanos("held_usd", use="slices") > 0)
    asked = shown("reserve_seconds_count", source="store")
    assert asked == 2
    stream = litellm.completion(**desk.arguments("alice", stream=True))
    next(stream)
    assert (
        shown("reserve_seconds_count", source="slice") == 1 and shown("reserve_seconds_count", source="store") == asked
    )
    assert shown("open_holds") == 1 and shown.nanos("held_usd", use="calls") == WORTH
    ledger.flush()
    assert shown.nanos("held_usd") == desk.held("alice")
    for _ in stream:
        pass
    assert desk.calm_slices("alice") == shown.nanos("spend_usd_total") == 3 * WORTH
    assert shown("held_usd") == shown("open_holds") == 0


def test_a_store_that_cannot_serve_is_an_error(
    shown: Shown, open_far: OpenFar, line: Faraway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(command: Any, timeout: float | None = None) -> Any:
        raise BudgetStoreError("the test has broken the store")

    desk = open_far(default_limit="10")
    with monkeypatch.context() as breaking:
        breaking.setattr(line, "execute", broken)
        with pytest.raises(BudgetStoreUnavailable):
            litellm.completion(**desk.arguments("alice"))
    assert shown("store_errors_total", kind="error") >= 1 and shown("breaker_open") == 0
    assert shown("refusals_total", scope="store") == 1


def test_a_sync_that_fails_is_an_error(
    shown: Shown, open_far: OpenFar, line: Faraway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise BudgetStoreError("the disk is full")

    desk = open_far(default_limit="10")
    with monkeypatch.context() as breaking:
        breaking.setattr(line, "sync", full)
        with pytest.raises(BudgetStoreError):
            desk.callback.flush()
    assert shown("store_errors_total", kind="error") >= 1


def test_a_hold_that_expired_under_its_call_counts_once(shown: Shown, open_far: OpenFar, line: Faraway) -> None:
    desk = open_far(default_limit="10")
    ledger = _ledger(desk)
    stream = litellm.completion(**desk.arguments("alice", stream=True))
    next(stream)
    (hold,) = ledger.worker.live
    line.store.execute(Release(hold, "p"))
    renewal = Renew((hold, "a-slice-that-is-gone"), "p", ledger.hold_ttl)
    for _ in range(2):
        ledger.worker.client.ask_all([renewal], 1.0)
    assert shown("expired_holds_total", seen_by="renewal") == shown("expired_holds_total") == 1
    for _ in stream:
        pass
    desk.calm("alice")


def test_what_a_sweep_expires_counts(shown: Shown, open_far: OpenFar, line: Faraway) -> None:
    desk = open_far(default_limit="10")
    line.store.execute(Reserve("dead", "p", ALICE, ("m",), Amounts(5, 1, 0), expires_after=1))
    _ledger(desk).worker.client.ask(Sweep("p", 10**12, 10**13), 1.0)
    assert shown("expired_holds_total", seen_by="sweep") == 1


def test_a_closed_ledger_holds_nothing(shown: Shown, open_far: OpenFar) -> None:
    desk = open_far(default_limit="1000", slice="1")
    for _ in range(2):
        litellm.completion(**desk.arguments("alice"))
    until(lambda: shown.nanos("held_usd", use="slices") > 0)
    desk.callback.close()
    assert shown("held_usd") == shown("waiting_charges") == 0
    assert shown.nanos("spend_usd_total") == 2 * WORTH
