"""Effects of settings: modes, unknown and zero prices, a store that does not answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import BudgetExceeded, BudgetPriceUnknown, BudgetStoreUnavailable
from litellm_budget_plugin.core.commands import Reserve, Settle
from litellm_budget_plugin.hooks import admission, call
from litellm_budget_plugin.stores.protocol import one_by_one
from tests.hooks.desk import WORTH, Desk
from tests.upstream import Upstream

UNKNOWN = "openai/nobody-knows-its-price"


def test_shadow_mode_refuses_nobody_and_says_who_would_have_been(
    open_desk: Callable[..., Desk], upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    desk = open_desk(default_limit="0.0125", mode="shadow")
    for _ in range(3):
        litellm.completion(**desk.arguments("alice"))
    assert upstream.requests == 3
    assert desk.calm("alice") == 3 * WORTH
    assert len([record for record in caplog.records if "would be refused" in record.message]) == 2
    assert desk.usage("alice").refusals == 2


def test_shadow_mode_lets_calls_without_a_proper_user_pass(
    open_desk: Callable[..., Desk], upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    desk = open_desk(mode="shadow", on_missing_user="reject", default_user="nobody")
    litellm.completion(**desk.arguments(""))
    litellm.completion(**desk.arguments(" alice "))
    assert desk.calm("nobody") == 2 * WORTH
    assert len([record for record in caplog.records if "would be refused" in record.message]) == 2


def test_off_does_nothing_at_all(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_desk(default_limit="0", mode="off")
    litellm.completion(**desk.arguments("alice"))
    assert upstream.requests == 1
    assert desk.callback.budget_ledger is None


def test_a_limit_of_zero_blocks_priced_calls(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_desk(default_limit="0")
    with pytest.raises(BudgetExceeded):
        litellm.completion(**desk.arguments("alice"))
    assert upstream.requests == 0


def test_a_model_whose_price_is_zero_is_never_refused(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    litellm.register_model(
        {
            "openai/gate-free": {
                "input_cost_per_token": 0.0,
                "output_cost_per_token": 0.0,
                "litellm_provider": "openai",
                "mode": "chat",
            }
        }
    )
    desk = open_desk(default_limit="0")
    litellm.completion(**desk.arguments("alice", model="openai/gate-free"))
    assert desk.calm("alice") == 0
    assert (upstream.requests, desk.usage("alice").calls) == (1, 1)


def test_an_unknown_price_is_refused_where_a_limit_applies(desk: Desk, upstream: Upstream) -> None:
    with pytest.raises(BudgetPriceUnknown, match="litellm.register_model") as caught:
        litellm.completion(**desk.arguments("alice", model=UNKNOWN))
    assert caught.value.status_code == 422
    assert upstream.requests == 0


def test_an_unknown_price_is_recorded_where_no_limit_applies(
    open_desk: Callable[..., Desk], upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    call._warned.clear()
    desk = open_desk(default_limit=None)
    for _ in range(2):
        litellm.completion(**desk.arguments("alice", model=UNKNOWN))
    assert desk.calm("alice") == 0
    assert (upstream.requests, desk.usage("alice").calls) == (2, 2)
    assert len([record for record in caplog.records if "no price is known" in record.message]) == 1


def test_an_unknown_price_can_be_allowed(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_desk(on_unknown_price="allow")
    litellm.completion(**desk.arguments("alice", model=UNKNOWN))
    assert upstream.requests == 1


def test_a_price_given_with_the_call_counts(desk: Desk, upstream: Upstream) -> None:
    prices = {"input_cost_per_token": 0.0, "output_cost_per_token": 1e-5}
    litellm.completion(**desk.arguments("alice", model=UNKNOWN, **prices))
    assert desk.calm("alice") == 10_000_000
    with pytest.raises(BudgetExceeded):
        litellm.completion(**desk.arguments("alice", model=UNKNOWN, **{**prices, "output_cost_per_token": 1e-4}))
    assert upstream.requests == 1


class _Away:
    """A store that does not answer, or does not settle."""

    remote = False

    def __init__(self, store: Any, refuse: Callable[[Any], bool]) -> None:
        self._store = store
        self.refuse = refuse

    def execute(self, command: Any, timeout: float | None = None) -> Any:
        if self.refuse(command):
            raise BudgetStoreUnavailable("the test has taken the store away")
        return self._store.execute(command, timeout)

    def execute_all(self, commands: Any, timeout: float | None = None) -> Any:
        return one_by_one(self, commands, timeout)

    def sync(self) -> None:
        self._store.sync()

    def close(self) -> None:
        self._store.close()


def _take_away(desk: Desk, refuse: Callable[[Any], bool]) -> _Away:
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    away = _Away(ledger.worker.client.store, refuse)
    ledger.worker.client.store = away
    return away


def test_calls_are_refused_while_the_store_is_away(desk: Desk, upstream: Upstream) -> None:
    away = _take_away(desk, lambda command: isinstance(command, Reserve))
    with pytest.raises(BudgetStoreUnavailable) as caught:
        litellm.completion(**desk.arguments("alice"))
    assert caught.value.status_code == 503
    assert upstream.requests == 0
    away.refuse = lambda command: False
    litellm.completion(**desk.arguments("alice"))
    assert desk.calm("alice") == WORTH


def test_calls_go_out_and_are_charged_later_if_the_settings_say_so(
    open_desk: Callable[..., Desk], upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    admission._warned_at.clear()
    desk = open_desk(on_store_error="allow")
    away = _take_away(desk, lambda command: True)
    for _ in range(2):
        litellm.completion(**desk.arguments("alice"))
    assert upstream.requests == 2
    assert len([record for record in caplog.records if "without a hold" in record.message]) == 1
    away.refuse = lambda command: False
    assert desk.calm("alice") == 2 * WORTH


def test_a_charge_that_could_not_be_delivered_is_delivered_once(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    away = _take_away(desk, lambda command: type(command).__name__ == "Settle")
    with caplog.at_level(logging.ERROR):
        litellm.completion(**desk.arguments("alice"))
    assert any("delivered later" in record.message for record in caplog.records)
    with pytest.raises(BudgetStoreUnavailable):
        desk.callback.flush()
    away.refuse = lambda command: False
    assert desk.calm("alice") == WORTH
    assert desk.calm("alice") == WORTH


def test_a_charge_that_can_never_be_stored_does_not_hold_back_the_others(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    away = _take_away(desk, lambda command: type(command).__name__ == "Settle")
    poison = Settle("poison", ledger.project, ledger.principal("alice").subjects, (), cost=-1, model="m")
    ledger.worker.deliver(poison, 1.0)
    litellm.completion(**desk.arguments("alice"))
    away.refuse = lambda command: False
    assert desk.calm("alice") == WORTH
    assert any("cannot be stored" in record.message for record in caplog.records)


def test_an_answer_to_a_reserve_that_got_lost_leaves_no_hold(desk: Desk, upstream: Upstream) -> None:
    """The store has applied the command, but the answer did not come in time, so the caller was refused."""
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    store = ledger.worker.client.store

    class Late(_Away):
        def execute(self, command: Any, timeout: float | None = None) -> Any:
            reply = self._store.execute(command, timeout)
            if isinstance(command, Reserve):
                raise BudgetStoreUnavailable("too late")
            return reply

    ledger.worker.client.store = Late(store, lambda command: False)
    with pytest.raises(BudgetStoreUnavailable):
        litellm.completion(**desk.arguments("alice"))
    ledger.worker.client.store = store
    assert desk.calm("alice") == 0
    assert upstream.requests == 0


def test_nothing_is_limited_is_said_once_at_start(
    open_desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    open_desk(default_limit=None)
    assert [record.levelname for record in caplog.records if "nothing is limited" in record.message] == ["WARNING"]
