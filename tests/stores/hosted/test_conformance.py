"""One process, over HTTP: every reply is the ledger's, and every charge counts once, despite all failures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import (
    Accounts,
    Command,
    PutBudget,
    Read,
    Refund,
    Reply,
    SetLimits,
    Settle,
    TopUp,
)
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.hosted import HostedStore
from litellm_budget_plugin.stores.http.client import HttpClient
from tests.commands import command_lists, drive, questions
from tests.generated import examples
from tests.stores.hosted.desk import later
from tests.stores.hosted.endpoint import Endpoint

Shared = tuple[Endpoint, HttpClient]
LIMIT = (Default("user", "none", 1000),)


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    """One endpoint and one client of it, for all examples."""
    served = Endpoint()
    exchange = served.exchange()
    yield served, exchange
    exchange.close()
    served.close()


@examples(200)
@given(commands=command_lists(min_size=4, max_size=40))
def test_every_reply_is_the_ledgers(shared: Shared, commands: list[Command]) -> None:
    """As long as no other process writes. Written data is read again from time to time."""
    endpoint, exchange = shared
    endpoint.forget()
    book, store = DictRowStore(), HostedStore(exchange, test_clock=True)

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

    for number, command in enumerate(commands):
        if isinstance(command, (SetLimits, TopUp, Refund)):
            with pytest.raises(BudgetInputError):
                store.execute(command)
            continue
        with suppress(BudgetInputError):
            drive(both, command)
        if number % 3 == 0:
            store.sync()
            later(store)
    assert commands[-1].now is not None
    for question in questions(commands[-1].now):
        drive(both, question)


charges = st.tuples(st.sampled_from("ab"), st.integers(1, 9))
troubles = st.lists(st.sampled_from(("none", "none", "away", "deaf", "late", "refused")), max_size=3)


class Process:
    """One store, its charges by user, and its commands that were not acknowledged."""

    def __init__(self, endpoint: Endpoint, exchange: HttpClient) -> None:
        self.endpoint = endpoint
        self.store = HostedStore(exchange)
        self.charged = {"a": 0, "b": 0}
        self.limited: set[str] = set()
        self.again: list[Command] = []
        self._sent = 0

    def send(self, user: str, usd: int) -> None:
        """Charge `usd`; or set a limit if it is 9."""
        self._sent += 1
        subject = Subject("user", user)
        command: Command = Settle(f"h{self._sent}", "p", (subject,), (), usd, f"m{usd % 2}", defaults=LIMIT)
        if usd == 9:
            command = PutBudget(f"c{self._sent}", "p", subject, limit=self._sent, only=True, defaults=LIMIT)
            self.limited.add(user)
        else:
            self.charged[user] += usd
        try:
            self.store.execute(command)
        except BudgetStoreUnavailable:
            self.again.append(command)

    def finish(self) -> None:
        """Repeat the commands that were not acknowledged, and read the result."""
        self.endpoint.trouble = []
        for command in self.again:
            self.store.execute(command)
        for _ in range(2):
            later(self.store)
            self.store.execute(Read("p", "user", defaults=LIMIT))
            self.store.sync()


@examples(100)
@given(turns=st.lists(st.tuples(charges, troubles), min_size=1, max_size=20))
def test_every_charge_counts_once_whatever_fails(
    shared: Shared, turns: Sequence[tuple[tuple[str, int], list[str]]]
) -> None:
    """Requests and answers are lost, or a write arrives after the next one; unacknowledged commands are sent again."""
    endpoint, exchange = shared
    endpoint.forget()
    process = Process(endpoint, exchange)
    for charge, trouble in turns:
        endpoint.trouble = list(trouble)
        process.send(*charge)
    process.finish()
    for user, spent in process.charged.items():
        reply = process.store.execute(Read("p", "user", user, defaults=LIMIT))
        assert isinstance(reply, Accounts)
        assert sum(state.spent for state in reply.accounts) == spent
        record: dict[str, Any] = endpoint.data.get("p", {}).get(user, {})
        assert round(record.get("current_cost", 0) * 1e9) == spent
        assert not record or record.get("default", False) is (user not in process.limited)
        if user in process.limited:
            assert round(record["total_budget"] * 1e9) == reply.accounts[0].limit
