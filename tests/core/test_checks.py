"""The range of every amount and time: a value outside of it is refused by name, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.checks import check
from litellm_budget_plugin.core.commands import (
    Command,
    Done,
    DropBudget,
    Granted,
    PutBudget,
    Read,
    Release,
    Renew,
    Reserve,
    Reset,
    Settle,
    Sweep,
)
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.errors import BudgetInputError
from tests.core.desk import ALICE, PROJECT, TTL, Desk, limit, snapshot

RESERVE = Reserve("h", PROJECT, (ALICE,), ("m",), Amounts(9), TTL)
SETTLE = Settle("h", PROJECT, (ALICE,), ("m",), 5, "m")
PUT = PutBudget("c", PROJECT, ALICE, window="none")
HUGE = MAX_NANOS + 1


@pytest.mark.parametrize(
    ("command", "field", "bad"),
    [
        (RESERVE, "want", Amounts(-5)),
        (RESERVE, "want", Amounts(0, -1)),
        (RESERVE, "want", Amounts(HUGE)),
        (RESERVE, "floor", Amounts(0, 0, -1)),
        (RESERVE, "floor", Amounts(HUGE)),
        (RESERVE, "at_least", -1),
        (RESERVE, "at_least", 10),
        (RESERVE, "expires_after", 0),
        (RESERVE, "expires_after", -1),
        (RESERVE, "expires_after", DAY + 1),
        (RESERVE, "replaces", "h"),
        (RESERVE, "defaults", (limit(-1),)),
        (RESERVE, "defaults", (limit(HUGE),)),
        (RESERVE, "defaults", (limit(5), limit(6))),
        (RESERVE, "defaults", (limit(5, "90s", carry_over=-1),)),
        (SETTLE, "cost", -5),
        (SETTLE, "cost", HUGE),
        (SETTLE, "calls", -1),
        (SETTLE, "input_tokens", -1),
        (SETTLE, "output_tokens", -1),
        (SETTLE, "defaults", (limit(-1),)),
        (PUT, "limit", -1),
        (PUT, "limit", HUGE),
        (PUT, "raised_by", -1),
        (PUT, "carry_over", -1),
        (PUT, "unit", "euros"),
        (PUT, "spent", (("m", -1),)),
        (PUT, "spent", (("m", 5), ("n", -5))),
        (PUT, "spent", (("m", MAX_NANOS), ("n", 1))),
        (PUT, "spent", (("m", 1), ("m", 1))),
        (PUT, "bounds", (5, 5)),
        (PUT, "bounds", (5, 4)),
        (Renew(("h",), PROJECT, TTL), "expires_after", 0),
        (Renew(("h",), PROJECT, TTL), "expires_after", DAY + 1),
        (Read(PROJECT, "user"), "page", 0),
        (Sweep(PROJECT, 0, 0), "marks_kept", -1),
        (Sweep(PROJECT, 0, 0), "days_kept", -1),
    ],
)
def test_what_is_out_of_range_is_named_and_changes_nothing(command: Command, field: str, bad: Any) -> None:
    desk = Desk()
    before = snapshot(desk.book)
    with pytest.raises(BudgetInputError, match="default" if field == "defaults" else field):
        desk.ask(replace(command, **{field: bad}))
    assert snapshot(desk.book) == before


@pytest.mark.parametrize(
    "command",
    [
        replace(RESERVE, want=Amounts(MAX_NANOS, MAX_NANOS, MAX_NANOS), at_least=MAX_NANOS, expires_after=DAY),
        replace(RESERVE, want=Amounts(), at_least=0, expires_after=1, defaults=(limit(0), limit(MAX_NANOS, "day"))),
        replace(RESERVE, defaults=(Default("user"), Default("team"), Default("user", unit="calls"))),
        replace(SETTLE, cost=MAX_NANOS, calls=0),
        replace(PUT, limit=MAX_NANOS, spent=(("m", MAX_NANOS),), bounds=(0, 1)),
        Sweep(PROJECT, 0, 0),
    ],
    ids=lambda command: type(command).__name__,
)
def test_the_ends_of_every_range_are_accepted(command: Command) -> None:
    assert Desk().ask(command) is not None


def test_a_limit_and_what_is_added_to_it_stay_below_the_largest_amount() -> None:
    desk = Desk()
    desk.put("put", limit=MAX_NANOS, raised_by=MAX_NANOS, raised_until=desk.now + DAY)
    assert desk.states()[0].limit == MAX_NANOS
    assert isinstance(desk.reserve("a", MAX_NANOS), Granted)
    assert desk.refused("b", 1).limit == MAX_NANOS


@pytest.mark.parametrize("hold", ["", "command:c1", "alias:resp-1"])
@pytest.mark.parametrize(
    "command",
    [
        lambda hold: Reserve(hold, "app", (ALICE,), (), Amounts(1), SECOND),
        lambda hold: Reserve("h", "app", (ALICE,), (), Amounts(1), SECOND, replaces=hold),
        lambda hold: Settle(hold, "app", (ALICE,), (), 1, "m"),
        lambda hold: Settle("h", "app", (ALICE,), (), 1, "m", parent=hold),
        lambda hold: Release(hold, "app"),
        lambda hold: Renew(("h", hold), "app", SECOND),
    ],
)
def test_a_hold_cannot_take_the_place_of_a_mark(command: Callable[[str], Command], hold: str) -> None:
    """A hold with the name of a command's mark would turn that command into a no-op."""
    with pytest.raises(BudgetInputError, match="must not be empty, nor begin with 'command:' or 'alias:'"):
        check(command(hold))


@pytest.mark.parametrize(
    "other",
    [
        PutBudget("c", "app", ALICE, limit=2),
        PutBudget("c", "app", Subject("user", "bob"), limit=1),
        PutBudget("c", "app", ALICE, limit=1, blocked=True),
        DropBudget("c", "app", ALICE),
        Reset("c", "app", ALICE),
    ],
)
def test_an_id_that_another_change_has_used_is_an_error(other: Command) -> None:
    book = DictRowStore()
    first = PutBudget("c", "app", ALICE, limit=1)
    for time in (1, 2):
        assert apply(book, replace(first, now=time), time) == Done("c")
    with pytest.raises(BudgetInputError, match="the id 'c' was used for another change"):
        apply(book, other, 3)
    assert [account.limit for account in book.accounts("app", ALICE)] == [1]
