"""A ledger over plain dictionaries with its own clock, and short ways to write its commands."""

from __future__ import annotations

from typing import Any, cast

from litellm_budget_plugin.core.accounts import Account, Amounts, Default, Hold, Ref, Subject, Usage
from litellm_budget_plugin.core.commands import (
    AccountState,
    Command,
    DropBudget,
    Granted,
    PutBudget,
    Read,
    ReadUsage,
    Refused,
    Release,
    Renew,
    Renewed,
    Reply,
    Reserve,
    Reset,
    Roll,
    RollNeeded,
    Settle,
    Settled,
    Sweep,
    Swept,
)
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.core.windows import DAY, SECOND, bounds, parse_window
from litellm_budget_plugin.stores.protocol import Store, ask

PROJECT = "app"
ALICE = Subject("user", "alice")
BOB = Subject("user", "bob")
BLUE = Subject("team", "blue")
TTL = 120 * SECOND
NOON = 20_000 * DAY + DAY // 2
"""The first time of a desk's clock: noon of 2024-10-04 UTC."""


def limit(amount: int | None, window: str = "none", **fields: Any) -> Default:
    """A default for users."""
    return Default(**{"scope": "user", "window": window, "limit": amount, **fields})


def ref(window: str = "none", subject: Subject = ALICE, model: str = "", unit: str = "usd") -> Ref:
    return Ref(subject.scope, subject.id, model, window, unit)


def rolls_asked(needed: RollNeeded, now: int | None = None) -> tuple[Roll, ...]:
    """The requested bounds, as a caller whose clock shows `now` computes them (None: the store's)."""
    time = needed.now if now is None else now
    return tuple(Roll(due.ref, due.end, *bounds(parse_window(due.ref.window), time, due.start)) for due in needed.due)


class Desk:
    """A ledger that executes commands at `now` on its book, with `defaults` for commands without any."""

    def __init__(self, *defaults: Default) -> None:
        self.book = DictRowStore()
        self.now = NOON
        self.defaults = defaults

    def execute(self, command: Command, timeout: float | None = None) -> Reply:  # like a store
        """Execute one command unchanged."""
        return apply(self.book, command, self.now)

    def ask(self, command: Command) -> Any:
        """Execute one command, and open the windows that it needs."""
        return ask(cast(Store, self), command)

    def wait(self, micros: int) -> None:
        self.now += micros

    def reserve_command(self, hold: str, usd: int = 0, calls: int = 0, tokens: int = 0, **fields: Any) -> Reserve:
        given = {"subjects": (ALICE,), "models": ("gpt-4o",), "expires_after": TTL, "defaults": self.defaults}
        if isinstance(fields.get("floor"), int):
            fields["floor"] = Amounts(fields["floor"])
        return Reserve(hold, PROJECT, want=Amounts(usd, calls, tokens), **{**given, **fields})

    def settle_command(self, hold: str, cost: int, **fields: Any) -> Settle:
        given = {"subjects": (ALICE,), "models": ("gpt-4o",), "model": "gpt-4o", "defaults": self.defaults}
        return Settle(hold, PROJECT, cost=cost, **{**given, **fields})

    def reserve(self, hold: str, usd: int = 0, calls: int = 0, tokens: int = 0, **fields: Any) -> Any:
        return self.ask(self.reserve_command(hold, usd, calls, tokens, **fields))

    def granted(self, hold: str, usd: int = 0, calls: int = 0, tokens: int = 0, **fields: Any) -> Granted:
        reply = self.reserve(hold, usd, calls, tokens, **fields)
        assert isinstance(reply, Granted), reply
        return reply

    def refused(self, hold: str, usd: int = 0, calls: int = 0, tokens: int = 0, **fields: Any) -> Refused:
        reply = self.reserve(hold, usd, calls, tokens, **fields)
        assert isinstance(reply, Refused), reply
        return reply

    def settle(self, hold: str, cost: int, **fields: Any) -> Any:
        return self.ask(self.settle_command(hold, cost, **fields))

    def charge(self, cost: int, **fields: Any) -> Settled:
        """A charge without a hold."""
        reply = self.settle(f"charge at {self.now}, {cost}, {fields}", cost, **fields)
        assert isinstance(reply, Settled), reply
        return reply

    def release(self, hold: str) -> Reply:
        return self.execute(Release(hold, PROJECT))

    def renew(self, *holds: str, expires_after: int = TTL) -> Renewed:
        reply = self.execute(Renew(holds, PROJECT, expires_after))
        assert isinstance(reply, Renewed)
        return reply

    def put(self, change: str, **fields: Any) -> Reply:
        given = {"subject": ALICE, "defaults": self.defaults}
        reply: Reply = self.ask(PutBudget(change, PROJECT, **{**given, **fields}))
        return reply

    def drop(self, change: str, **fields: Any) -> Reply:
        return self.execute(DropBudget(change, PROJECT, **{"subject": ALICE, **fields}))

    def reset(self, change: str, **fields: Any) -> Reply:
        return self.execute(Reset(change, PROJECT, **{"subject": ALICE, **fields}))

    def sweep(self, marks_kept: int = 30 * DAY, days_kept: int = 400 * DAY) -> Swept:
        reply = self.execute(Sweep(PROJECT, marks_kept, days_kept))
        assert isinstance(reply, Swept)
        return reply

    def states(self, subject: Subject = ALICE, **fields: Any) -> tuple[AccountState, ...]:
        """The states that Read returns for a subject."""
        reply: Any = self.execute(
            Read(PROJECT, subject.scope, **{"subject": subject.id, "defaults": self.defaults, **fields})
        )
        states: tuple[AccountState, ...] = reply.accounts
        return states

    def account(self, window: str = "none", subject: Subject = ALICE, model: str = "", unit: str = "usd") -> Account:
        """A row as it is recorded."""
        wanted = ref(window, subject, model, unit)
        found = {row.ref: row for row in self.book.accounts(PROJECT, subject)}
        assert wanted in found, f"{wanted} is not among {sorted(found)}"
        return found[wanted]

    def spent_held(self, *args: Any, **fields: Any) -> tuple[int, int]:
        account = self.account(*args, **fields)
        return account.spent, account.held

    def hold(self, hold: str) -> Hold:
        found = self.book.hold(PROJECT, hold)
        assert found is not None, f"{hold} is unknown"
        return found

    def totals(self, subject: Subject = ALICE) -> Usage:
        """Usage of a subject over all days and models."""
        reply: Any = self.execute(ReadUsage(PROJECT, subject.scope, subject.id))
        total = Usage()
        for _, usage in reply.rows:
            total = total.plus(usage)
        return total


def snapshot(book: DictRowStore) -> Any:
    """The whole content of a book, for comparison."""
    return repr((book._accounts, sorted_holds(book), book._usage))


def sorted_holds(book: DictRowStore) -> Any:
    return {project: sorted(holds.items()) for project, holds in book._holds.items()}
