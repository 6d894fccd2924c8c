"""Commands of other processes run between the round trips of one: some order of all of them explains every reply and the rows."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import (
    KEEP,
    Command,
    DropBudget,
    PutBudget,
    Release,
    Renew,
    Reply,
    Reserve,
    Reset,
    RollNeeded,
    Settle,
)
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.stores.memory import rows_of
from litellm_budget_plugin.stores.net import guarded
from litellm_budget_plugin.stores.net.engine import Add, View
from litellm_budget_plugin.stores.net.guarded import GuardedStore
from litellm_budget_plugin.stores.net.transaction import Transaction
from litellm_budget_plugin.stores.protocol import rolls_for
from tests.commands import START
from tests.generated import examples
from tests.stores.net.dict_engine import DictEngine

T = TypeVar("T")
A, B, P = Subject("user", "a"), Subject("user", "b"), Subject("project", "p")
DEFAULTS = (
    Default("user", "none", 1000),
    Default("project", "1d", 1500, carry_over=300),
    Default("user", "90s", 800, "gpt-4o"),
    Default("user", "none", 3, "", "calls"),
)
Candidate = tuple[DictRowStore, "Reply | None"]
"""A possible state of the rows, and the reply to the command in question on the way to it; None if it is not applied yet."""


class Engine(DictEngine):
    """An engine that lets others act before and after each round trip. Without a test's time, its `clock` counts."""

    def __init__(self) -> None:
        super().__init__()
        self.between: Callable[[], None] | None = None
        self.clock = START
        self._locked = False

    def _let_others(self) -> None:
        between, self.between = self.between, None
        if between is not None and not self._locked:
            between()
        self.between = between

    def add(self, adds: Sequence[Add], deadline: float) -> int:
        self._let_others()
        applied = super().add([replace(add, now=self.clock if add.now is None else add.now) for add in adds], deadline)
        self._let_others()
        return applied

    def view(
        self, project: str, subjects: Sequence[Subject], holds: Sequence[str], now: int | None, deadline: float
    ) -> View:
        self._let_others()
        return super().view(project, subjects, holds, self.clock if now is None else now, deadline)

    def transact(
        self,
        project: str,
        subjects: Sequence[Subject],
        holds: Sequence[str],
        now: int | None,
        work: Callable[[Transaction], T],
        deadline: float,
    ) -> T:
        self._let_others()
        self._locked = True
        try:
            return super().transact(project, subjects, holds, now, work, deadline)
        finally:
            self._locked = False
            self._let_others()


class Clock:
    """The time that GuardedStore reads: this machine's clock is `off` by some microseconds."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.off = engine, 0

    def monotonic(self) -> float:
        return 0.0

    def time_ns(self) -> int:
        return (self._engine.clock + self.off) * 1000


def rows(book: DictRowStore, clocked: bool) -> object:
    """The content of a book, in order. With a clock, the times of an explaining order differ slightly."""
    found = rows_of(book, "p", book.keys("p"))
    holds = [replace(hold, at=0) if clocked or hold.state != "open" else hold for hold in found.holds]
    return sorted(map(repr, found.accounts)), holds, [one for one in found.usage if any(one[1])]


def calls(chance: random.Random) -> list[Command]:
    """Commands on a few accounts that are close to their limits."""
    now, made, going = START - 20 * SECOND, list[Command](), ["h"]
    if chance.random() < 0.3:
        now = START // DAY * DAY + DAY - 2 * SECOND
    defaults = DEFAULTS[: chance.choice((1, 2, 2, 3, 4))]
    for number in range(chance.randint(10, 45)):
        now += chance.choice((0, 0, 1, 1000, SECOND, SECOND, 10 * SECOND))
        if made and chance.random() < 0.07:
            made.append(replace(chance.choice(made), now=now))
            continue
        hold = f"h{number}" if chance.random() < 0.9 else f"h{chance.randint(0, number)}"
        other = chance.choice(going) if chance.random() < 0.2 else None
        subjects, models, kind = (chance.choice((A, A, B)), P), ("gpt-4o",), chance.random()
        budget = chance.choice((A, B, P))
        if kind < 0.45:
            want = chance.choice((0, 1, 5, 20, 100, 300, 500, 2**53 - 1))
            made.append(
                Reserve(
                    hold, "p", subjects, models, Amounts(want, chance.choice((0, 0, 1)), 5),
                    chance.choice((SECOND, 120 * SECOND)), defaults, Amounts(chance.choice((0, 5, 50))),
                    chance.choice((None, None, None, 0, min(want, 1), want)), other if other != hold else None,
                    cheap=chance.random() < 0.15, patient=chance.random() < 0.2, now=now,
                )
            )  # fmt: skip
            going.append(hold)
        elif kind < 0.75:
            made.append(
                Settle(
                    chance.choice(going) if chance.random() < 0.6 else hold, "p", subjects, models,
                    chance.choice((0, 1, 10, 50, 100, 300, 700)), chance.choice(("gpt-4o", "x")), 1, 2,
                    chance.choice((0, 1)), chance.choice((defaults, defaults, defaults, ())), other,
                    chance.choice(((), (), ("r1",), (f"r{number}", "r2"))), chance.choice((None,) * 8 + ("r1", "r2")),
                    chance.choice((None, None, now - SECOND, now - DAY, now + 1, now + DAY)), now=now,
                )
            )  # fmt: skip
        elif kind < 0.83:
            made.append(Release(chance.choice(going), "p", now))
        elif kind < 0.85:
            made.append(Renew(tuple(going[-3:]), "p", 60 * SECOND, now))
        elif kind < 0.97:
            made.append(
                PutBudget(
                    f"c{number}", "p", budget, chance.choice(("", "", "gpt-4o")),
                    window=chance.choice((KEEP, KEEP, "90s", "none")),
                    limit=chance.choice((KEEP, None, 0, 200, 600, 2**53 - 1)),
                    blocked=chance.choice((KEEP, KEEP, KEEP, True, False)), raised_by=chance.choice((KEEP, 100, 300)),
                    raised_until=chance.choice((KEEP, now, now + 1, now + 2 * SECOND)), carry_over=chance.choice((KEEP, 100)),
                    spent=chance.choice((KEEP, KEEP, (), (("gpt-4o", 3),))), only=chance.random() < 0.4,
                    defaults=defaults, now=now,
                )
            )  # fmt: skip
        else:
            made.append(chance.choice((DropBudget, Reset))(f"c{number}", "p", budget, now=now))
    return made


class History:
    """One process's commands and, between their round trips, those of others. `candidates`: see Candidate."""

    def __init__(self, commands: list[Command], chance: random.Random, clocked: bool) -> None:
        self.engine = Engine()
        self.clock = Clock(self.engine)
        self._pending, self._chance, self._clocked = commands, chance, clocked
        self._ours, *self._others = (GuardedStore(self.engine, test_clock=not clocked) for _ in range(3))
        self._candidates: list[Candidate] = []

    def _now(self, command: Command) -> int:
        assert command.now is not None
        return self.engine.clock if self._clocked else command.now

    def _apply_maybe(self, command: Command) -> None:
        """The command in question may have been applied by now."""
        for book, reply in self._candidates[:]:
            if reply is None:
                with_it = copy.deepcopy(book)
                self._candidates.append((with_it, apply(with_it, command, self._now(command))))

    def _run_other(self, ours: Command) -> None:
        if self._chance.random() > 0.4 or not self._pending:
            return
        self._apply_maybe(ours)
        command = self._pending.pop(0)
        if self._clocked:
            self.engine.clock += self._chance.choice((0, 0, 1, SECOND, 45 * SECOND, -SECOND))
            self._apply_maybe(ours)
        store = self._chance.choice(self._others)
        for _ in range(3):
            reply = store.execute(command)
            explained: dict[str, Candidate] = {}
            for book, answer in self._candidates:
                with_it = copy.deepcopy(book)
                if apply(with_it, command, self._now(command)) == reply:
                    explained.setdefault(repr((rows(with_it, self._clocked), answer)), (with_it, answer))
            assert explained, (command, reply)
            self._candidates = list(explained.values())
            if not (isinstance(reply, RollNeeded) and reply.due):
                return
            command = replace(command, rolls=rolls_for(reply))  # type: ignore[call-arg]

    def _execute(self, command: Command) -> Reply:
        if self._clocked:
            assert command.now is not None
            self.engine.clock = max(self.engine.clock, command.now) if self._chance.random() < 0.9 else command.now
            self.clock.off = self._chance.choice((0, 0, 0, 1, -1, SECOND, -50 * SECOND))
        self._candidates = [(copy.deepcopy(self.engine.book), None)]
        self.engine.between = lambda: self._run_other(command)
        reply = self._ours.execute(command)
        self.engine.between = None
        self._apply_maybe(command)
        answered = [book for book, answer in self._candidates if answer == reply]
        assert answered, (command, reply, [answer for _, answer in self._candidates])
        assert rows(self.engine.book, self._clocked) in [rows(book, self._clocked) for book in answered], command
        return reply

    def run(self) -> None:
        while self._pending:
            command = self._pending.pop(0)
            for _ in range(4):
                reply = self._execute(command)
                if not (isinstance(reply, RollNeeded) and reply.due):
                    break
                command = replace(command, rolls=rolls_for(reply))  # type: ignore[call-arg]


@pytest.mark.parametrize("clocked", [False, True], ids=["test's time", "clock"])
@examples(50, phases=[Phase.generate, Phase.shrink])
@given(seed=st.integers(0, 2**48))
def test_some_order_explains_replies_and_rows(clocked: bool, seed: int) -> None:
    chance = random.Random(seed)
    history = History(calls(chance), chance, clocked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guarded, "time", history.clock)
        history.run()
