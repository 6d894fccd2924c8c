"""Holds inside a hold: a slice of a budget that was debited beforehand, and the calls that draw on it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Amounts, Usage
from litellm_budget_plugin.core.commands import Closed, Granted
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError
from tests.core.desk import ALICE, BLUE, BOB, TTL, Desk, limit, ref
from tests.core.test_invariants import assert_sound


def sliced(*, slice_of: int = 80, expires_after: int = DAY) -> Desk:
    """Alice has 100, of which 80 are held by a slice."""
    desk = Desk(limit(100))
    desk.granted("slice", slice_of, expires_after=expires_after)
    return desk


def assert_parent_covers_its_children(desk: Desk, parent: str = "slice") -> None:
    lent = Amounts()
    for hold in desk.book.open_holds("app"):
        if hold.parent == parent:
            lent = lent.plus(hold.amounts)
    found = desk.hold(parent)
    assert found.lent == lent
    assert min(found.amounts.minus(lent)) >= 0


def test_a_child_takes_its_money_from_its_parent_and_nothing_from_the_account() -> None:
    desk = sliced()
    assert desk.granted("a", 60, parent="slice") == Granted("a", Amounts(60))
    assert desk.spent_held() == (0, 80)
    assert desk.hold("slice").lent == Amounts(60)
    refusal = desk.refused("b", 21, parent="slice")
    assert (refusal.reason, refusal.limit, refusal.requested) == ("parent", 20, 21)
    desk.granted("c", 20, parent="slice")
    assert_parent_covers_its_children(desk)


def test_a_child_is_granted_in_part_what_the_parent_has() -> None:
    desk = sliced()
    assert desk.granted("a", 500, at_least=80, parent="slice").amounts == Amounts(80)


@pytest.mark.parametrize(("cost", "spent", "held"), [(25, 25, 55), (0, 0, 80), (70, 70, 10), (95, 95, 0)])
def test_a_child_settles_out_of_its_parent(cost: int, spent: int, held: int) -> None:
    desk = sliced()
    desk.granted("a", 60, parent="slice")
    desk.settle("a", cost, parent="slice")
    assert desk.spent_held() == (spent, held)
    assert desk.hold("slice").amounts == Amounts(held)
    assert_parent_covers_its_children(desk)


def test_a_charge_beyond_its_hold_does_not_take_what_is_lent_to_others() -> None:
    desk = sliced()
    desk.granted("a", 30, parent="slice")
    desk.granted("b", 40, parent="slice")
    desk.settle("a", 70, parent="slice")
    assert desk.spent_held() == (70, 40)
    assert_parent_covers_its_children(desk)
    desk.settle("b", 40, parent="slice")
    assert desk.spent_held() == (110, 0)


def test_a_settlement_alone_draws_on_the_parent_it_names() -> None:
    desk = sliced()
    desk.settle("never reserved", 30, parent="slice")
    assert desk.spent_held() == (30, 50)
    assert desk.reserve("never reserved", 30, parent="slice") == Closed("never reserved")


def test_a_child_that_does_not_name_its_parent_when_it_settles_draws_on_it_all_the_same() -> None:
    desk = sliced()
    desk.granted("a", 30, parent="slice")
    desk.settle("a", 30)
    assert desk.spent_held() == (30, 50)


def test_a_released_child_gives_its_money_back_to_its_parent() -> None:
    desk = sliced()
    desk.granted("a", 80, parent="slice")
    desk.release("a")
    assert desk.spent_held() == (0, 80)
    desk.granted("b", 80, parent="slice")


def test_an_expired_child_draws_its_floor_from_its_parent() -> None:
    desk = sliced()
    desk.granted("a", 60, floor=10, parent="slice")
    desk.wait(TTL)
    desk.sweep()
    assert desk.spent_held() == (10, 70)
    assert_parent_covers_its_children(desk)
    desk.settle("a", 25, parent="slice")
    assert desk.spent_held()[0] == 25
    assert desk.totals() == Usage(25, 1)


def test_a_closing_parent_leaves_its_children_covered() -> None:
    desk = sliced()
    desk.granted("a", 30, parent="slice")
    desk.granted("b", 20, parent="slice")
    desk.release("slice")
    assert desk.spent_held() == (0, 50)
    assert desk.refused("c", 51).reason == "held"
    desk.settle("a", 25, parent="slice")
    desk.release("b")
    assert desk.spent_held() == (25, 0)


def test_a_parent_that_expires_with_its_children_frees_everything() -> None:
    desk = sliced(expires_after=TTL)
    desk.granted("a", 30, parent="slice", floor=5)
    desk.wait(TTL)
    assert desk.sweep().expired == 2
    assert desk.spent_held() == (5, 0)


def test_a_parent_renewed_outlives_its_children() -> None:
    desk = sliced(expires_after=TTL)
    desk.granted("a", 30, parent="slice", floor=5)
    desk.wait(TTL - 1)
    desk.renew("slice")
    desk.wait(1)
    assert desk.sweep().expired == 1
    assert desk.spent_held() == (5, 75)


@pytest.mark.parametrize("state", ["unknown", "released", "settled", "expired"])
def test_a_parent_that_is_gone_refuses(state: str) -> None:
    desk = Desk(limit(100))
    if state != "unknown":
        desk.granted("slice", 80)
    if state == "released":
        desk.release("slice")
    elif state == "settled":
        desk.settle("slice", 0)
    elif state == "expired":
        desk.wait(TTL)
    assert desk.refused("a", 1, parent="slice").reason == "parent"
    assert sum(state.spent + state.held for state in desk.states()) == 0


def test_a_refusal_by_a_parent_is_not_for_good() -> None:
    desk = sliced()
    desk.refused("a", 90, parent="slice")
    desk.granted("a", 20)
    assert desk.totals().refusals == 0


def test_a_parent_covers_only_its_own_accounts() -> None:
    desk = Desk(limit(100), limit(100, scope="team"))
    desk.granted("slice", 80, expires_after=DAY)
    refusal = desk.refused("a", 10, parent="slice", subjects=(ALICE, BLUE))
    assert (refusal.reason, refusal.account) == ("parent", ref(subject=BLUE))
    assert desk.refused("b", 10, parent="slice", subjects=(BOB,)).reason == "parent"


def test_a_blocked_account_refuses_what_its_slice_would_cover() -> None:
    desk = sliced()
    desk.put("block", blocked=True)
    assert desk.refused("a", 10, parent="slice").reason == "blocked"


def test_a_swap_inside_a_parent_counts_what_it_frees() -> None:
    desk = sliced()
    desk.granted("call/1", 60, parent="slice")
    desk.granted("call/2", 80, parent="slice", replaces="call/1")
    assert desk.hold("call/1").state == "released"
    assert desk.spent_held() == (0, 80)
    assert_parent_covers_its_children(desk)


def test_a_swap_out_of_a_parent_frees_nothing_on_the_account() -> None:
    desk = sliced()
    desk.granted("call/1", 60, parent="slice")
    desk.refused("call/2", 21, replaces="call/1")
    desk.granted("call/3", 20, replaces="call/1")
    assert desk.spent_held() == (0, 100)
    assert_parent_covers_its_children(desk)


def test_a_slice_swapped_for_another_keeps_its_children_covered() -> None:
    desk = sliced()
    desk.granted("a", 30, parent="slice")
    desk.refused("too large", 71, replaces="slice")
    desk.granted("slice 2", 70, replaces="slice")
    assert desk.spent_held() == (0, 100)
    desk.release("a")
    assert desk.spent_held() == (0, 70)


def test_a_hold_cannot_take_the_place_of_its_own_parent() -> None:
    desk = sliced()
    with pytest.raises(BudgetInputError, match=r"Reserve\.replaces"):
        desk.reserve("a", 30, parent="slice", replaces="slice")
    assert desk.spent_held() == (0, 80)
    assert desk.hold("slice").state == "open"


def test_a_child_lends_nothing_itself() -> None:
    desk = sliced()
    desk.granted("child", 60, parent="slice", expires_after=DAY)
    assert desk.refused("grandchild", 10, parent="child").reason == "parent"
    desk.settle("other", 10, parent="child")
    assert desk.spent_held() == (10, 80)
    assert_parent_covers_its_children(desk)


def test_a_child_without_accounts_of_its_own_borrows_no_more_than_there_is() -> None:
    desk = Desk(limit(100, model="gpt-4o"))
    desk.granted("slice", 80, expires_after=DAY)
    desk.reserve("a", 500, parent="slice", models=("claude",))
    assert_parent_covers_its_children(desk)
    desk.settle("b", 10, parent="slice")
    assert desk.spent_held(model="gpt-4o")[1] <= 80


def test_units_that_the_child_does_not_count_are_not_overdrawn() -> None:
    desk = Desk(limit(100), limit(10, unit="calls"), limit(100, scope="team"))
    desk.granted("slice", 50, 2, subjects=(ALICE, BLUE), expires_after=DAY)
    for hold in ("a", "b", "c"):
        desk.reserve(hold, 5, 1, subjects=(BLUE,), parent="slice")
    assert_parent_covers_its_children(desk)
    desk.settle("d", 1, parent="slice")
    calls = desk.account(unit="calls")
    assert calls.spent + calls.held <= 3


STEPS = st.tuples(
    st.sampled_from(["slice", "reserve", "reserve", "reserve", "settle", "release", "renew", "sweep"]),
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(["s", "s", "t", None]),
    st.sampled_from([None, None, "a", "b", "s"]),
    st.tuples(st.integers(0, 60), st.integers(0, 2), st.integers(0, 20)),
    st.sampled_from([(ALICE,), (ALICE, BLUE), (BLUE,)]),
    st.sampled_from([0, 0, 1, TTL // 2, TTL]),
)


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=25), st.booleans())
def test_slices_and_their_children_stay_sound_whatever_happens(steps: list[Any], tokens_are_counted: bool) -> None:
    counted = (limit(90, unit="tokens"),) if tokens_are_counted else ()
    desk = Desk(limit(200), limit(100, model="claude"), limit(300, scope="team"), *counted)
    for number, (kind, hold, parent, replaces, want, subjects, wait) in enumerate(steps):
        desk.wait(wait)
        name = f"{hold}{number // 8}"
        fields = {"subjects": subjects, "models": ("claude",) if hold == "d" else ("gpt-4o",), "parent": parent}
        if kind == "slice":
            desk.reserve(parent or "s", want[0] * 3, *want[1:], subjects=(ALICE, BLUE), floor=want[0] // 2)
        elif kind == "reserve":
            replaced = f"{replaces}{number // 8}" if replaces in ("a", "b") else replaces
            if replaced not in (name, parent) or replaced is None:
                desk.reserve(name, *want, floor=want[0] // 3, replaces=replaced, **fields)
        elif kind == "settle":
            desk.settle(name, want[0], calls=want[1], input_tokens=want[2], **fields)
        elif kind == "release":
            desk.release(hold if hold == "s" else name)
        elif kind == "renew":
            desk.renew("s", name)
        else:
            desk.sweep()
        assert_sound(desk.book)
    desk.wait(DAY)
    desk.sweep()
    assert [state.held for subject in (ALICE, BLUE) for state in desk.states(subject) if state.held] == []
