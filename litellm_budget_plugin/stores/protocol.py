"""The contract that every store keeps, and the one way to ask it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, Union, cast, runtime_checkable

from litellm_budget_plugin.core.accounts import Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.commands import (
    BaseCommand,
    Command,
    ReadUsage,
    Reply,
    ReplyT_co,
    Roll,
    RollNeeded,
    UsageRows,
)
from litellm_budget_plugin.core.holding import charge_of
from litellm_budget_plugin.core.models import covers_any
from litellm_budget_plugin.core.windows import DAY, bounds, parse_window
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.rows import Page, Rows

Outcome = Union[Reply, BudgetInputError]
"""The result of one command of many: its reply, or the error that says why it can never be applied."""

_ROUNDS = 4
"""The first question and at most three more, each with the windows that the store asked for."""


@runtime_checkable
class Store(Protocol):
    """A store of the ledger. Every engine answers every command as `core.ledger` does, reply by reply.

    - `execute` applies one command in one atomic step, durable against `kill -9` of this process when it has replied.
      It may be called from any thread, from a running event loop (it blocks, but not beyond its time-out), and in a
      child after `fork`. It raises BudgetStoreUnavailable if it could not answer in time; the command may then have
      been applied or not, and may be sent again: its id ensures that nothing counts twice.
      Any other failure is a BudgetStoreError that names the file or address and the remedy.
    - A `Settle` that has replied survives a power cut once `sync` has returned; a budget change survives it at once.
    - `now` in a command counts only if the store was opened with a test clock.
    - `close` releases open files, connections and threads; it may be called twice. Commands are refused afterwards.
    - `remote` says whether each command is a round trip to another machine or process. If so, charges are delivered in
      the background.
    """

    remote: bool

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        """Apply a command and answer it. `timeout` (seconds) shortens the store's own time-out for waiting on other
        processes and servers; threads of one process queue up to the store's own.
        """

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        """Apply commands one after the other, each in one atomic step, in one round trip if the engine has round trips,
        and answer each. A command that cannot be accepted is answered by its BudgetInputError and does not affect the
        others. If this raises, some may have been applied: all may be sent again.
        """

    def sync(self) -> None:
        """Make every charge that was acknowledged before this call survive a power cut. This may take time."""

    def projects(self) -> list[str]:
        """Every project that has a row, sorted by code point."""

    def export(self, project: str, after: str, most: int) -> Page:
        """Raw rows of a project, up to about `most`, each exactly as stored: reading them expires or rolls nothing.

        Start with "" and continue with each page's `after`. Every row that stays unchanged meanwhile comes once, in a
        stable order; a page costs the same at every position.
        """

    def load(self, project: str, rows: Rows) -> None:
        """Put rows unchanged in place of those with the same keys, in one step that survives a power cut at once.

        A repetition changes nothing. Rows with other keys stay.
        """

    def close(self) -> None:
        """Close files, connections and threads."""


def ask(store: Store, command: BaseCommand[ReplyT_co], timeout: float | None = None) -> ReplyT_co:
    """Execute a command, and open the windows that the store asks for. Never replies RollNeeded.

    Raises BudgetStoreUnavailable like `execute`, and when the windows kept moving for three rounds. `timeout` (seconds)
    bounds all rounds together.
    """
    until = None if timeout is None else time.monotonic() + timeout
    rounds, asked = 0, cast("Command", command)
    while rounds < _ROUNDS:
        reply = store.execute(asked, timeout)
        if not isinstance(reply, RollNeeded):
            return cast("ReplyT_co", reply)
        if reply.due:
            rounds += 1
            # Only commands with a `rolls` field are answered so.
            asked = replace(asked, rolls=_rolls_with_spend(store, asked.project, reply, timeout))  # type: ignore[arg-type]
        timeout = None if until is None else max(0.0, until - time.monotonic())
    raise BudgetStoreUnavailable("the windows of this command's accounts kept changing; send it again")


def ask_all(store: Store, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
    """Execute commands in their order, and open the windows that the store asks for. Never answers RollNeeded.

    A command whose window must be opened is applied after the others. Raises what `execute_all` and `ask` raise.
    """
    until = None if timeout is None else time.monotonic() + timeout
    outcomes = store.execute_all(commands, timeout)
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, RollNeeded):
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                outcomes[place] = ask(store, commands[place], left)
            except BudgetInputError as error:
                outcomes[place] = error
    return outcomes


def one_by_one(store: Store, commands: Sequence[Command], timeout: float | None) -> list[Outcome]:
    """Implement `execute_all` for an engine without round trips."""
    outcomes: list[Outcome] = []
    for command in commands:
        try:
            outcomes.append(store.execute(command, timeout))
        except BudgetInputError as error:
            outcomes.append(error)
    return outcomes


def _rolls_with_spend(store: Store, project: str, needed: RollNeeded, timeout: float | None) -> tuple[Roll, ...]:
    """The rolls that a store asks for. A calendar window of a new account begins with the spend in the totals of its
    days: of the days that are wholly within it, and of today.
    """
    rolls = rolls_for(needed)
    since = {
        roll.ref: first
        for roll in rolls
        if roll.old_end is None
        and parse_window(roll.ref.window).period
        and (first := -(-roll.start // DAY)) <= needed.now // DAY
    }
    totals: dict[Subject, tuple[tuple[UsageKey, Usage], ...]] = {}
    for subject in sorted({Subject(ref.scope, ref.subject) for ref in since}):
        earliest = min(first for ref, first in since.items() if ref[:2] == subject)
        reply = store.execute(ReadUsage(project, *subject, since=earliest), timeout)
        totals[subject] = reply.rows if isinstance(reply, UsageRows) else ()
    return tuple(
        roll._replace(spent=spent_since(totals[Subject(roll.ref.scope, roll.ref.subject)], roll.ref, since[roll.ref]))
        if roll.ref in since
        else roll
        for roll in rolls
    )


def spent_since(rows: Sequence[tuple[UsageKey, Usage]], ref: Ref, since: int) -> tuple[tuple[str, int], ...]:
    """The spend in the totals since a day, in an account's unit and by model, of the models that the account covers."""
    spent: dict[str, int] = {}
    for key, usage in rows:
        amount = charge_of(usage.spent, usage.calls, usage.input_tokens, usage.output_tokens).of(ref.unit)
        if key.day >= since and amount > 0 and covers_any(ref.model, (key.model,)):
            spent[key.model] = spent.get(key.model, 0) + amount
    return tuple(sorted(spent.items()))


def rolls_for(needed: RollNeeded) -> tuple[Roll, ...]:
    """The bounds of every window that a store asks for, at the store's own time."""
    # The next window counts from the end of the last one, whose start may have been moved by hand.
    return tuple(
        Roll(due.ref, due.end, *bounds(parse_window(due.ref.window), needed.now, due.end)) for due in needed.due
    )
