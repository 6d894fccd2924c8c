"""Steps of `add` and transactions, called on the engine itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Account, Amounts, Default, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.commands import Command, Read, ReadUsage, Reply, Reserve, Settle
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.net.engine import Add, Seen, Sum
from litellm_budget_plugin.stores.net.guarded import GuardedStore
from litellm_budget_plugin.stores.net.transaction import Transaction
from litellm_budget_plugin.stores.postgres.address import address_from
from litellm_budget_plugin.stores.postgres.engine import PostgresEngine
from litellm_budget_plugin.stores.postgres.line import Answers, Batch, Line
from litellm_budget_plugin.stores.postgres.rows import stored_id
from litellm_budget_plugin.stores.rows import Rows
from tests.commands import START, drive
from tests.generated import examples
from tests.stores.postgres.conftest import Look
from tests.stores.postgres.server import shared

ALICE, TEAM, NOBODY = Subject("user", "alice"), Subject("team", "t"), Subject("tag", "new")
REFS = (Ref("team", "t"), Ref("user", "alice"))
DAY = 86_400_000_000


def soon() -> float:
    return time.monotonic() + 30.0


def engine_at(url: str) -> PostgresEngine:
    return PostgresEngine(address_from(url), 30.0)


@pytest.fixture
def engine(url: str) -> Iterator[PostgresEngine]:
    """An engine with two accounts in it, each with 100 nano-dollars spent under "m"."""
    engine = engine_at(url)
    rows = [Account(ref, f"id {ref.scope}", 1, 2, None, spent=100, models={"m": 100}) for ref in REFS]
    engine.load("p", Rows(accounts=tuple(rows)), soon())
    yield engine
    engine.close()


def seen(engine: PostgresEngine) -> dict[Subject, Seen]:
    return dict(engine.view("p", [TEAM, ALICE, NOBODY], [], START, soon()).subjects)


def step(
    engine: PostgresEngine, hold: str, spent: int = 0, held: int = 0, expected: Hold | None = None, **more: Any
) -> Add:
    """A step that adds to both accounts, with a mark and totals."""
    versions = tuple((subject, one.version) for subject, one in seen(engine).items())
    sums = tuple(Sum(ref, spent, held, "gpt") for ref in REFS)
    usage = {UsageKey("user", "alice", 1, "gpt"): Usage(spent, 1)}
    made = Hold(hold, "open" if held > 0 else "settled", 60 if held > 0 else 0, Amounts(max(held, 0)))
    add = Add(
        "p", START, START + 10, versions, sums, ((made, expected),), marks=(f"alias:{hold}",), usage=usage, now=START
    )
    return replace(add, **more)


def everything(engine: PostgresEngine) -> list[Any]:
    pages = [engine.export("p", after, 1000, soon()).rows for after in ("", '["holds"]', '["usage"]')]
    return [row for page in pages for part in page for row in part]


def test_a_step_is_applied_as_a_whole(engine: PostgresEngine) -> None:
    before = seen(engine)
    assert engine.add([step(engine, "h", held=7)], soon()) == 1
    held = Hold("h", "open", START + 60, Amounts(7))
    assert engine.view("p", [], ["h", "alias:h", "no"], START, soon()).holds == {
        "h": held,
        "alias:h": Hold("alias:h", "alias", START),
        "no": None,
    }
    assert engine.add([step(engine, "h", spent=5, held=-7, expected=held)], soon()) == 1
    for subject, one in seen(engine).items():
        assert one.version == before[subject].version
        for account, was in zip(one.accounts, before[subject].accounts):
            assert account == replace(was, spent=105, held=0, models={"m": 100, "gpt": 5})
    assert engine.usage_rows("p", "user", "alice", 0, 9, soon()) == [
        (UsageKey("user", "alice", 1, "gpt"), Usage(5, 2)),
    ]
    # A hold that stays open keeps its time limit.
    left = Hold("other", "open", 1, Amounts(3))
    assert engine.add([step(engine, "other", held=7)], soon()) == 1
    assert engine.add([step(engine, "paid", holds=((left, Hold("other", "open", 1, Amounts(7))),))], soon()) == 1
    assert engine.view("p", [], ["other"], START, soon()).holds == {"other": replace(left, at=START + 60)}
    # A label without an amount is removed.
    assert engine.add([step(engine, "back", spent=-5)], soon()) == 1
    assert seen(engine)[ALICE].accounts[0].models == {"m": 100}


GUARDS: dict[str, Callable[[Add], Add]] = {
    "too early": lambda add: replace(add, since=START + 1),
    "too late": lambda add: replace(add, until=START),
    "the version of a subject with sums": lambda add: replace(add, subjects=((TEAM, 1), *add.subjects[1:])),
    "the version of a subject without": lambda add: replace(add, subjects=(*add.subjects[:2], (NOBODY, 5))),
    "more than the most": lambda add: replace(add, sums=(add.sums[0], add.sums[1]._replace(most=104))),
    "other sums": lambda add: replace(add, sums=(add.sums[0], add.sums[1]._replace(known=(100, 1)))),
    "an account that is gone": lambda add: replace(add, sums=(add.sums[0], add.sums[1]._replace(ref=Ref(*ALICE, "x")))),
    "a hold that is there": lambda add: replace(add, holds=((Hold("taken", "settled", 0), None),)),
    "a hold that is not": lambda add: replace(add, holds=((add.holds[0][0], Hold("x", "open", 1, Amounts(1))),)),
    "other amounts": lambda add: replace(
        add, holds=((Hold("taken", "settled", 0), Hold("taken", "open", 1, Amounts(8))),)
    ),
    "other legs": lambda add: replace(
        add, holds=((Hold("taken", "settled", 0), Hold("taken", "open", 1, Amounts(7), legs=REFS[:1])),)
    ),
    "a second hold of other amounts": lambda add: replace(
        add, holds=(*add.holds, (Hold("taken", "open", 1, Amounts(3)), Hold("taken", "open", 1, Amounts(8))))
    ),
    "a second hold that is not": lambda add: replace(
        add, holds=((Hold("no", "open", 1, Amounts(3)), Hold("no", "open", 1, Amounts(7))), *add.holds)
    ),
    "text that is not kept": lambda add: replace(add, marks=("alias:a\0b",)),
    "half a character": lambda add: replace(add, marks=("alias:\ud83d",)),
    "a number that is not kept": lambda add: replace(add, usage={UsageKey("user", "alice", 2**70, "m"): Usage(1)}),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_a_guard_that_fails_undoes_the_step(guard: str, engine: PostgresEngine) -> None:
    """Alone and among others: the steps before it are applied, the steps after it are not."""
    assert engine.add([step(engine, "taken", held=7)], soon()) == 1
    good = [replace(step(engine, f"good {number}", spent=5), sums=(), marks=()) for number in range(4)]
    bad = GUARDS[guard](step(engine, "bad", spent=5))
    before = everything(engine)
    assert engine.add([bad], soon()) == 0
    assert everything(engine) == before
    assert engine.add(good[:1], soon()) == 1
    before = everything(engine)
    assert engine.add([bad, good[1]], soon()) == 0
    assert everything(engine) == before
    assert engine.add([good[1], good[2], bad, good[3]], soon()) in ((1, 2) if "not kept" in guard else (2,))
    assert engine.view("p", [], ["bad", "good 3"], START, soon()).holds == {"bad": None, "good 3": None}


def test_many_steps_at_once(engine: PostgresEngine) -> None:
    """More steps than one transaction has; each sees the sums of those before it."""
    steps = [
        replace(step(engine, f"h{number}", spent=1), sums=(Sum(REFS[1], 1, 0, "gpt", known=(100 + number, 0)),))
        for number in range(50)
    ]
    steps = [replace(one, subjects=one.subjects[1:2]) for one in steps]
    assert engine.add(steps, soon()) == 50
    assert engine.add([*steps, *steps], soon()) == 0
    assert seen(engine)[ALICE].accounts[0].spent == 150


def test_steps_of_several_projects(engine: PostgresEngine) -> None:
    plain = replace(step(engine, "h", spent=1), subjects=(), sums=())
    assert engine.add([replace(plain, project=f"p{number % 3}") for number in range(3)], soon()) == 3
    assert engine.projects(soon()) == ["p", "p0", "p1", "p2"]


def test_what_an_exception_leaves(engine: PostgresEngine) -> None:
    """An exception leaves neither rows nor an open transaction."""

    def work(transaction: Transaction) -> None:
        transaction.changes.holds["h"] = Hold("h", "done", 1)
        raise BudgetInputError("no")

    before = everything(engine)
    with pytest.raises(BudgetInputError, match="^no$"):
        engine.transact("p", [], [], None, work, soon())
    assert everything(engine) == before
    assert engine.add([step(engine, "h", spent=1)], soon()) == 1


def test_a_client_that_stalls_holds_nobody_up(url: str, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends its session, and its work is repeated."""
    monkeypatch.setattr("litellm_budget_plugin.stores.postgres.statements._LONGEST_LOCK", 0.2)
    stalling, other = engine_at(f"{url}&application_name=stalling"), engine_at(url)
    calls = []

    def work(transaction: Transaction) -> int:
        calls.append(transaction)
        if len(calls) == 1:
            mine = "SELECT pid FROM pg_stat_activity WHERE application_name = 'stalling'"
            deadline = soon()
            while look(url, mine):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            other.transact("p", [], [], None, lambda one: one.changes.holds.update(o=Hold("o", "done", 1)), soon())
        transaction.changes.holds["h"] = Hold("h", "done", len(calls))
        return len(calls)

    assert stalling.transact("p", [], [], None, work, soon()) == 2
    assert stalling.view("p", [], ["h", "o"], None, soon()).holds == {
        "h": Hold("h", "done", 2),
        "o": Hold("o", "done", 1),
    }
    assert calls[1].hold("p", "o") == Hold("o", "done", 1)
    stalling.close()
    other.close()


def test_a_lock_is_not_waited_for_beyond_the_deadline(url: str) -> None:
    one, other = engine_at(url), engine_at(url)

    def work(_: Transaction) -> None:
        begun = time.monotonic()
        with pytest.raises(BudgetStoreUnavailable, match="a lock of the ledger"):
            other.transact("p", [], [], None, lambda _: None, begun + 0.2)
        assert time.monotonic() - begun < 0.2 + 0.3

    one.transact("p", [], [], None, work, soon())
    one.close()
    other.close()


def test_marks_and_days_go_in_steps(engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litellm_budget_plugin.stores.postgres.engine._AT_ONCE", 3)
    holds = [Hold(f"h{number}", "open" if number == 5 else "done", number) for number in range(10)]
    usage = [(UsageKey("user", "alice", day, "m"), Usage(1, 2, 3, 4, 5, 6)) for day in range(9)]
    engine.load("p", Rows(holds=tuple(holds), usage=tuple(usage)), soon())
    assert engine.forget("p", 8, soon()) == 7
    assert sorted(engine.view("p", [], [hold.id for hold in holds], None, soon()).holds.items()) == [
        (hold.id, hold if hold.id in ("h5", "h8", "h9") else None) for hold in holds
    ]
    assert engine.fold("p", 8, soon()) == 7
    assert engine.usage_rows("p", "user", None, 0, 9, soon()) == [
        (UsageKey("user", "alice", 0, "m"), Usage(8, 16, 24, 32, 40, 48)), usage[8]
    ]  # fmt: skip


def long_id(seed: int) -> str:
    """256 characters of four bytes each, which no compression shortens."""
    dice = random.Random(seed)
    characters = (chr(dice.randrange(0x20000, 0x2A6D0)) for _ in range(256))
    return checked_id("".join(characters), "it")


IDS = st.integers(0, 1) | st.integers(2, 3).map(long_id)


@examples(40)
@given(
    project=IDS.map(str), scope=IDS.map(str), subject=IDS.map(str), models=st.tuples(IDS.map(str), IDS.map(str)),
    window=st.sampled_from(("none", "month:15T06@America/Argentina/ComodRivadavia")), holds=st.tuples(IDS, IDS),
)  # fmt: skip
def test_every_id_that_is_accepted(
    project: str, scope: str, subject: str, models: tuple[str, str], window: str, holds: tuple[object, object]
) -> None:
    """The longest ids together in one key are held, charged, counted, listed and copied like short ones."""
    url = shared().url()
    store, book = GuardedStore(engine_at(url), test_clock=True, timeout=30.0), DictRowStore()
    payer = (Subject(scope, subject), Subject(scope, f"{subject}"[::-1]))
    defaults = (Default(scope, window, 1000), Default(scope, "none", 1000, models[0], "calls"))
    names = tuple(f"{number}{hold}" * 3 for number, hold in enumerate(holds))
    charge = Settle(names[0], project, payer, models, 7, models[1], defaults=defaults, aliases=names, now=START)
    commands = (
        Reserve(names[0], project, payer, models, Amounts(10, 1), DAY, defaults, now=START),
        Reserve(names[1], project, payer, models, Amounts(10, 1), DAY, defaults, now=START),
        charge,
        charge,
        replace(charge, hold="other", unless=names[1]),
        Read(project, scope, subject, defaults=defaults, now=START),
        Read(project, scope, page=1, defaults=defaults, now=START),
        ReadUsage(project, scope, now=START),
        ReadUsage(project, scope, subject, now=START),
        Read(project, scope, subject, defaults=defaults, now=START + DAY),
    )

    def both(command: Command) -> Reply:
        expected = apply(book, command, command.now or 0)
        assert store.execute(command) == expected
        return expected

    for command in commands:
        drive(both, command)
    copy = engine_at(shared().url())
    copy.load(project, store.export(project, "", 100).rows, soon())
    copy.load(project, store.export(project, '["holds"]', 100).rows, soon())
    assert copy.export(project, "", 100, soon()) == store.export(project, "", 100)
    assert [hold.id for hold in copy.view(project, [], names, START, soon()).holds.values() if hold] == list(names)
    copy.close()
    store.close()


def test_what_waits_for_the_disk(engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lasting marks wait, also those that another client left a moment ago; grants and refusals do not."""
    flushes = []
    ask = Line.ask

    def asking(line: Line, batches: Sequence[Batch], deadline: float) -> list[Answers]:
        flushes.append(any(batch[0][0].find("pg_logical_emit_message") > 0 for batch in batches))
        return ask(line, batches, deadline)

    monkeypatch.setattr(Line, "ask", asking)

    def waited() -> bool:
        found = any(flushes)
        flushes.clear()
        return found

    engine.add([step(engine, "grant", held=5)], soon())
    assert not waited()
    engine.add([step(engine, "charge", spent=5)], soon())
    assert waited()
    for state, waits in (("done", True), ("refused", False), ("expired", False), ("released", True), ("settled", True)):
        mark = Hold(f"mark {state}", state, 1)
        for asked in ([mark.id], []):
            engine.transact(
                "p", [], asked, None, lambda one, mark=mark: one.changes.holds.update({mark.id: mark}), soon()
            )
            assert waited() == waits
            engine.transact("p", [], asked, None, lambda one, mark=mark: one.hold("p", mark.id), soon())
            assert waited() == waits


def test_a_hold_by_the_name_of_a_digest_is_not_the_one_that_was_digested() -> None:
    long = "x" * 1000
    assert stored_id(stored_id(long)) != stored_id(long)
    assert stored_id("h") == "h"
