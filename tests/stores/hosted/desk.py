"""Commands and readers for the tests of the store over LiteLLM's protocol."""

from __future__ import annotations

from typing import Any

from litellm_budget_plugin.core.accounts import Default
from litellm_budget_plugin.core.commands import Accounts, AccountState, PutBudget, Read
from litellm_budget_plugin.stores.hosted import FRESH_SECONDS, HostedStore
from litellm_budget_plugin.stores.protocol import ask
from tests.stores.desk import ALICE, LIMIT
from tests.stores.hosted.endpoint import Endpoint


def put(store: HostedStore, name: str, **fields: Any) -> None:
    """Change alice's budget."""
    ask(store, PutBudget(name, "p", ALICE[0], only=True, defaults=LIMIT, **fields))


def later(*stores: HostedStore) -> None:
    """Make the dictionaries that the stores have read too old."""
    for store in stores:
        for project in store._projects.values():
            project.read_at -= FRESH_SECONDS + 1.0


def of(
    store: HostedStore, user: str = "alice", defaults: tuple[Default, ...] = LIMIT, now: int | None = None
) -> AccountState | None:
    """A user's account, after the store has read the dictionary again; None if there is none."""
    later(store)
    reply = store.execute(Read("p", "user", user, defaults=defaults, now=now))
    assert isinstance(reply, Accounts)
    return reply.accounts[0] if reply.accounts else None


def alice(store: HostedStore, now: int | None = None) -> AccountState:
    """Alice's account, after the store has read the dictionary again."""
    state = of(store, now=now)
    assert state is not None
    return state


def record(endpoint: Endpoint, user: str = "alice") -> Any:
    """A user's record at the endpoint."""
    return endpoint.data["p"][user]
