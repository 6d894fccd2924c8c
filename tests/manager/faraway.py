"""A networked ledger whose connection a test can cut."""

from __future__ import annotations

from collections.abc import Sequence

from litellm_budget_plugin.core.commands import Command, Read, ReadUsage, Reply, UsageRows
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.stores.memory import MemoryStore
from litellm_budget_plugin.stores.protocol import Outcome, one_by_one


class Faraway:
    """A networked store: the memory store, with a simulated round trip for every command.

    `away`: no command is answered. `deaf`: commands are applied, but their answers are lost. `asked` lists the commands of each round
    trip.
    """

    remote = True

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.away = self.deaf = False
        self.asked: list[list[Command]] = []
        self.synced = self.closed = 0

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        self._line([command])
        reply = self.store.execute(command)
        self._answer()
        return reply

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        self._line(list(commands))
        outcomes = one_by_one(self.store, commands, timeout)
        self._answer()
        return outcomes

    def _line(self, commands: list[Command]) -> None:
        self.asked.append(commands)
        if self.away:
            raise BudgetStoreUnavailable("the test has cut the line")

    def _answer(self) -> None:
        if self.deaf:
            raise BudgetStoreUnavailable("the test has cut the line after the command")

    def sync(self) -> None:
        self.synced += 1

    def close(self) -> None:
        self.closed += 1

    def calls(self) -> int:
        """Return how many calls the totals of project p count, over all users."""
        reply = self.store.execute(ReadUsage("p", "user"))
        assert isinstance(reply, UsageRows)
        return sum(usage.calls for _, usage in reply.rows)

    @property
    def charged(self) -> list[str]:
        """The ids of the holds of all settlements that were sent, in their order."""
        return [
            command.hold
            for commands in self.asked
            for command in commands
            if not isinstance(command, (Read, ReadUsage)) and hasattr(command, "cost")
        ]
