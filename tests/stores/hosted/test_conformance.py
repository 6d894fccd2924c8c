"""With one process, every reply is the ledger's; with several that take turns, every charge counts once, whatever fails."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import Accounts, Command, PutBudget, Read, Reply, Settle
from litellm_budget_plugin.core.ledger import DictBook, apply
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.hosted.store import HostedStore
from tests.commands import command_lists, drive, questions


class Wire:
    """An endpoint inside of this process that speaks JSON. `trouble` is what becomes of the next requests."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}
        self.trouble: list[str] = []

    def post(self, path: str, body: Any, deadline: float) -> object:
        trouble = self.trouble.pop(0) if self.trouble else "none"
        if trouble == "away":
            raise BudgetStoreUnavailable("away")
        if path == "/set_budget":
            self.data[body["project_name"]] = json.dumps(body["user_dict"], allow_nan=False)
        if trouble == "deaf":
            raise BudgetStoreUnavailable("deaf")
        kept = self.data.get(body["project_name"])
        if path == "/set_budget" or kept is None:
            return {"status": "success" if path == "/set_budget" else "error"}
        return {"status": "success", "data": json.loads(kept)}

    def records(self, project: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.data.get(project, "{}"))
        return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
turns = st.tuples(
    st.integers(0, 2),
    st.sampled_from("ab"),
    st.integers(1, 9),
    st.lists(st.sampled_from(("none", "none", "away", "deaf")), max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(turns=st.lists(turns, min_size=1, max_size=25))
def test_every_charge_counts_once_whatever_fails(turns: Sequence[tuple[int, str, int, list[str]]]) -> None:
    """Three stores that take turns; requests and answers get lost; what was not acknowledged is sent again in the end."""
    wire = Wire()
    stores = [HostedStore(wire, "the wire") for _ in range(3)]
    again: list[tuple[HostedStore, Command]] = []
    charged = {"a": 0, "b": 0}
    limits: dict[str, int] = {}
    for number, (which, user, usd, trouble) in enumerate(turns):
        subject = Subject("user", user)
        command: Command = Settle(f"h{number}", "p", (subject,), (), usd, f"m{usd % 2}", defaults=LIMIT)
        if usd == 9:
            command = PutBudget(f"c{number}", "p", subject, limit=number, only=True, defaults=LIMIT)
        else:
            charged[user] += usd
        wire.trouble = list(trouble)
        try:
            stores[which].execute(command)
        except BudgetStoreUnavailable:
            again.append((stores[which], command))
        if isinstance(command, PutBudget):
            limits[user] = number
    wire.trouble = []
    for store, command in again:
        store.execute(command)
    for user, spent in charged.items():
        for store in stores:
            reply = store.execute(Read("p", "user", user, defaults=LIMIT))
            assert isinstance(reply, Accounts)
            assert sum(state.spent for state in reply.accounts) == spent
        record = wire.records("p").get(user, {})
        assert round(record.get("current_cost", 0) * 1e9) == spent
        assert not record or record.get("default", False) is (user not in limits)
