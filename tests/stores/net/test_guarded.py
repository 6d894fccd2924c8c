"""The rules run on rows that may be old, and every reply is the one that they give on the current rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import (
    Command,
    CountExactly,
    DropBudget,
    Granted,
    PutBudget,
    Read,
    Refused,
    Release,
    Renew,
    Reply,
    Reserve,
    RollNeeded,
    Settle,
    Settled,
)
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.net.engine import Add
from litellm_budget_plugin.stores.net.guarded import GuardedStore
from litellm_budget_plugin.stores.protocol import ask_all
from tests.commands import START, command_lists, drive, ordinary_calls, questions
from tests.generated import examples
from tests.stores.net.dict_engine import DictEngine

PHASES = [phase for phase in Phase if phase is not Phase.explain]
ALICE, APP = Subject("user", "alice"), Subject("project", "app")
DEFAULTS = (Default("user", "none", 1000), Default("project", "none", 10_000))


def stores(count: int) -> tuple[DictEngine, list[GuardedStore]]:
    """Stores of several processes over one engine."""
    engine = DictEngine()
    return engine, [GuardedStore(engine, test_clock=True) for _ in range(count)]


@examples(400, phases=PHASES)
@given(commands=command_lists(min_size=4, max_size=60) | ordinary_calls(), seed=st.integers(0, 2**16))
def test_every_reply_of_every_process_is_the_ledgers(commands: list[Command], seed: int) -> None:
    """Three processes, each with rows that the others have changed meanwhile."""
    book, chance = DictRowStore(), random.Random(seed)
    _, processes = stores(3)

    def both(command: Command) -> Reply:
        assert command.now is not None
        try:
            expected = apply(book, command, command.now)
        except BudgetInputError:
            with pytest.raises(BudgetInputError):
                chance.choice(processes).execute(command)
            raise
        assert chance.choice(processes).execute(command) == expected
        return expected

    for command in commands:
        with suppress(BudgetInputError):
            drive(both, command)
    assert commands[-1].now is not None
    for question in questions(commands[-1].now):
        drive(both, question)


def reserve(hold: str, want: int = 10, **more: object) -> Reserve:
    """A hold of alice's, in a project with its own limit."""
    plain = Reserve(hold, "app", (ALICE, APP), ("gpt-4o",), Amounts(want), 10**8, defaults=DEFAULTS, now=START)
    return replace(plain, **more)  # type: ignore[arg-type]


def settle(hold: str, cost: int = 10, **more: object) -> Settle:
    """The end of such a hold."""
    plain = Settle(hold, "app", (ALICE, APP), ("gpt-4o",), cost, "gpt-4o", defaults=DEFAULTS, now=START)
    return replace(plain, **more)  # type: ignore[arg-type]


def test_a_call_takes_one_round_trip_each_way() -> None:
    engine, [store] = stores(1)
    store.execute(reserve("first"))
    store.execute(settle("first"))
    before = engine.viewed, engine.transacted
    for number in range(20):
        assert store.execute(reserve(f"h{number}")) == Granted(f"h{number}", Amounts(10))
        if number % 2:
            assert store.execute(settle(f"h{number}", aliases=(f"r{number}",))) == Settled(f"h{number}")
        else:
            store.execute(Release(f"h{number}", "app", now=START))
    assert (engine.viewed, engine.transacted) == before


def test_a_refusal_and_a_count_lock_nobody_out() -> None:
    """An exhausted user who asks repeatedly must not delay the others of the project."""
    engine, [store] = stores(1)
    store.execute(settle("spent", 995))
    store.execute(settle("spent too", 0))
    before = engine.transacted
    for number in range(20):
        assert isinstance(store.execute(reserve(f"h{number}")), Refused)
        assert isinstance(store.execute(reserve(f"c{number}", cheap=True)), CountExactly)
        assert store.execute(reserve(f"h{number}", at_least=1)) is not None
    granted = store.execute(reserve("rest", at_least=1))
    assert granted == Granted("rest", Amounts(5))
    # A repeated refused hold is answered from its mark.
    assert engine.transacted - before == 20


def test_old_rows_never_let_a_limit_be_passed() -> None:
    """Each of two processes sees all of the room as free."""
    _, [one, other] = stores(2)
    for store in (one, other):
        store.execute(settle(f"warm {id(store)}", 0))
    granted = [
        store.execute(reserve(f"h{number}-{place}", 100))
        for number in range(10)
        for place, store in enumerate((one, other))
    ]
    assert sum(isinstance(reply, Granted) for reply in granted) == 10


def test_a_limit_that_another_process_lowers_counts_at_once() -> None:
    _, [one, other] = stores(2)
    one.execute(reserve("h"))
    other.execute(PutBudget("c", "app", ALICE, limit=15, now=START))
    reply = one.execute(reserve("i"))
    assert isinstance(reply, Refused) and reply.limit == 15


@examples(50, phases=PHASES)
@given(commands=ordinary_calls(min_size=40, max_size=60))
def test_ordinary_calls_are_one_round_trip_each(commands: list[Command]) -> None:
    engine, [store] = stores(1)
    granted = set()
    for command in commands:
        if isinstance(command, (Settle, Release)) and command.hold not in granted:
            continue
        reply = drive(store.execute, command)
        if isinstance(reply, Granted):
            granted.add(reply.hold)
    changes = sum(isinstance(command, PutBudget) for command in commands)
    # Transactions make accounts and change budgets.
    assert engine.transacted <= 10 + 4 * changes


@examples(200, phases=PHASES)
@given(commands=command_lists(min_size=4, max_size=60) | ordinary_calls(), seed=st.integers(0, 2**16))
def test_commands_that_come_together_are_answered_one_after_the_other(commands: list[Command], seed: int) -> None:
    book, chance = DictRowStore(), random.Random(seed)
    _, processes = stores(2)
    place = 0
    while place < len(commands):
        some = commands[place : place + chance.randrange(1, 12)]
        expected: list[object] = []
        for command in some:
            try:
                expected.append(apply(book, command, command.now or 0))
            except BudgetInputError as error:
                expected.append(str(error))
        outcomes = chance.choice(processes).execute_all(some)
        assert [str(one) if isinstance(one, BudgetInputError) else one for one in outcomes] == expected
        place += len(some)


def test_a_refusal_that_is_not_recorded_opens_an_account_as_any_other_does() -> None:
    """The first call of a user who will ask again once other calls have returned the project's money."""
    (_, [store]), book = stores(1), DictRowStore()
    bob = Subject("user", "bob")
    for command in (
        settle("warm", 0),
        PutBudget("c", "app", APP, limit=10, now=START),
        reserve("h"),
        reserve("i", subjects=(bob, APP), patient=True),
        Read("app", *bob, now=START),
    ):
        assert store.execute(command) == apply(book, command, START)


def test_a_hold_that_a_budget_has_taken_over() -> None:
    """Another process gives alice another window, which takes over her open holds. This process knows the account, but not the change."""
    engine, [one, other] = stores(2)
    one.execute(settle("warm", 0))
    one.execute(reserve("old", 100))
    windowed = PutBudget("c", "app", ALICE, window="7d", limit=500, only=True, now=START)
    drive(other.execute, windowed)
    one.execute(reserve("new"))
    assert one.execute(settle("old", 1)) == Settled("old")
    [account] = engine.book.accounts("app", ALICE)
    assert (account.spent, account.held) == (1, 10)


def test_many_settlements_take_one_round_trip() -> None:
    engine, [store] = stores(1)
    store.execute(reserve("warm"))
    for number in range(50):
        store.execute(reserve(f"h{number}", 1))
    before = engine.viewed, engine.transacted
    outcomes = ask_all(store, [settle(f"h{number}", 1) for number in range(50)])
    assert outcomes == [Settled(f"h{number}") for number in range(50)]
    assert (engine.viewed, engine.transacted) == before


def test_charges_that_slices_pay_take_one_round_trip() -> None:
    engine, [store] = stores(1)
    store.execute(settle("warm", 0))
    store.execute(reserve("slice", 100))
    store.execute(Renew(("slice",), "app", 10**9, now=START))
    before = engine.viewed, engine.transacted, engine.refused
    outcomes = store.execute_all([settle(f"h{number}", 2, parent="slice") for number in range(64)])
    assert outcomes == [Settled(f"h{number}") for number in range(64)]
    assert (engine.viewed, engine.transacted, engine.refused) == before
    # The last ones cost more than was left in the hold.
    [account] = engine.book.accounts("app", ALICE)
    assert (account.spent, account.held) == (128, 0)


def test_a_slice_that_another_process_draws_from_and_renews() -> None:
    engine, [one, other] = stores(2)
    one.execute(reserve("slice", 100))
    for number, store in enumerate((one, other, one, other)):
        assert store.execute_all([settle(f"h{number}", 10, parent="slice")]) == [Settled(f"h{number}")]
        other.execute(Renew(("slice",), "app", 10**8, now=START + number))
    assert engine.transacted == 5  # the first reserve and the renewals
    hold = engine.book.hold("app", "slice")
    assert hold is not None and (hold.amounts, hold.at) == (Amounts(60), START + 3 + 10**8)
    other.execute(Release("slice", "app", now=START + 4))
    assert one.execute(settle("late", 10, parent="slice")) == Settled("late")
    assert [(row.spent, row.held) for row in engine.book.accounts("app", ALICE)] == [(50, 0)]


def test_a_slice_that_is_opened_after_a_look() -> None:
    """The charge does not know of the slice, and would leave more held and spent than the limit allows."""
    engine, [one, other] = stores(2)
    for store in (one, other):
        store.execute(settle(f"warm {id(store)}", 0))
    engine.meanwhile = lambda: other.execute(reserve("slice", 995))
    assert one.execute(settle("h", 10, parent="slice")) == Settled("h")
    assert [(row.spent, row.held) for row in engine.book.accounts("app", ALICE)] == [(10, 985)]


def test_a_hold_takes_the_place_of_another_in_one_round_trip() -> None:
    engine, [store] = stores(1)
    store.execute(settle("warm", 0))
    store.execute(reserve("first", 900))
    before = engine.viewed, engine.transacted
    assert store.execute(reserve("second", 1000, replaces="first")) == Granted("second", Amounts(1000))
    assert (engine.viewed, engine.transacted) == before
    assert [row.held for row in engine.book.accounts("app", ALICE)] == [1000]
    closed = engine.book.hold("app", "first")
    assert closed is not None and closed.state == "released"
    refused = store.execute(reserve("third", 1001, replaces="second"))
    assert isinstance(refused, Refused) and refused.held == 0
    assert [row.held for row in engine.book.accounts("app", ALICE)] == [1000]


def test_what_is_wrong_among_charges_that_slices_pay() -> None:
    engine, [store] = stores(1)
    store.execute(reserve("slice", 500))
    before = engine.transacted
    charges = [settle(f"h{number}", 2, parent="slice", aliases=(f"r{number}",)) for number in range(60)]
    wrong = settle("wrong", -1, parent="slice")
    outcomes = store.execute_all([*charges[:30], wrong, *charges[30:], charges[0]])
    assert [one for one in outcomes if one != Settled("h0")] == [
        *[Settled(f"h{number}") for number in range(1, 30)], outcomes[30], *[Settled(f"h{number}") for number in range(30, 60)]
    ]  # fmt: skip
    assert isinstance(outcomes[30], BudgetInputError)
    assert engine.transacted - before == 1
    [account] = engine.book.accounts("app", ALICE)
    assert (account.spent, account.held) == (120, 380)


@pytest.mark.parametrize("ahead", [100 * SECOND, -2 * DAY])
def test_the_servers_clock_counts(ahead: int) -> None:
    """A client's clock neither keeps a window open nor puts a charge on another day."""
    engine, [store] = stores(1)
    defaults = (Default("user", "90s", 1000),)
    for hold in ("a", "b"):
        drive(store.execute, settle(hold, subjects=(ALICE,), defaults=defaults))
    engine.ahead = ahead
    assert isinstance(store.execute(settle("c", subjects=(ALICE,), defaults=defaults)), RollNeeded)


def test_what_is_left_is_not_given_twice() -> None:
    """Another process takes it between a view and the hold that needs it."""
    engine, [one, other] = stores(2)
    one.execute(settle("spent", 900))
    other.execute(settle("warm", 0))
    engine.meanwhile = lambda: other.execute(reserve("theirs", 90))
    assert one.execute(reserve("ours", 400, at_least=1)) == Granted("ours", Amounts(10))


def test_a_budget_that_was_dropped_goes_with_its_last_hold() -> None:
    engine, [store] = stores(1)
    for hold in ("a", "b"):
        store.execute(reserve(hold))
    store.execute(DropBudget("d", "app", ALICE, now=START))
    store.execute(Release("a", "app", now=START))
    assert [account.held for account in engine.book.accounts("app", ALICE)] == [10]
    store.execute(Release("b", "app", now=START))
    assert engine.book.accounts("app", ALICE) == []


def test_a_dropped_budget_whose_holds_others_give_back() -> None:
    engine, [one, other] = stores(2)
    for hold in ("a", "b"):
        one.execute(reserve(hold))
    one.execute(DropBudget("d", "app", ALICE, now=START))
    for store in (one, other):  # each has seen the money of both
        store.execute(settle(f"warm {id(store)}", 0, defaults=()))
    one.execute(Release("a", "app", now=START))
    other.execute(Release("b", "app", now=START))
    assert engine.book.accounts("app", ALICE) == []


def test_an_end_that_was_applied_before_is_answered_by_a_transaction() -> None:
    """An engine then waits until the mark is on the disk."""
    engine, [one, other] = stores(2)
    one.execute(settle("h"))
    before = engine.transacted
    assert [one.execute(settle("h")), other.execute(settle("h"))] == [Settled("h"), Settled("h")]
    assert engine.transacted - before == 2


def test_ends_that_were_applied_before_take_few_round_trips() -> None:
    """A journal is delivered again from its start if a process has died in the middle. One entry at a time would take
    so long on a distant server that no batch would finish in time, ever.
    """
    engine, [store] = stores(1)
    store.execute(reserve("warm"))
    ends = [settle(f"h{number}", 1) if number % 3 else Release(f"h{number}", "app", now=START) for number in range(200)]
    first = store.execute_all(ends)
    before = engine.viewed, engine.transacted, engine.refused
    assert store.execute_all(ends) == first
    assert (engine.viewed + engine.transacted + engine.refused) - sum(before) < 20


def test_a_raise_that_is_over_by_this_machines_clock_alone() -> None:
    """One process sees the raise end a moment before the server does. Its plan is then only valid from that moment on."""
    engine, [store] = stores(1)
    store.execute(PutBudget("c", "app", ALICE, limit=1000, raised_by=100, raised_until=START + 10, now=START))
    store.execute(settle("warm", 0))
    adds = engine.add
    planned = []

    def note(some: Sequence[Add], deadline: float) -> int:
        planned.extend(some)
        return adds(some, deadline)

    engine.add = note  # type: ignore[method-assign]
    store.execute(settle("before", 1, now=START + 9))
    store.execute(settle("behind", 1, now=START + 10))
    assert planned[0].since <= START < planned[0].until == START + 10 == planned[-1].since
