"""The metrics of real calls agree with the ledger."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import litellm
import pytest
from prometheus_client import CollectorRegistry

from litellm_budget_plugin import BudgetExceeded, BudgetPriceUnknown, BudgetSettings, BudgetUserMissing, check
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.metrics.process import ProcessMetrics
from tests.hooks.desk import CHAT, OTHER, WORTH, Desk
from tests.metrics.reading import PREFIX, Shown, until
from tests.upstream import Upstream

Open = Callable[..., Desk]
STORES = ["memory://", "sqlite"]


@pytest.fixture(params=STORES)
def open_on(request: pytest.FixtureRequest, registry: CollectorRegistry, open_desk: Open) -> Open:
    """A function that opens desks, on each embedded store."""
    chosen = {"store_url": "memory://"} if request.param == "memory://" else {}
    return lambda **settings: open_desk(**{"default_limit": "10", **chosen, **settings})


def test_spend_is_what_the_ledger_says_after_concurrent_calls(open_on: Open, shown: Shown) -> None:
    desk = open_on()

    def call(number: int) -> None:
        model = CHAT if number % 2 else OTHER
        litellm.completion(**desk.arguments(f"user-{number % 5}", model=model))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(40)))
    spent = sum(desk.calm(f"user-{number}") for number in range(5))
    assert spent == 20 * WORTH + 20 * WORTH // 5
    assert shown.nanos("spend_usd_total", project="default") == spent
    assert shown.nanos("spend_usd_total", model="gate-chat") == 20 * WORTH
    assert shown("reserve_seconds_count", source="store") == 40
    assert shown("held_usd") == shown("open_holds") == 0


def test_asynchronous_calls_are_counted_alike(open_on: Open, shown: Shown) -> None:
    desk = open_on()

    async def all_at_once() -> None:
        await asyncio.gather(*(litellm.acompletion(**desk.arguments("alice")) for _ in range(10)))

    asyncio.run(all_at_once())
    assert shown.nanos("spend_usd_total") == desk.calm("alice") == 10 * WORTH


def test_what_is_held_is_what_the_ledger_holds(open_on: Open, shown: Shown) -> None:
    desk = open_on()
    streams = [litellm.completion(**desk.arguments("alice", stream=True)) for _ in range(3)]
    for stream in streams:
        next(stream)
    assert shown.nanos("held_usd", use="calls") == desk.held("alice") == 3 * WORTH
    assert shown("open_holds") == 3
    for _ in streams.pop():
        pass
    until(lambda: shown("open_holds") == 2)
    assert shown.nanos("held_usd", use="calls") == desk.held("alice") == 2 * WORTH
    streams.clear()
    del stream
    # The dropped stream is charged once, for the chunks that were received.
    desk.calm("alice")
    assert shown("held_usd") == shown("open_holds") == 0
    assert shown.nanos("spend_usd_total") == desk.spent("alice")


def test_a_refusal_counts_once_whatever_was_tried_before(open_on: Open, shown: Shown, upstream: Upstream) -> None:
    """While other calls hold money, the ledger is asked a second time, after waiting charges were settled."""
    desk = open_on(default_limit="0.02")
    stream = litellm.completion(**desk.arguments("alice", stream=True))
    next(stream)
    with pytest.raises(BudgetExceeded) as refused:
        litellm.completion(**desk.arguments("alice"))
    assert refused.value.reason == "held"
    assert shown("refusals_total") == shown("refusals_total", scope="user", reason="held", mode="enforce") == 1
    assert shown("reserve_seconds_count") == 3
    for _ in stream:
        pass
    desk.calm("alice")
    with pytest.raises(BudgetExceeded):
        litellm.completion(**desk.arguments("alice"))
    assert shown("refusals_total", reason="spent") == 1 and shown("refusals_total") == 2
    assert upstream.requests == 1


def test_a_call_that_is_capped_or_moved_is_not_refused(open_on: Open, shown: Shown) -> None:
    desk = open_on(default_limit="0.02", cap_output=True, min_output=256)
    litellm.completion(**desk.arguments("alice"))
    litellm.completion(**desk.arguments("alice"))
    assert shown("refusals_total") == 0
    with pytest.raises(BudgetExceeded):
        litellm.completion(**desk.arguments("alice", max_tokens=4000))
    assert shown("refusals_total") == 1


def test_refusals_tell_the_project_from_the_user(open_on: Open, shown: Shown) -> None:
    desk = open_on(project_limit="0.01", default_limit="1")
    with pytest.raises(BudgetExceeded):
        litellm.completion(**desk.arguments("alice"))
    assert shown("refusals_total", scope="project", reason="spent") == shown("refusals_total") == 1


def test_an_unknown_price_and_a_missing_user_are_refusals(open_on: Open, shown: Shown) -> None:
    desk = open_on(on_missing_user="reject")
    with pytest.raises(BudgetPriceUnknown):
        litellm.completion(**desk.arguments("alice", model="openai/nobody-knows-this"))
    arguments = desk.arguments("alice")
    del arguments["user"]
    with pytest.raises(BudgetUserMissing):
        litellm.completion(**arguments)
    assert shown("refusals_total", scope="model", reason="price") == 1
    assert shown("refusals_total", scope="user", reason="missing") == 1


def test_shadow_mode_counts_who_would_have_been_refused(open_on: Open, shown: Shown, upstream: Upstream) -> None:
    desk = open_on(mode="shadow", default_limit="0.01")
    litellm.completion(**desk.arguments("alice"))
    assert upstream.requests == 1
    assert shown("refusals_total", mode="shadow", scope="user", reason="spent") == shown("refusals_total") == 1
    assert shown.nanos("spend_usd_total") == desk.calm("alice") == WORTH
    assert shown("open_holds") == 0


def test_two_callbacks_and_a_manager_count_once(open_on: Open, shown: Shown) -> None:
    first = open_on()
    second = open_on()
    litellm.callbacks = [first.callback, second.callback]
    litellm.completion(**first.arguments("alice"))
    answer = litellm.completion(**first.arguments("alice"), mock_response="hello")
    # The callback has already charged it, so a charge by hand changes nothing.
    first.callback.manager.update_cost("alice", answer)
    assert shown.nanos("spend_usd_total") == first.calm("alice")


def test_a_charge_by_hand_counts(open_on: Open, shown: Shown) -> None:
    desk = open_on()
    desk.callback.manager.update_cost("alice", model="gpt-4o", input_text="one two", output_text="three")
    assert desk.spent("alice") > 0
    assert shown.nanos("spend_usd_total", model="gpt-4o") == desk.spent("alice")


def test_the_check_of_oneself_is_nobodys_spend(open_on: Open, shown: Shown) -> None:
    open_on()
    assert check().ok
    assert shown("spend_usd_total") == shown("refusals_total") == shown("reserve_seconds_count") == 0


def test_without_the_setting_nothing_is_shown(open_on: Open, registry: CollectorRegistry, shown: Shown) -> None:
    desk = open_on(metrics=False)
    litellm.completion(**desk.arguments("alice"))
    assert desk.calm("alice") == WORTH
    assert shown.all() == {}


def test_no_label_is_a_user(open_on: Open, shown: Shown) -> None:
    desk = open_on(default_limit="0.02")
    for _ in range(2):
        try:
            litellm.completion(**desk.arguments("alice-the-secret"))
        except BudgetExceeded:
            pass
    text = str(shown.all())
    assert PREFIX in text and "secret" not in text


def test_a_metric_that_fails_harms_no_call(
    open_on: Open, shown: Shown, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from litellm_budget_plugin.metrics.families import Families

    def fail(*args: Any) -> None:
        raise OSError("the disk of the metrics is full")

    desk = open_on()
    for name in ("charged", "reserved", "refused", "store_failed", "project"):
        monkeypatch.setattr(Families, name, fail)
    with caplog.at_level(logging.ERROR):
        litellm.completion(**desk.arguments("alice"))
        assert desk.calm("alice") == WORTH
    assert any("a metric could not be updated" in record.message for record in caplog.records)


def test_calls_and_scrapes_at_the_same_time(open_on: Open, shown: Shown) -> None:
    desk = open_on()
    over = threading.Event()

    def scrape() -> int:
        seen = 0
        while not over.is_set():
            seen += bool(shown.all())
        return seen

    with ThreadPoolExecutor(6) as pool:
        scraping = [pool.submit(scrape) for _ in range(2)]
        list(pool.map(lambda _: litellm.completion(**desk.arguments("alice")), range(20)))
        over.set()
        assert all(future.result() for future in scraping)
    gc.collect()
    assert shown.nanos("spend_usd_total") == desk.calm("alice") == 20 * WORTH


def test_the_gauges_are_told_of_the_end(registry: CollectorRegistry) -> None:
    """This happens even if nobody reads them, because the last values stay in a directory that processes share."""
    ledger = BudgetLedger(BudgetSettings(store_url="memory://"))
    told = ProcessMetrics.in_registry(registry)
    assert told._sources == [ledger.worker]
    ledger.close()
    assert told._sources == []
