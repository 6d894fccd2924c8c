"""The time that a batch of commands may take, including its windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from litellm_budget_plugin.core.accounts import Ref
from litellm_budget_plugin.core.commands import Command, Reply, RollDue, RollNeeded, Settle, Settled
from litellm_budget_plugin.stores import protocol
from litellm_budget_plugin.stores.protocol import Outcome, Store, ask_all
from tests.stores.desk import ALICE, charge_of


class Slow:
    """A store in which every command takes a second and every window must be opened."""

    def __init__(self) -> None:
        self.now = 0.0
        self.given: list[float | None] = []

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        self.given.append(timeout)
        self.now += 1.0
        assert isinstance(command, Settle)
        return Settled(command.hold)

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        self.given.append(timeout)
        self.now += 1.0
        due = RollDue(Ref(*ALICE[0], window="day@UTC"), None, None)
        return [RollNeeded(0, (due,)) for _ in commands]


def test_the_windows_of_a_batch_share_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every user's window begins at midnight, and a batch must not use its whole time-out for each of them."""
    store = Slow()
    monkeypatch.setattr(protocol.time, "monotonic", lambda: store.now)
    ask_all(cast(Store, store), [charge_of(f"h{number}") for number in range(3)], 2.5)
    assert store.given == [2.5, 1.5, 0.5, 0.0]
