"""What the tests of the store over LiteLLM's protocol ask."""

from __future__ import annotations

from typing import Any

from litellm_budget_plugin.core.accounts import Default
from litellm_budget_plugin.core.commands import (
    Accounts,
    AccountState,
    PutBudget,
    Read,
)
from litellm_budget_plugin.stores.hosted.store import HostedStore
from litellm_budget_plugin.stores.protocol import ask
from tests.stores.desk import ALICE, LIMIT
from tests.stores.hosted.endpoint import Endpoint


def put(store: HostedStore, name: str, **fields: Any) -> None:
    """Change alice's budget."""
    ask(store, PutBudget(name, "p", ALICE[0], only=True, defaults=LIMIT, **fields))


def of(store: HostedStore, user: str = "alice", defaults: tuple[Default, ...] = LIMIT) -> AccountState | None:
    """A user's account, None if there is none."""
    reply = store.execute(Read("p", "user", user, defaults=defaults))
    assert isinstance(reply, Accounts)
    return reply.accounts[0] if reply.accounts else None


def record(endpoint: Endpoint, user: str = "alice") -> Any:
    """A user's record at the endpoint."""
    return endpoint.data["p"][user]
