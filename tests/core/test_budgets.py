"""PutBudget, DropBudget and Reset: limits set by hand, and their effect on money in flight."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Usage
from litellm_budget_plugin.core.commands import Done, DropBudget, PutBudget, Refused, Reset, RollNeeded
from litellm_budget_plugin.core.row_store import Changes
from litellm_budget_plugin.core.windows import DAY, SECOND
from tests.core.desk import ALICE, BOB, NOON, PROJECT, TTL, Desk, limit, ref, snapshot


def windows(desk: Desk) -> list[str]:
    return [state.ref.window for state in desk.states()]


def test_a_limit_of_its_own_takes_the_place_of_the_default() -> None:
    desk = Desk(limit(100))
    desk.put("put", limit=500)
    desk.granted("a", 500)
    desk.granted("b", 100, subjects=(BOB,))
    assert desk.refused("c", 1, subjects=(BOB,)).limit == 100


def test_a_first_limit_of_its_own_in_another_window_goes_on_where_the_default_was_followed() -> None:
    desk = Desk(limit(100))
    desk.charge(20)
    desk.granted("a", 80)
    desk.put("put", limit=500, window="day")
    assert windows(desk) == ["day"]
    desk.granted("b", 400)
    assert desk.refused("c", 1) == Refused("c", ref("day"), "held", 500, 20, 480, 1, 20_001 * DAY)


def test_a_second_limit_of_its_own_leaves_the_first_as_it_is() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 80)
    desk.put("one", limit=500)
    desk.put("two", limit=50, window="day")
    assert (desk.account().held, desk.account("day").held) == (80, 0)


def test_a_limit_of_its_own_silences_the_default_of_its_model_and_unit_only() -> None:
    desk = Desk(limit(100), limit(5, unit="calls"), limit(50, model="gpt-4o"))
    desk.put("put", limit=500)
    assert desk.refused("a", 51).account == ref(model="gpt-4o")
    assert desk.refused("b", 0, 6).account == ref(unit="calls")
    desk.granted("c", 500, models=("claude",))


def test_none_is_explicitly_unlimited() -> None:
    desk = Desk(limit(100))
    desk.put("put", limit=None)
    desk.granted("a", 2**50)


def test_who_follows_a_default_follows_it_when_it_is_raised_and_lowered() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 100)
    desk.granted("b", 50, defaults=(limit(150),))
    assert desk.refused("c", 1, defaults=(limit(20),)).limit == 20


def test_a_limit_lowered_below_what_is_held_refuses_new_calls_only() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 80)
    desk.put("put", limit=10)
    assert desk.refused("b", 1).reason == "held"
    desk.settle("a", 75)
    assert desk.refused("c", 1).reason == "spent"
    assert desk.spent_held() == (75, 0)


def test_a_raise_counts_until_its_end() -> None:
    desk = Desk(limit(100))
    desk.put("raise", raised_by=50, raised_until=NOON + 10)
    desk.granted("a", 150, expires_after=DAY)
    desk.wait(9)
    assert desk.states()[0].limit == 150
    desk.wait(1)
    assert desk.states()[0].limit == 100
    assert desk.refused("b", 1).limit == 100


def test_a_raise_of_one_who_follows_the_default_adds_to_the_default() -> None:
    desk = Desk(limit(100))
    desk.put("raise", raised_by=50, raised_until=NOON + DAY)
    assert desk.account().pinned is False
    desk.granted("a", 250, defaults=(limit(200),))


def test_only_what_is_given_changes() -> None:
    desk = Desk()
    desk.put("one", limit=100, raised_by=5, raised_until=9, carry_over=7, created_at=3, blocked=True)
    desk.put("two", blocked=False)
    account = desk.account()
    assert (account.limit, account.raised_by, account.raised_until, account.carry_over) == (100, 5, 9, 7)
    assert (account.created_at, account.blocked, account.pinned) == (3, False, True)


def test_keep_is_the_window_there_is_or_that_of_the_default() -> None:
    desk = Desk(limit(100, "90s"))
    desk.put("one", limit=7)
    assert windows(desk) == ["90s"]
    desk.put("two", limit=8, window="90s", subject=BOB)
    desk.put("three", limit=9, defaults=(), subject=BOB)
    assert [(state.ref.window, state.own_limit) for state in desk.states(BOB)] == [("90s", 9)]
    desk = Desk()
    desk.put("one", limit=7)
    assert windows(desk) == ["none"]


def test_budgets_with_several_windows_stand_side_by_side() -> None:
    desk = Desk()
    desk.put("month", limit=1_000, window="month")
    desk.put("day", limit=100, window="day")
    assert desk.refused("a", 101).account == ref("day")
    desk.granted("b", 100)
    assert [state.held for state in desk.states()] == [100, 100]


@pytest.mark.parametrize("fields", [{}, {"bounds": (NOON - DAY, NOON + DAY)}])
def test_a_new_window_for_the_only_budget_keeps_its_spend_and_its_holds(fields: dict[str, Any]) -> None:
    desk = Desk()
    desk.put("month", limit=100, window="month", carry_over=5, blocked=False)
    desk.charge(30, model="claude")
    desk.granted("a", 50)
    desk.put("day", window="day", only=True, **fields)
    assert windows(desk) == ["day"]
    account = desk.account("day")
    assert (account.spent, account.held, account.limit, account.carry_over) == (30, 50, 100, 5)
    assert account.models == {"claude": 30}
    assert desk.refused("b", 21).held == 50
    desk.settle("a", 10)
    assert desk.spent_held("day") == (40, 0)


def test_a_new_window_for_the_only_budget_leaves_an_ended_spend_behind() -> None:
    desk = Desk()
    desk.put("short", limit=100, window="90s")
    desk.charge(30)
    desk.granted("a", 50, expires_after=DAY)
    desk.wait(90 * SECOND)
    desk.put("fixed", window="12h", only=True)
    assert desk.spent_held("12h") == (0, 50)


def test_what_an_earlier_version_has_alerted_of_stays_until_its_window_ends() -> None:
    """Processes of that version may still read it."""
    desk = Desk(limit(100, "90s"))
    desk.charge(90)
    account = desk.account("90s")
    account.alerted, account.alert_limit = 800_000, 100
    desk.book.write(PROJECT, Changes({account.ref: account}))
    desk.charge(1)
    desk.put("put", limit=100, window="12h", only=True)
    assert (desk.account("12h").alerted, desk.account("12h").alert_limit) == (800_000, 100)
    desk.wait(12 * 3600 * SECOND)
    desk.charge(1)
    assert desk.account("12h").alerted == 0


def test_the_only_budget_takes_the_place_of_all_others_of_its_model_and_unit() -> None:
    desk = Desk()
    desk.put("month", limit=1_000, window="month")
    desk.put("day", limit=100, window="day")
    desk.put("claude", limit=5, model="claude")
    desk.put("calls", limit=6, unit="calls")
    desk.put("none", limit=50, window="none", only=True)
    assert {(state.ref.window, state.ref.model, state.ref.unit) for state in desk.states()} == {
        ("none", "", "usd"), ("none", "claude", "usd"), ("none", "", "calls"),
    }  # fmt: skip


@pytest.mark.parametrize("kept", ["none", "day", "month"])
def test_a_hold_on_several_budgets_that_become_one_is_held_once_and_comes_back(kept: str) -> None:
    desk = Desk()
    desk.put("day", limit=100, window="day")
    desk.put("month", limit=100, window="month")
    desk.granted("a", 60)
    desk.put("only", window=kept, limit=100, only=True)
    assert desk.spent_held(kept) == (0, 60)
    desk.settle("a", 10)
    assert [(state.ref.window, state.held) for state in desk.states()] == [(kept, 0)]


def test_one_who_follows_a_default_and_gets_a_limit_in_another_window_keeps_what_is_held() -> None:
    desk = Desk(limit(100))
    desk.charge(20)
    desk.granted("a", 50)
    desk.put("only", limit=80, window="day", only=True)
    assert windows(desk) == ["day"]
    assert desk.spent_held("day") == (20, 50)
    assert desk.refused("b", 11).reason == "held"


def test_a_floor_charged_before_the_window_changed_is_not_taken_from_the_new_one() -> None:
    desk = Desk()
    desk.put("day", limit=100, window="day")
    desk.granted("a", 50, floor=10)
    desk.wait(TTL)
    desk.sweep()
    desk.put("none", window="none", only=True)
    desk.put("back", window="day", only=True, spent=())
    desk.settle("a", 4)
    assert desk.spent_held("day") == (0, 0)
    assert desk.totals().spent == 4


def test_spent_replaces_what_was_spent_by_model() -> None:
    desk = Desk(limit(100))
    desk.charge(20)
    desk.granted("a", 30)
    desk.put("spent", spent=(("gpt-4o", 40), ("claude", 5)))
    account = desk.account()
    assert (account.spent, account.held, account.models) == (45, 30, {"gpt-4o": 40, "claude": 5})
    assert desk.totals() == Usage(20, 1)


def test_bounds_move_the_open_window() -> None:
    desk = Desk()
    desk.put("put", limit=100, window="7d", bounds=(NOON - DAY, NOON + 6 * DAY), created_at=NOON - 8 * DAY)
    desk.charge(20)
    desk.put("move", bounds=(NOON - 2 * DAY, NOON + DAY), window="7d")
    state = desk.states()[0]
    assert (state.start, state.end, state.spent, state.created_at) == (NOON - 2 * DAY, NOON + DAY, 20, NOON - 8 * DAY)
    desk.wait(DAY)
    desk.charge(1)
    state = desk.states()[0]
    assert state.end is not None
    assert state.start <= desk.now < state.end
    assert (state.spent, state.ended) == (1, False)


def test_bounds_of_a_new_budget_need_no_roll() -> None:
    desk = Desk()
    command = PutBudget("put", PROJECT, ALICE, window="7d", limit=1, bounds=(NOON - DAY, NOON + DAY))
    assert desk.execute(command) == Done("put")


def test_a_budget_with_a_new_window_asks_for_its_bounds_first() -> None:
    desk = Desk()
    before = snapshot(desk.book)
    assert isinstance(desk.execute(PutBudget("put", PROJECT, ALICE, window="7d", limit=1)), RollNeeded)
    assert snapshot(desk.book) == before
    desk.put("put", window="7d", limit=1)
    state = desk.states()[0]
    assert (state.start, state.end, state.created_at) == (NOON, NOON + 7 * DAY, NOON)


@pytest.mark.parametrize("held", [False, True])
def test_a_dropped_budget_is_forgotten_and_the_totals_stay(held: bool) -> None:
    desk = Desk()
    desk.put("put", limit=100, blocked=False, raised_by=5, raised_until=NOON + DAY)
    desk.charge(30)
    if held:
        desk.granted("a", 50)
    desk.drop("drop")
    assert [(state.limit, state.spent, state.held, state.pinned) for state in desk.states()] == (
        [(None, 0, 50, False)] if held else []
    )
    desk.release("a")
    assert desk.states() == ()
    assert desk.totals().spent == 30
    desk.granted("b", 2**50)


def test_a_budget_dropped_while_held_falls_back_to_the_default_with_its_holds() -> None:
    desk = Desk(limit(100))
    desk.put("put", limit=500)
    desk.granted("a", 90)
    desk.drop("drop")
    assert desk.refused("b", 20).held == 90
    desk.granted("c", 10)
    desk.release("a")
    desk.release("c")
    assert desk.spent_held() == (0, 0)


def test_a_charge_of_a_hold_whose_budget_was_dropped_counts_in_the_totals() -> None:
    desk = Desk()
    desk.put("put", limit=100)
    desk.granted("a", 50)
    desk.granted("b", 40, floor=7)
    desk.drop("drop")
    desk.settle("a", 30)
    desk.wait(TTL)
    desk.sweep()
    assert desk.states() == ()
    assert desk.totals() == Usage(37, 1, unsettled=1)
    desk.settle("b", 5)
    assert desk.totals() == Usage(35, 2)


def test_dropping_one_window_or_model_leaves_the_others() -> None:
    desk = Desk()
    for number, (window, model) in enumerate([("none", ""), ("day", ""), ("day", "claude")]):
        desk.put(f"put {number}", limit=5, window=window, model=model)
    desk.drop("drop day", window="day", model="")
    assert [(state.ref.model, state.ref.window) for state in desk.states()] == [("", "none"), ("claude", "day")]
    desk.drop("drop claude", model="claude")
    assert windows(desk) == ["none"]
    desk.drop("drop bob", subject=BOB)
    assert windows(desk) == ["none"]
    desk.drop("drop all")
    assert windows(desk) == []


def test_a_reset_forgets_what_was_spent_and_nothing_else() -> None:
    desk = Desk(limit(100), limit(100, "day"))
    desk.charge(30)
    desk.granted("a", 50)
    assert desk.reset("reset day", window="day") == Done("reset day")
    assert desk.spent_held() == (30, 50)
    assert desk.spent_held("day") == (0, 50)
    assert desk.account("day").models == {}
    desk.reset("reset all")
    assert desk.spent_held() == (0, 50)
    assert desk.totals() == Usage(30, 1)
    desk.settle("a", 10)
    assert desk.spent_held() == (10, 0)


@pytest.mark.parametrize(
    "command",
    [
        PutBudget("change", PROJECT, ALICE, limit=70, spent=(("claude", 9),), blocked=True),
        PutBudget("change", PROJECT, ALICE, limit=70, window="none", only=True, raised_by=5),
        PutBudget("change", PROJECT, ALICE, window="7d", only=True, bounds=(NOON, NOON + DAY)),
        DropBudget("change", PROJECT, ALICE),
        Reset("change", PROJECT, ALICE),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_change_repeated_replies_the_same_and_changes_nothing(command: PutBudget | DropBudget | Reset) -> None:
    desk = Desk(limit(100))
    desk.charge(30)
    desk.granted("a", 50)
    assert desk.execute(command) == Done("change")
    before = snapshot(desk.book)
    assert desk.execute(command) == Done("change")
    assert snapshot(desk.book) == before
    desk.charge(11, model="late")
    desk.put("another change", limit=3, blocked=False, window="none")
    before = snapshot(desk.book)
    assert desk.execute(command) == Done("change")
    assert snapshot(desk.book) == before
