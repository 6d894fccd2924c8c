"""Whole lists of limits set by hand, defaults for one subject, balances, and new windows that begin in the past."""

from __future__ import annotations

import pytest

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.budgets import history_scope
from litellm_budget_plugin.core.commands import AccountState, Done, Read, Refund, SetLimits, TopUp
from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError
from tests.core.desk import ALICE, BOB, PROJECT, Desk, limit, ref

DAY_LIMIT = limit(100, "day@UTC")
YEAR = 365 * DAY


def set_limits(desk: Desk, change: str, *limits: Limit, forget: bool = False) -> None:
    given = None if forget else limits
    assert desk.ask(SetLimits(change, PROJECT, ALICE, given, desk.defaults)) == Done(change)


def top_up(desk: Desk, payment: str, amount: int) -> None:
    assert desk.execute(TopUp(payment, PROJECT, ALICE, amount)) == Done(payment)


def test_several_limits_of_one_subject_all_count() -> None:
    desk = Desk(DAY_LIMIT, limit(150, "month@UTC"))
    desk.granted("a", 100)
    desk.settle("a", 100)
    assert desk.refused("b", 1).account == ref("day@UTC")
    desk.wait(DAY)
    assert desk.refused("c", 51).account == ref("month@UTC")
    desk.granted("d", 50)


def test_the_defaults_of_a_subject_take_the_place_of_those_for_all() -> None:
    desk = Desk(DAY_LIMIT, limit(30, model="gpt-4o*"), limit(500, "day@UTC", subject="bob"))
    desk.granted("a", 500, subjects=(BOB,))
    assert desk.refused("b", 1, subjects=(BOB,)).account == ref("day@UTC", BOB)
    assert desk.refused("c", 31).account == ref(model="gpt-4o*")


def test_unlimited_for_one_subject_is_no_limit() -> None:
    desk = Desk(DAY_LIMIT, limit(None, subject="alice"))
    desk.granted("a", 10_000)


def test_a_list_by_hand_is_the_whole() -> None:
    desk = Desk(DAY_LIMIT, limit(2, "1h", unit="calls"))
    set_limits(desk, "c1", Limit(500, "month@UTC"))
    desk.granted("a", 500, calls=50)
    assert desk.refused("b", 1).account == ref("month@UTC")


def test_an_empty_list_by_hand_and_unlimited_leave_no_limit() -> None:
    for limits in ((), (Limit(None),)):
        desk = Desk(DAY_LIMIT)
        set_limits(desk, "c1", *limits)
        desk.granted("a", 10_000)


def test_a_list_replaces_the_one_before_and_its_windows_go_on() -> None:
    desk = Desk()
    set_limits(desk, "c1", Limit(100, "day@UTC"), Limit(200, "7d"))
    desk.charge(60)
    set_limits(desk, "c2", Limit(90, "day@UTC"))
    assert desk.account("day@UTC").spent == 60
    assert desk.refused("a", 31).limit == 90
    desk.granted("b", 30)
    assert ref("7d") not in {state.ref for state in desk.states()}


def test_defaults_apply_again_with_what_was_spent_meanwhile() -> None:
    desk = Desk(limit(100, "7d"))
    desk.charge(10)
    set_limits(desk, "c1", Limit(500, "day@UTC"))
    desk.charge(60)
    set_limits(desk, "c2", forget=True)
    assert desk.refused("a", 31).account == ref("7d")
    desk.granted("b", 30)


def test_a_new_limit_counts_what_calls_in_flight_hold() -> None:
    desk = Desk()
    desk.granted("a", 60, models=("gpt-4o",))
    set_limits(desk, "c1", Limit(100, "day@UTC"), Limit(70, "12h", "gpt-4o*"), Limit(10, "12h", "claude"))
    assert desk.refused("b", 41, models=("o3",)).account == ref("day@UTC")
    assert desk.refused("c", 11).account == ref("12h", model="gpt-4o*")
    desk.settle("a", 50)
    assert desk.spent_held("day@UTC") == (50, 0)
    assert desk.spent_held("12h", model="gpt-4o*") == (50, 0)


def test_a_list_is_set_once() -> None:
    desk = Desk()
    set_limits(desk, "c1", Limit(100))
    set_limits(desk, "c2", Limit(200))
    set_limits(desk, "c1", Limit(100))
    assert desk.account().limit == 200
    with pytest.raises(BudgetInputError, match="was used for another change"):
        desk.execute(SetLimits("c1", PROJECT, ALICE, None))


def test_blocked_stays_blocked_when_the_limits_go() -> None:
    desk = Desk()
    set_limits(desk, "c1", Limit(100))
    desk.put("c2", blocked=True)
    set_limits(desk, "c3", Limit(500, "day@UTC"))
    assert desk.refused("a", 1).reason == "blocked"


# New windows that begin in the past.


@pytest.mark.parametrize("order", [("day@UTC", "month@UTC"), ("month@UTC", "day@UTC")])
def test_a_new_calendar_window_begins_with_what_the_totals_know(order: tuple[str, str]) -> None:
    desk = Desk()
    desk.charge(10, models=("claude",), model="claude")
    desk.wait(DAY)
    desk.charge(20)
    for number, window in enumerate(order):
        desk.put(f"c{number}", window=window, limit=1000)
    assert (desk.account("day@UTC").spent, desk.account("month@UTC").spent) == (20, 30)
    assert desk.account("month@UTC").models == {"claude": 10, "gpt-4o": 20}


def test_so_does_a_new_default_and_one_for_a_model_with_its_models() -> None:
    desk = Desk(limit(1000, "month@UTC"))
    desk.charge(10, models=("claude",), model="claude")
    desk.charge(20, model="gpt-4o-2024-08-06")
    desk.defaults = (limit(1000, "month@UTC"), limit(500, "week@UTC"), limit(300, "month@UTC", model="gpt-4o"))
    assert desk.refused("a", 281).account == ref("month@UTC", model="gpt-4o")
    assert desk.refused("b", 471, models=("claude",)).account == ref("week@UTC")


def test_a_day_that_lies_only_partly_in_the_window_is_not_counted() -> None:
    desk = Desk()
    desk.charge(10)
    desk.wait(DAY)
    desk.charge(20)
    # It began at 06:00 of this day: the totals do not separate the spend since then from the spend before.
    desk.put("c1", window="dayT06@UTC", limit=1000)
    assert desk.account("dayT06@UTC").spent == 0
    desk.put("c2", window="month:3T23@UTC", limit=1000)
    assert desk.account("month:3T23@UTC").spent == 30


@pytest.mark.parametrize("window", ["none", "7d"])
def test_other_windows_begin_with_nothing(window: str) -> None:
    desk = Desk()
    desk.charge(10)
    desk.put("c1", window=window, limit=1000)
    assert desk.account(window).spent == 0


def test_the_totals_count_in_the_unit_of_the_limit() -> None:
    desk = Desk()
    desk.charge(10, input_tokens=5, output_tokens=6)
    desk.charge(20)
    desk.put("c1", window="day@UTC", unit="calls", limit=3)
    desk.put("c2", window="day@UTC", unit="tokens", limit=100)
    assert (desk.account("day@UTC", unit="calls").spent, desk.account("day@UTC", unit="tokens").spent) == (2, 11)


# Balances.

CREDIT = limit(0, "credit")


def balance(desk: Desk) -> int:
    account = desk.account("credit")
    assert account.limit is not None
    return account.limit - account.spent - account.held


def entries(desk: Desk) -> list[AccountState]:
    reply = desk.ask(Read(PROJECT, history_scope("user"), "alice"))
    return list(reply.accounts)


def test_a_balance_is_a_limit_and_holds_count() -> None:
    desk = Desk(CREDIT)
    assert desk.refused("a", 1).account == ref("credit")
    top_up(desk, "invoice-1", 100)
    top_up(desk, "invoice-2", 50)
    desk.granted("b", 120)
    assert balance(desk) == 30
    assert desk.refused("c", 31).account == ref("credit")
    desk.settle("b", 100)
    assert balance(desk) == 50


def test_a_top_up_counts_once_for_ever() -> None:
    desk = Desk(CREDIT)
    top_up(desk, "invoice-1", 100)
    desk.wait(3 * YEAR)
    desk.sweep(marks_kept=DAY)
    top_up(desk, "invoice-1", 100)
    assert balance(desk) == 100
    with pytest.raises(BudgetInputError, match="was made before, for user 'alice', of"):
        desk.execute(TopUp("invoice-1", PROJECT, BOB, 100))
    with pytest.raises(BudgetInputError, match="was made before"):
        desk.execute(TopUp("invoice-1", PROJECT, ALICE, 99))


def test_a_refund_counts_once_and_can_leave_less_than_nothing() -> None:
    desk = Desk(CREDIT)
    top_up(desk, "invoice-1", 100)
    top_up(desk, "invoice-2", 50)
    desk.charge(80)
    for _ in range(2):
        assert desk.execute(Refund("invoice-1", PROJECT)) == Done("invoice-1")
    assert balance(desk) == -30
    assert desk.refused("a", 1).reason == "spent"
    assert [(each.ref.model, each.own_limit, each.blocked) for each in entries(desk)] == [
        ("invoice-1", 100, True),
        ("invoice-2", 50, False),
    ]
    with pytest.raises(BudgetInputError, match="no top-up 'invoice-3'"):
        desk.execute(Refund("invoice-3", PROJECT))


def test_a_refunded_top_up_cannot_be_made_again() -> None:
    desk = Desk(CREDIT)
    top_up(desk, "invoice-1", 100)
    desk.execute(Refund("invoice-1", PROJECT))
    top_up(desk, "invoice-1", 100)
    assert balance(desk) == 0


def test_a_balance_and_other_budgets_do_not_touch_each_other() -> None:
    desk = Desk(limit(40, "day@UTC"), CREDIT)
    top_up(desk, "invoice-1", 100)
    desk.charge(10)
    assert desk.refused("a", 31).account == ref("day@UTC")
    desk.put("c1", limit=500, window="7d", only=True)
    set_limits(desk, "c2", Limit(70, "7d"))
    desk.reset("c3")
    desk.drop("c4", model="")
    assert balance(desk) == 90
    assert desk.refused("b", 91).account == ref("credit")


def test_a_balance_has_a_highest_amount() -> None:
    desk = Desk(CREDIT)
    top_up(desk, "invoice-1", MAX_NANOS)
    with pytest.raises(BudgetInputError, match="a balance is at most"):
        desk.execute(TopUp("invoice-2", PROJECT, ALICE, 1))
    assert balance(desk) == MAX_NANOS


def test_credit_in_a_list_by_hand_keeps_the_balance() -> None:
    desk = Desk()
    set_limits(desk, "c1", Limit(0, "credit"), Limit(30, "day@UTC"))
    assert desk.refused("a", 1).account == ref("credit")
    top_up(desk, "invoice-1", 100)
    set_limits(desk, "c2", Limit(0, "credit"), Limit(60, "day@UTC"))
    desk.granted("b", 60)
    assert balance(desk) == 40


def test_without_credit_in_the_list_nobody_needs_a_balance() -> None:
    desk = Desk()
    set_limits(desk, "c1", Limit(0, "credit"))
    set_limits(desk, "c2", Limit(30, "day@UTC"))
    desk.granted("a", 30)


def test_the_subject_of_another_scope_is_another() -> None:
    desk = Desk(limit(10), limit(5, scope="team"))
    desk.granted("a", 10, subjects=(ALICE,))
    assert desk.refused("b", 6, subjects=(Subject("team", "alice"),)).limit == 5


def test_a_new_balance_begins_with_nothing_spent() -> None:
    """A limit that is removed at the same time passes its spend on to limits, not to a balance, which was paid for."""
    desk = Desk()
    set_limits(desk, "c1", Limit(100))
    desk.charge(60)
    set_limits(desk, "c2", Limit(0, "credit"))
    top_up(desk, "invoice-1", 50)
    assert balance(desk) == 50
    desk.granted("a", 50)


def test_a_new_balance_counts_what_calls_in_flight_hold() -> None:
    desk = Desk()
    desk.granted("a", 60)
    top_up(desk, "invoice-1", 100)
    assert balance(desk) == 40
    assert desk.refused("b", 41).account == ref("credit")
    desk.settle("a", 50)
    assert desk.spent_held("credit") == (50, 0)
