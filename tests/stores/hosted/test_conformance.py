"""With one process, every reply is the ledger's; with several that take turns, every charge counts once, whatever fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import Accounts, Command, PutBudget, Read, Reply, Settle
from litellm_budget_plugin.core.ledger import DictBook, apply
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.hosted.store import HostedStore
from tests.commands import command_lists, drive, questions
from tests.generated import examples


class Wire:
    """An endpoint inside of this process that speaks JSON. `trouble` is what becomes of the next requests, and `between` is
    called once before something is written.
    """

    def __init__(self) -> None:
        self.data: dict[str, str] = {}
        self.trouble: list[str] = []
        self.between: Callable[[], object] | None = None

    def close(self) -> None:
        """Nothing to let go of."""

    def post(self, path: str, body: Any, deadline: float) -> object:
        trouble = self.trouble.pop(0) if self.trouble else "none"
        if trouble == "away":
            raise BudgetStoreUnavailable("away")
        if path == "/set_budget" and self.between is not None:
            between, self.between = self.between, None
            between()
        if path == "/set_budget":
            self.data[body["project_name"]] = json.dumps(body["user_dict"], allow_nan=False)
        if trouble == "deaf":
            raise BudgetStoreUnavailable("deaf")
        kept = self.data.get(body["project_name"])
        if path == "/set_budget" or kept is None:
            return {"status": "success" if path == "/set_budget" else "error"}
        return {"status": "success", "data": json.loads(kept)}

    def put(self, project: str, records: dict[str, Any]) -> None:
        """Have somebody else write."""
        self.data[project] = json.dumps(records)

    def records(self, project: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.data.get(project, "{}"))
        return found


@examples(150)
@given(commands=command_lists(min_size=4, max_size=40))
def test_every_reply_is_the_ledgers(commands: list[Command]) -> None:
    """As long as nobody else writes. A default for the project is left out: what was spent before it is told from the users'
    records here, and not known to the ledger.
    """
    book, store = DictBook(), HostedStore(Wire(), "the wire", test_clock=True)

    def both(command: Command) -> Reply:
        assert command.now is not None
        try:
            expected = apply(book, command, command.now)
        except BudgetInputError as refused:
            with pytest.raises(BudgetInputError, match=f"^{re.escape(str(refused))}$"):
                store.execute(command)
            raise
        assert store.execute(command) == expected
        return expected

    for command in commands:
        with suppress(BudgetInputError):
            drive(both, _without_project(command))
        store.sync()
    assert commands[-1].now is not None
    for question in questions(commands[-1].now):
        drive(both, _without_project(question))


def _without_project(command: Command) -> Command:
    if not hasattr(command, "defaults"):
        return command
    return replace(command, defaults=tuple(each for each in command.defaults if each.scope != "project"))


LIMIT = (Default("user", "none", 1000),)
charges = st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.integers(1, 9))
turns = st.tuples(
    charges,
    st.none() | charges,
    st.lists(st.sampled_from(("none", "none", "away", "deaf")), max_size=2),
)


class Fleet:
    """Three stores, what was charged to whom, and the commands that were not acknowledged."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.stores = [HostedStore(self.wire, "the wire") for _ in range(3)]
        self.charged = {"a": 0, "b": 0}
        self.limited: set[str] = set()
        self.again: list[tuple[HostedStore, Command]] = []
        self._sent = 0

    def send(self, which: int, user: str, usd: int) -> None:
        """Charge; or, for 9, set a limit."""
        self._sent += 1
        subject = Subject("user", user)
        command: Command = Settle(f"h{self._sent}", "p", (subject,), (), usd, f"m{usd % 2}", defaults=LIMIT)
        if usd == 9:
            command = PutBudget(f"c{self._sent}", "p", subject, limit=self._sent, only=True, defaults=LIMIT)
            self.limited.add(user)
        else:
            self.charged[user] += usd
        try:
            self.stores[which].execute(command)
        except BudgetStoreUnavailable:
            self.again.append((self.stores[which], command))

    def finish(self) -> None:
        """Everybody has said what they had to say, and has read it."""
        self.wire.trouble, self.wire.between = [], None
        for store, command in self.again:
            store.execute(command)
        for _ in range(2):
            for store in self.stores:
                store.execute_all([Read("p", "user", defaults=LIMIT)])
                store.sync()


@examples(300)
@given(turns=st.lists(turns, min_size=1, max_size=25))
def test_every_charge_counts_once_whatever_fails(turns: Sequence[tuple[Any, Any, list[str]]]) -> None:
    """Requests and answers get lost, and writes cross; what was not acknowledged is sent again in the end."""
    fleet = Fleet()
    for turn, crossing, trouble in turns:
        fleet.wire.trouble = list(trouble)
        # Another store reads and writes between this one's read and write: one of the two writes is overwritten.
        fleet.wire.between = None if crossing is None or crossing[0] == turn[0] else partial(fleet.send, *crossing)
        fleet.send(*turn)
    fleet.finish()
    for user, spent in fleet.charged.items():
        for store in fleet.stores:
            reply = store.execute(Read("p", "user", user, defaults=LIMIT))
            assert isinstance(reply, Accounts)
            assert sum(state.spent for state in reply.accounts) == spent
        record = fleet.wire.records("p").get(user, {})
        assert round(record.get("current_cost", 0) * 1e9) == spent
        assert not record or record.get("default", False) is (user not in fleet.limited)
