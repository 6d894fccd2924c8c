"""Settle and Release: each attempt is charged once, whatever came before and whatever is repeated."""

from __future__ import annotations

import pytest

from litellm_budget_plugin.core.accounts import Amounts, Usage, UsageKey
from litellm_budget_plugin.core.commands import (
    AlreadyCharged,
    Closed,
    ReadUsage,
    Released,
    RollDue,
    RollNeeded,
    Settled,
    UsageRows,
)
from litellm_budget_plugin.core.windows import DAY, SECOND
from tests.core.desk import ALICE, BLUE, NOON, PROJECT, TTL, Desk, limit, ref, snapshot

TODAY = NOON // DAY


def test_a_settled_hold_is_charged_its_cost_and_comes_back() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60)
    assert desk.settle("a", 25, model="gpt-4o-2024") == Settled("a")
    assert desk.spent_held() == (25, 0)
    assert desk.account().models == {"gpt-4o-2024": 25}


def test_a_charge_may_exceed_its_hold_and_the_limit() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60)
    desk.settle("a", 150)
    assert desk.spent_held() == (150, 0)
    assert desk.refused("b", 1).reason == "spent"


def test_a_settlement_repeated_changes_nothing() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60)
    first = desk.settle("a", 90)
    before = snapshot(desk.book)
    desk.wait(5 * SECOND)
    assert desk.settle("a", 90) == first
    assert desk.settle("a", 70) == first
    assert snapshot(desk.book) == before


def test_a_settlement_suffices_alone_and_closes_the_late_hold() -> None:
    desk = Desk(limit(100))
    desk.settle("a", 25)
    assert desk.reserve("a", 60) == Closed("a")
    assert desk.spent_held() == (25, 0)


def test_a_settlement_of_nothing_closes_the_hold_and_counts_the_call() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60)
    desk.settle("a", 0, input_tokens=5)
    assert desk.spent_held() == (0, 0)
    assert desk.totals() == Usage(0, 1, 5)
    assert desk.account().models == {}


def test_a_release_gives_everything_back() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60)
    assert desk.release("a") == desk.release("a") == Released("a")
    assert desk.spent_held() == (0, 0)
    assert desk.totals() == Usage()


def test_a_release_that_overtakes_its_hold_closes_it() -> None:
    desk = Desk(limit(100))
    desk.release("a")
    assert desk.reserve("a", 60) == Closed("a")
    assert desk.states() == ()


def test_a_release_after_the_settlement_changes_nothing() -> None:
    desk = Desk(limit(100))
    desk.settle("a", 25)
    before = snapshot(desk.book)
    assert desk.release("a") == Released("a")
    assert snapshot(desk.book) == before


def test_a_settlement_after_the_release_still_charges() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60)
    desk.release("a")
    desk.settle("a", 25)
    assert desk.spent_held() == (25, 0)


def test_a_settlement_after_a_refusal_still_charges() -> None:
    desk = Desk(limit(10))
    desk.refused("a", 60)
    desk.settle("a", 25)
    assert desk.spent_held() == (25, 0)


def test_a_charge_is_counted_in_every_unit_and_account() -> None:
    desk = Desk(
        limit(100), limit(9, unit="calls"), limit(9, "day", unit="tokens"), limit(1, scope="team", model="claude")
    )
    desk.settle("a", 7, calls=2, input_tokens=3, output_tokens=4, subjects=(ALICE, BLUE))
    assert {state.ref.unit: state.spent for state in desk.states()} == {"usd": 7, "calls": 2, "tokens": 7}
    assert desk.states(BLUE) == ()
    assert desk.totals() == desk.totals(BLUE) == Usage(7, 2, 3, 4)


def test_totals_are_kept_by_day_and_by_the_model_of_the_response() -> None:
    desk = Desk(limit(100))
    desk.charge(1, model="gpt-4o")
    desk.charge(2, model="claude")
    desk.wait(DAY)
    desk.charge(3, model="gpt-4o")
    rows = (
        (UsageKey("user", "alice", TODAY, "claude"), Usage(2, 1)),
        (UsageKey("user", "alice", TODAY, "gpt-4o"), Usage(1, 1)),
        (UsageKey("user", "alice", TODAY + 1, "gpt-4o"), Usage(3, 1)),
    )
    assert desk.execute(ReadUsage(PROJECT, "user", "alice")) == UsageRows(rows)
    assert desk.execute(ReadUsage(PROJECT, "user", since=TODAY, until=TODAY)) == UsageRows(rows[:2])
    assert desk.execute(ReadUsage(PROJECT, "user", "bob")) == UsageRows(())
    assert desk.execute(ReadUsage(PROJECT, "team")) == UsageRows(())


@pytest.mark.parametrize(("at", "day"), [(NOON - 3 * DAY, TODAY - 3), (NOON + 3 * DAY, TODAY), (None, TODAY)])
def test_a_charge_delivered_late_counts_on_its_day_in_the_totals_and_in_the_window_of_now(at: int, day: int) -> None:
    desk = Desk(limit(100, "day"))
    desk.charge(5, at=at)
    assert desk.account("day").spent == 5
    rows = ((UsageKey("user", "alice", day, "gpt-4o"), Usage(5, 1)),)
    assert desk.execute(ReadUsage(PROJECT, "user", "alice")) == UsageRows(rows)


def test_a_charge_for_an_ended_window_asks_for_the_next_one_first() -> None:
    desk = Desk(limit(100, "90s"))
    desk.granted("a", 10)
    desk.wait(90 * SECOND)
    before = snapshot(desk.book)
    due = (RollDue(ref("90s"), NOON, NOON + 90 * SECOND),)
    assert desk.execute(desk.settle_command("a", 7)) == RollNeeded(desk.now, due)
    assert snapshot(desk.book) == before
    desk.settle("a", 7)
    assert desk.spent_held("90s") == (7, 0)


def test_a_charge_known_by_another_id_is_not_charged_again() -> None:
    desk = Desk(limit(100))
    desk.settle("call/1", 5, aliases=("resp-1", "resp-2"))
    for _ in range(2):
        assert desk.settle("cron", 5, unless="resp-2") == AlreadyCharged("cron")
    assert desk.spent_held() == (5, 0)
    assert desk.totals() == Usage(5, 1)
    assert desk.reserve("cron", 1) == Closed("cron")
    assert desk.settle("other", 5, unless="resp-3") == Settled("other")
    assert desk.spent_held() == (10, 0)


def test_an_alias_does_not_close_a_hold_of_that_name() -> None:
    desk = Desk(limit(100))
    desk.granted("b", 30)
    desk.settle("a", 5, aliases=("b",))
    assert desk.spent_held() == (5, 30)
    desk.settle("b", 20)
    assert desk.spent_held() == (25, 0)


def test_a_settlement_takes_off_every_leg_of_the_hold_and_charges_those_of_the_subjects_that_pay() -> None:
    desk = Desk(limit(100), limit(100, scope="team"))
    desk.granted("a", 60, subjects=(ALICE, BLUE))
    desk.settle("a", 5, defaults=(), subjects=(ALICE,))
    assert desk.spent_held() == (5, 0)
    assert desk.spent_held(subject=BLUE) == (0, 0)
    assert desk.totals() == Usage(5, 1)


def test_a_charge_leaves_due_holds_as_they_are() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 30, floor=20)
    desk.granted("b", 30, floor=20)
    desk.wait(TTL + 1)
    desk.settle("a", 7)
    assert desk.spent_held() == (7, 30)
    desk.sweep()
    assert desk.spent_held() == (27, 0)


def test_a_hold_that_was_charged_by_another_id_does_not_cost_its_floor_too() -> None:
    desk = Desk(limit(100))
    desk.granted("call/1", 60, floor=10)
    desk.settle("log line", 25, aliases=("resp-1",))
    assert desk.settle("call/1", 25, unless="resp-1") == AlreadyCharged("call/1")
    desk.wait(TTL)
    desk.sweep()
    assert desk.spent_held() == (25, 0)


@pytest.mark.parametrize(("cost", "spent", "held"), [(25, 25, 55), (0, 0, 80), (80, 80, 0), (95, 95, 0)])
def test_a_charge_comes_out_of_the_open_hold_that_it_names(cost: int, spent: int, held: int) -> None:
    """The parent hold covers at most its own amount; the charge's own hold is unknown to the ledger."""
    desk = Desk(limit(100))
    desk.granted("slice", 80, floor=10)
    desk.settle("a", cost, parent="slice")
    desk.settle("a", cost, parent="slice")
    assert desk.spent_held() == (spent, held)
    assert desk.hold("slice").amounts == Amounts(held)
    desk.release("slice")
    assert desk.spent_held() == (spent, 0)


def test_a_charge_comes_out_of_every_unit_and_account_of_the_hold_that_it_names() -> None:
    desk = Desk(limit(100), limit(10, unit="calls"), limit(90, unit="tokens"), limit(100, scope="team"))
    desk.granted("slice", 50, 2, 30, subjects=(ALICE, BLUE))
    desk.settle("a", 20, parent="slice", input_tokens=30, output_tokens=10)
    assert desk.spent_held() == (20, 30)
    assert desk.spent_held(unit="calls") == (1, 1)
    assert desk.spent_held(unit="tokens") == (40, 0)
    # This is also held for the team, although the charge is not the team's.
    assert desk.spent_held(subject=BLUE) == (0, 30)


@pytest.mark.parametrize("ending", ["released", "settled", "expired", "unknown"])
def test_a_charge_takes_nothing_from_a_hold_that_is_closed(ending: str) -> None:
    desk = Desk(limit(100))
    desk.granted("slice", 80)
    desk.granted("other", 10, expires_after=DAY)
    if ending == "released":
        desk.release("slice")
    elif ending == "settled":
        desk.settle("slice", 0)
    elif ending == "expired":
        desk.wait(TTL)
        desk.sweep()
    held = desk.account().held
    desk.settle("a", 25, parent="unknown" if ending == "unknown" else "slice")
    assert desk.spent_held() == (25, held)


@pytest.mark.parametrize("ending", ["open", "released", "expired"])
def test_a_hold_that_the_ledger_has_seen_is_settled_on_its_own(ending: str) -> None:
    """Its money was never part of the hold that the charge names."""
    desk = Desk(limit(200))
    desk.granted("slice", 80, expires_after=DAY)
    desk.granted("a", 60, floor=10)
    if ending == "released":
        desk.release("a")
    elif ending == "expired":
        desk.wait(TTL)
        desk.sweep()
    desk.settle("a", 25, parent="slice")
    assert desk.spent_held() == (25, 80)
