"""Holds that were not settled: their time limit, their floor, and its correction."""

from __future__ import annotations

import pytest

from litellm_budget_plugin.core.accounts import Amounts, Usage
from litellm_budget_plugin.core.commands import Closed, Granted, RollNeeded, Settled, Swept
from litellm_budget_plugin.core.holding import MOST_DUE
from litellm_budget_plugin.core.windows import DAY, SECOND
from tests.core.desk import ALICE, BLUE, BOB, TTL, Desk, limit, snapshot


def test_a_hold_lives_until_its_time_limit_and_not_longer() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60, floor=10)
    desk.wait(TTL - 1)
    assert desk.sweep().expired == 0
    assert desk.spent_held() == (0, 60)
    desk.wait(1)
    assert desk.sweep() == Swept(1, 0, 0)
    assert desk.spent_held() == (10, 0)


def test_an_expired_hold_is_charged_its_floor_in_every_unit_and_marked_unsettled() -> None:
    desk = Desk(limit(100), limit(9, unit="calls"), limit(90, unit="tokens"))
    desk.granted("a", 60, 1, 50, floor=Amounts(10, 1, 30))
    desk.wait(TTL)
    desk.sweep()
    assert {state.ref.unit: (state.spent, state.held) for state in desk.states()} == {
        "usd": (10, 0), "calls": (1, 0), "tokens": (30, 0),
    }  # fmt: skip
    assert desk.totals() == Usage(10, 1, 30, unsettled=1)
    assert desk.account().models == {"gpt-4o": 10}


def test_a_late_settlement_replaces_the_floor_in_the_same_window() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60, floor=10)
    desk.wait(TTL)
    desk.sweep()
    desk.settle("a", 25, model="gpt-4o-2024", input_tokens=3)
    assert desk.spent_held() == (25, 0)
    assert desk.account().models == {"gpt-4o-2024": 25}
    assert desk.totals() == Usage(25, 1, 3)


def test_a_late_settlement_of_nothing_gives_the_floor_back() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60, floor=10)
    desk.wait(TTL)
    desk.sweep()
    desk.settle("a", 0)
    assert desk.spent_held() == (0, 0)


def test_a_late_release_gives_the_floor_back() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60, floor=10)
    desk.wait(TTL)
    desk.sweep()
    for _ in range(2):
        desk.release("a")
        assert desk.spent_held() == (0, 0)
        assert desk.totals() == Usage()
    desk.settle("a", 25)
    assert desk.spent_held() == (25, 0)


@pytest.mark.parametrize("cost", [3, 10, 25, None])
def test_a_late_end_after_the_roll_charges_what_the_floor_did_not_pay(cost: int | None) -> None:
    desk = Desk(limit(100, "12h"))
    desk.granted("a", 60, floor=10)
    desk.wait(TTL)
    desk.sweep()
    desk.wait(DAY)
    desk.charge(1, calls=0)
    if cost is None:
        desk.release("a")
    else:
        desk.settle("a", cost)
    assert desk.spent_held("12h") == (1 + max(0, (cost or 0) - 10), 0)
    assert desk.totals() == Usage(1 + (cost or 0), 0 if cost is None else 1)


@pytest.mark.parametrize("change", ["reset", "spent"])
def test_a_late_settlement_after_the_spend_was_cleared_does_not_give_the_floor_back(change: str) -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60, floor=10)
    desk.wait(TTL)
    desk.sweep()
    if change == "reset":
        desk.reset("change")
    else:
        desk.put("change", spent=())
    desk.charge(1, calls=0)
    desk.settle("a", 7)
    assert desk.spent_held() == (1, 0)
    assert desk.totals() == Usage(8, 1)


def test_an_account_born_again_owes_nothing_to_a_floor_of_its_former_life() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60, floor=10)
    desk.wait(TTL)
    desk.sweep()
    desk.drop("drop")
    desk.granted("b", 20)
    desk.release("a")
    assert desk.spent_held() == (0, 20)


def test_an_account_born_by_the_late_settlement_owes_nothing_to_a_floor_of_its_former_life() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60, floor=10)
    desk.wait(TTL)
    desk.sweep()
    desk.drop("drop")
    desk.settle("a", 7)
    assert desk.spent_held() == (7, 0)
    assert desk.totals() == Usage(7, 1)


def test_an_account_born_again_by_others_is_charged_the_late_settlement() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60, floor=10)
    desk.wait(TTL)
    desk.sweep()
    desk.drop("drop")
    desk.charge(1, calls=0)
    desk.settle("a", 7)
    assert desk.spent_held() == (8, 0)
    assert desk.totals() == Usage(8, 1)


@pytest.mark.parametrize("cost", [None, 0, 4, 25])
def test_accounts_born_by_one_hold_get_their_floor_back_each_its_own(cost: int | None) -> None:
    desk = Desk(limit(100), limit(100, "day"), limit(100, model="gpt-4o"), limit(9, unit="calls"))
    desk.granted("a", 60, 1, floor=Amounts(10, 1))
    desk.wait(TTL)
    desk.sweep()
    if cost is None:
        desk.release("a")
    else:
        desk.settle("a", cost)
    calls = 0 if cost is None else 1
    assert [state.spent for state in desk.states()] == [
        calls if state.ref.unit == "calls" else cost or 0 for state in desk.states()
    ]
    assert desk.totals() == Usage(cost or 0, calls)


def test_a_hold_that_expires_after_its_window_charges_the_window_that_is_recorded() -> None:
    desk = Desk(limit(100, "90s"))
    desk.granted("a", 60, floor=10)
    desk.wait(TTL)
    desk.sweep()
    assert desk.spent_held("90s") == (10, 0)
    desk.charge(1)
    assert desk.spent_held("90s") == (1, 0)


def test_a_hold_across_a_roll_stays_held() -> None:
    desk = Desk(limit(100, "90s"))
    desk.granted("a", 60, expires_after=DAY)
    desk.wait(100 * SECOND)
    desk.charge(1)
    assert desk.spent_held("90s") == (1, 60)
    assert desk.refused("b", 40).held == 60
    desk.settle("a", 30)
    assert desk.spent_held("90s") == (31, 0)


@pytest.mark.parametrize("command", ["settle", "release", "renew", "read", "reserve"])
def test_reads_and_renewals_expire_due_holds_and_nothing_else_waits_for_them(command: str) -> None:
    desk = Desk(limit(1_000))
    for number in range(6):
        desk.granted(f"dead {number}", 10, floor=1)
    desk.wait(TTL)
    if command == "settle":
        desk.settle("x", 0)
    elif command == "release":
        desk.release("x")
    elif command == "renew":
        desk.renew("x")
    elif command == "read":
        assert [(state.spent, state.held) for state in desk.states()] == [(6, 0)]
    else:
        desk.granted("x", 0)
    assert desk.spent_held() == ((6, 0) if command in ("renew", "read") else (0, 60))


def test_the_longest_overdue_holds_expire_first_and_not_all_at_once() -> None:
    desk = Desk(limit(10_000))
    for number in range(MOST_DUE + 2):
        desk.granted(f"h{number}", 1)
        desk.wait(1)
    desk.wait(TTL)
    desk.renew("x")
    states = [desk.hold(f"h{number}").state for number in range(MOST_DUE + 2)]
    assert states == ["expired"] * MOST_DUE + ["open"] * 2


def test_however_many_holds_are_due_they_refuse_nobody() -> None:
    desk = Desk(limit(2 * MOST_DUE + 1))
    for number in range(2 * MOST_DUE + 1):
        desk.granted(f"h{number}", 1)
    desk.wait(TTL)
    rounds = 0
    while isinstance(reply := desk.execute(desk.reserve_command("new", 2 * MOST_DUE + 1)), RollNeeded):
        assert reply.due == ()
        rounds += 1
    assert (reply, rounds) == (Granted("new", Amounts(2 * MOST_DUE + 1)), 2)


def test_a_renewed_hold_lives_on() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60, floor=10)
    desk.wait(TTL - 1)
    assert desk.renew("a", "unknown").missing == ("unknown",)
    desk.wait(TTL - 1)
    desk.sweep()
    assert desk.spent_held() == (0, 60)
    desk.wait(1)
    desk.sweep()
    assert desk.spent_held() == (10, 0)


def test_a_renewal_never_shortens_a_hold() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60)
    desk.renew("a", expires_after=1)
    desk.wait(TTL - 1)
    assert desk.sweep().expired == 0


def test_what_a_renewal_does_not_report_missing_is_open() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60, floor=10)
    desk.wait(TTL)
    missing = desk.renew("a").missing
    assert ("a" in missing) == (desk.hold("a").state != "open")
    assert desk.spent_held() == ((10, 0) if missing else (0, 60))


def test_a_renewal_in_time_outruns_the_expiry_of_others() -> None:
    desk = Desk(limit(100))
    desk.granted("alive", 30, floor=10)
    desk.granted("dead", 30, floor=10)
    desk.wait(TTL - 1)
    desk.renew("alive")
    desk.wait(1)
    desk.sweep()
    assert (desk.hold("alive").state, desk.hold("dead").state) == ("open", "expired")


def test_closed_holds_are_missing_from_a_renewal() -> None:
    desk = Desk(limit(0))
    desk.settle("settled", 1)
    desk.release("released")
    desk.refused("refused", 1)
    assert desk.renew("settled", "released", "refused").missing == ("settled", "released", "refused")


def test_a_sweep_forgets_marks_older_than_their_time_and_no_open_hold() -> None:
    desk = Desk(limit(100))
    desk.granted("open", 10, expires_after=DAY)
    desk.settle("old", 1)
    desk.wait(1_000)
    desk.settle("new", 1)
    assert desk.sweep(marks_kept=1_000).forgotten == 0
    desk.wait(1)
    assert desk.sweep(marks_kept=1_000).forgotten == 1
    assert desk.reserve("new", 1) == Closed("new")
    assert desk.reserve("open", 10) == Granted("open", Amounts(10))
    assert desk.spent_held() == (2, 10)


def test_a_sweep_folds_old_days_and_loses_nothing() -> None:
    desk = Desk(limit(100))
    desk.charge(1, input_tokens=2, subjects=(ALICE, BOB))
    desk.granted("a", 10, floor=4)
    desk.wait(TTL)
    desk.sweep()
    before = desk.totals()
    desk.wait(3 * DAY)
    desk.charge(5)
    assert desk.sweep(days_kept=2 * DAY).folded == 2
    assert desk.sweep(days_kept=2 * DAY).folded == 0
    assert desk.totals() == before.plus(Usage(5, 1))


def test_days_folded_away_one_after_the_other_add_up() -> None:
    desk = Desk(limit(100))
    for day in range(1, 4):
        desk.charge(day, input_tokens=2)
        desk.wait(3 * DAY)
        assert desk.sweep(days_kept=DAY).folded == 1
    rows = desk.book.usage_rows("app", "user", "alice", 0, 0)
    assert [usage for _, usage in rows] == [Usage(6, 3, 6)]


@pytest.mark.parametrize("cost", [None, 7])
def test_a_floor_folded_away_is_corrected_where_it_went(cost: int | None) -> None:
    desk = Desk(limit(100))
    desk.granted("a", 10, floor=4)
    desk.granted("b", 10, floor=4)
    desk.wait(TTL)
    desk.sweep()
    desk.wait(3 * DAY)
    desk.sweep(days_kept=DAY)
    if cost is None:
        desk.release("a")
    else:
        desk.settle("a", cost)
    reply = desk.totals()
    assert (reply.spent, reply.unsettled) == (4 + (cost or 0), 1)
    rows = desk.book.usage_rows("app", "user", "alice", 0, 2**31)
    assert min(min(usage) for _, usage in rows) >= 0


def test_a_sweep_expires_every_due_hold() -> None:
    desk = Desk(limit(1_000))
    for number in range(20):
        desk.granted(f"dead {number}", 10, subjects=(ALICE, BLUE), floor=1)
    desk.wait(TTL)
    assert desk.sweep().expired == 20
    before = snapshot(desk.book)
    assert desk.sweep() == Swept(0, 0, 0)
    assert snapshot(desk.book) == before
    assert desk.totals(BLUE).unsettled == 20


def test_a_due_hold_that_its_settlement_finds_is_charged_its_cost_only() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60, floor=10)
    desk.wait(DAY)
    assert desk.settle("a", 3) == Settled("a")
    assert desk.spent_held() == (3, 0)
    assert desk.totals() == Usage(3, 1)
