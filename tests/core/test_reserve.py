"""Reserve: grants, refusals and their reasons, and the traces of a refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from litellm_budget_plugin.core.accounts import Amounts
from litellm_budget_plugin.core.commands import HEADROOM, Closed, CountExactly, Granted, Refused, RollDue, RollNeeded
from litellm_budget_plugin.core.windows import DAY, SECOND
from tests.core.desk import ALICE, BLUE, BOB, NOON, TTL, Desk, limit, ref, snapshot


def test_a_hold_takes_its_money_from_the_room() -> None:
    desk = Desk(limit(100))
    assert desk.granted("a", 60) == Granted("a", Amounts(60))
    assert desk.spent_held() == (0, 60)
    desk.granted("b", 40)
    assert desk.refused("c", 1) == Refused("c", ref(), "held", 100, 0, 100, 1, None)


def test_every_account_must_have_room_or_none_is_held_on() -> None:
    desk = Desk(limit(100), limit(50, scope="team"))
    desk.granted("a", 40, subjects=(ALICE, BLUE))
    assert desk.refused("b", 20, subjects=(ALICE, BLUE)).account == ref(subject=BLUE)
    assert desk.spent_held() == (0, 40)
    assert desk.spent_held(subject=BLUE) == (0, 40)


def test_a_subject_named_twice_counts_once() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60, subjects=(ALICE, ALICE), floor=10)
    assert desk.spent_held() == (0, 60)
    desk.wait(TTL)
    desk.settle("a", 30, subjects=(ALICE, ALICE))
    assert desk.spent_held() == (30, 0)
    assert desk.totals().spent == 30


def test_a_subject_named_twice_gets_a_floor_back_once() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 60, subjects=(ALICE, ALICE), floor=10)
    desk.wait(TTL)
    desk.sweep()
    assert (desk.totals().spent, desk.totals().unsettled) == (10, 1)
    desk.release("a")
    assert (desk.totals().spent, desk.totals().unsettled) == (0, 0)


def test_a_limit_of_zero_refuses_what_costs_and_never_what_does_not() -> None:
    desk = Desk(limit(0))
    desk.granted("free", 0)
    assert desk.refused("paid", 1).reason == "spent"
    assert desk.refused("some", 5, at_least=0).reason == "spent"
    assert desk.spent_held() == (0, 0)


def test_want_zero_is_granted_on_an_overspent_account() -> None:
    desk = Desk(limit(10))
    desk.charge(500)
    assert desk.granted("free", 0).amounts == Amounts()


def test_want_zero_is_granted_on_a_blocked_account() -> None:
    desk = Desk(limit(10))
    desk.put("block", blocked=True)
    desk.granted("free", 0)


def test_an_account_without_a_limit_is_tracked_and_never_refuses() -> None:
    desk = Desk(limit(None))
    desk.granted("a", 2**50)
    assert desk.spent_held() == (0, 2**50)


def test_without_an_account_everything_is_granted() -> None:
    desk = Desk()
    desk.granted("a", 2**50)
    assert desk.states() == ()


@pytest.mark.parametrize(("unit", "want"), [("calls", Amounts(5, 1, 9)), ("tokens", Amounts(5, 9, 1))])
def test_calls_and_tokens_are_limited_in_their_own_unit(unit: str, want: Amounts) -> None:
    desk = Desk(limit(2, unit=unit))
    for hold in ("a", "b"):
        desk.granted(hold, *want)
    assert desk.account(unit=unit).held == 2
    assert desk.refused("c", *want) == Refused("c", ref(unit=unit), "held", 2, 0, 2, 1, None)
    desk.settle("a", 5, calls=1, input_tokens=1, output_tokens=0)
    assert desk.spent_held(unit=unit) == (1, 1)
    desk.granted("money only", 5)


def test_calls_and_tokens_are_granted_whole_even_where_money_may_be_granted_in_part() -> None:
    desk = Desk(limit(100), limit(10, unit="tokens"))
    assert desk.granted("a", 500, 0, 4, at_least=1).amounts == Amounts(100, 0, 4)
    assert desk.refused("b", 0, 0, 7, at_least=0).account == ref(unit="tokens")


def test_a_budget_for_a_family_counts_every_model_of_it_and_no_other() -> None:
    desk = Desk(limit(100, model="gpt-4o*"))
    desk.granted("a", 60, models=("gpt-4o", "gpt-4o*"))
    desk.granted("b", 40, models=("gpt-4o-mini", "gpt-4o*"))
    assert desk.refused("c", 1, models=("gpt-4o", "gpt-4o*")).account == ref(model="gpt-4o*")
    desk.granted("d", 1_000, models=("claude",))
    assert desk.refused("e", 1, models=("gpt-4o",)).account == ref(model="gpt-4o*")


def test_a_partial_grant_is_the_room_if_that_is_enough() -> None:
    desk = Desk(limit(100), limit(70, "day"))
    assert desk.granted("a", 200, at_least=70).amounts == Amounts(70)
    assert (desk.account().held, desk.account("day").held) == (70, 70)


def test_a_partial_grant_is_refused_below_the_least_that_helps() -> None:
    desk = Desk(limit(100))
    assert desk.refused("a", 200, at_least=101) == Refused("a", ref(), "spent", 100, 0, 0, 101, None)
    assert desk.granted("b", 200, at_least=100).amounts == Amounts(100)


def test_a_partial_grant_never_exceeds_what_is_wanted() -> None:
    assert Desk(limit(100)).granted("a", 30, at_least=10).amounts == Amounts(30)


def test_the_floor_never_exceeds_what_was_granted() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 500, at_least=1, floor=400)
    desk.wait(TTL)
    desk.sweep()
    assert desk.spent_held() == (100, 0)


def test_a_loose_bound_is_granted_only_where_plenty_remains() -> None:
    desk = Desk(limit(HEADROOM * 10))
    desk.granted("a", 10, cheap=True)
    before = snapshot(desk.book)
    assert desk.reserve("b", 10, cheap=True) == CountExactly("b")
    assert snapshot(desk.book) == before
    desk.granted("b", 10)


def test_plenty_is_sixty_four_times_the_loose_bound() -> None:
    assert HEADROOM == 64
    assert Desk(limit(639)).reserve("a", 10, cheap=True) == CountExactly("a")
    assert Desk(limit(640)).reserve("a", 10, cheap=True) == Granted("a", Amounts(10))


def test_a_loose_bound_is_plenty_only_if_every_account_says_so() -> None:
    desk = Desk(limit(10**6), limit(639, "day"))
    assert desk.reserve("a", 10, cheap=True) == CountExactly("a")


def test_a_loose_bound_never_refuses() -> None:
    desk = Desk(limit(5))
    desk.charge(5)
    before = snapshot(desk.book)
    assert desk.reserve("a", 10, cheap=True) == CountExactly("a")
    assert snapshot(desk.book) == before


def test_a_loose_bound_of_nothing_and_one_without_limits_is_granted() -> None:
    assert isinstance(Desk(limit(0)).reserve("a", 0, cheap=True), Granted)
    assert isinstance(Desk(limit(None)).reserve("a", 10, cheap=True), Granted)


def test_a_refusal_is_repeated_as_it_was_although_room_came_back() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 100)
    refusal = desk.refused("b", 50)
    desk.release("a")
    assert desk.reserve("b", 50) == refusal
    desk.granted("c", 50)


def test_a_refusal_is_counted_once_in_the_totals() -> None:
    desk = Desk(limit(0))
    for _ in range(3):
        desk.refused("a", 1, subjects=(ALICE, BLUE))
    assert desk.totals().refusals == desk.totals(BLUE).refusals == 1


def test_a_patient_caller_may_ask_again_when_only_held_money_stood_in_the_way() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 100)
    before = snapshot(desk.book)
    assert desk.refused("b", 50, patient=True).reason == "held"
    assert snapshot(desk.book) == before
    desk.release("a")
    desk.granted("b", 50, patient=True)


def test_a_patient_caller_is_refused_for_good_when_the_money_is_spent() -> None:
    desk = Desk(limit(100))
    desk.charge(100)
    refusal = desk.refused("b", 50, patient=True)
    desk.reset("again")
    assert desk.reserve("b", 50, patient=True) == refusal


def test_a_refusal_names_the_account_that_waiting_cannot_help() -> None:
    desk = Desk(limit(100), limit(100, scope="team"))
    desk.granted("a", 100, subjects=(BLUE,))
    desk.charge(100)
    refusal = desk.refused("b", 10, subjects=(ALICE, BLUE))
    assert (refusal.account, refusal.reason) == (ref(), "spent")


def test_a_refusal_names_a_blocked_account_before_all() -> None:
    desk = Desk(limit(100), limit(100, scope="team"))
    desk.charge(100)
    desk.put("block", subject=BLUE, blocked=True)
    refusal = desk.refused("b", 10, subjects=(ALICE, BLUE))
    assert (refusal.account, refusal.reason) == (ref(subject=BLUE), "blocked")


def test_a_blocked_account_without_a_limit_refuses() -> None:
    desk = Desk()
    desk.put("block", blocked=True)
    assert desk.refused("a", 1) == Refused("a", ref(), "blocked", 0, 0, 0, 1, None)
    desk.put("unblock", blocked=False)
    desk.granted("b", 1)


def test_a_refusal_says_when_the_window_ends() -> None:
    desk = Desk(limit(10, "day"))
    assert desk.refused("a", 11).resets_at == 20_001 * DAY
    desk = Desk(limit(10, "90s"))
    assert desk.refused("a", 11).resets_at == NOON + 90 * SECOND


def test_a_refusal_first_expires_every_hold_that_is_due() -> None:
    desk = Desk(limit(100))
    for number in range(10):
        desk.granted(f"dead {number}", 10, floor=1)
    desk.wait(TTL)
    desk.granted("a", 90)
    assert desk.spent_held() == (10, 90)


def test_a_refusal_after_expiry_keeps_what_expired() -> None:
    desk = Desk(limit(100))
    for number in range(10):
        desk.granted(f"dead {number}", 10, floor=9)
    desk.wait(TTL)
    refusal = desk.refused("a", 11)
    assert (refusal.reason, refusal.spent, refusal.held) == ("spent", 90, 0)
    assert desk.spent_held() == (90, 0)
    assert desk.totals().unsettled == 10


def test_a_due_hold_of_another_subject_does_not_help_nor_hurt() -> None:
    desk = Desk(limit(100))
    desk.granted("dead", 100, floor=30, subjects=(BOB,))
    desk.wait(TTL)
    desk.refused("a", 101)
    assert desk.spent_held() == (0, 0)
    assert desk.spent_held(subject=BOB) == (30, 0)


def test_the_next_attempt_takes_the_place_of_the_last_in_one_step() -> None:
    desk = Desk(limit(100))
    desk.granted("call/1", 100)
    desk.granted("call/2", 90, replaces="call/1")
    assert desk.spent_held() == (0, 90)
    assert desk.reserve("call/1", 1) == Closed("call/1")


def test_a_refused_swap_leaves_the_old_hold_as_it_was() -> None:
    desk = Desk(limit(100))
    desk.granted("call/1", 60)
    refusal = desk.refused("call/2", 101, replaces="call/1")
    assert (refusal.reason, refusal.held) == ("spent", 0)
    assert desk.hold("call/1").state == "open"
    assert desk.spent_held() == (0, 60)


def test_a_swap_of_an_unknown_hold_refuses_it_when_it_comes_late() -> None:
    desk = Desk(limit(100))
    desk.granted("call/2", 60, replaces="call/1")
    assert desk.reserve("call/1", 30) == Closed("call/1")
    assert desk.spent_held() == (0, 60)


def test_a_swap_of_a_settled_hold_changes_nothing_of_its_charge() -> None:
    desk = Desk(limit(100))
    desk.granted("call/1", 60)
    desk.settle("call/1", 40)
    desk.granted("call/2", 60, replaces="call/1")
    assert desk.spent_held() == (40, 60)
    desk.settle("call/1", 40)
    assert desk.spent_held() == (40, 60)


def test_a_swap_frees_nothing_where_the_old_hold_holds_nothing() -> None:
    desk = Desk(limit(100), limit(100, scope="team"))
    desk.granted("call/1", 60)
    desk.granted("other", 60, subjects=(BLUE,))
    assert desk.refused("call/2", 60, subjects=(ALICE, BLUE), replaces="call/1").account == ref(subject=BLUE)


def test_a_new_window_is_asked_for_and_nothing_is_written() -> None:
    desk = Desk(limit(100, "day"), limit(100, "12h"), limit(100))
    command = desk.reserve_command("a", 10)
    before = snapshot(desk.book)
    due = (RollDue(ref("12h"), None, None), RollDue(ref("day"), None, None))
    assert desk.execute(command) == RollNeeded(NOON, due)
    assert snapshot(desk.book) == before
    desk.ask(command)
    assert [state.held for state in desk.states()] == [10, 10, 10]


def test_an_ended_window_is_asked_for_although_holds_were_due() -> None:
    desk = Desk(limit(100, "90s"))
    desk.granted("a", 10, floor=5)
    desk.wait(TTL)
    before = snapshot(desk.book)
    due = (RollDue(ref("90s"), NOON, NOON + 90 * SECOND),)
    assert desk.execute(desk.reserve_command("b", 10)) == RollNeeded(NOON + TTL, due)
    assert snapshot(desk.book) == before


def test_a_hold_that_was_settled_released_or_expired_is_closed() -> None:
    desk = Desk(limit(100))
    for hold in ("settled", "released", "expired"):
        desk.granted(hold, 10)
    desk.settle("settled", 1)
    desk.release("released")
    desk.wait(TTL)
    desk.sweep()
    for hold in ("settled", "released", "expired"):
        assert desk.reserve(hold, 10) == Closed(hold)
    assert desk.spent_held() == (1, 0)


def test_projects_do_not_meet() -> None:
    desk = Desk(limit(100))
    desk.granted("a", 100)
    assert isinstance(desk.ask(replace(desk.reserve_command("a", 70), project="other")), Granted)
    assert desk.spent_held() == (0, 100)
