"""The commands that the tests of stores send, for one user with one limit, and readers of both."""

from __future__ import annotations

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import Accounts, AccountState, Read, ReadUsage, Reserve, Settle, UsageRows
from litellm_budget_plugin.stores.protocol import Store

ALICE = (Subject("user", "alice"),)
LIMIT = (Default("user", "none", 1000),)
MINUTE = 60_000_000


def hold_of(hold: str, usd: int = 10, floor: int = 0, now: int | None = None) -> Reserve:
    """A hold of `usd` nano-dollars of alice's 1000, for a minute."""
    return Reserve(hold, "p", ALICE, ("m",), Amounts(usd), MINUTE, LIMIT, floor=Amounts(floor), now=now)


def charge_of(hold: str, usd: int = 10, now: int | None = None) -> Settle:
    """A charge of `usd` nano-dollars to alice."""
    return Settle(hold, "p", ALICE, ("m",), usd, "m", defaults=LIMIT, now=now)


def account_of(store: Store, now: int | None = None) -> AccountState:
    """Alice's account."""
    reply = store.execute(Read("p", "user", "alice", defaults=LIMIT, now=now))
    assert isinstance(reply, Accounts)
    return reply.accounts[0]


def calls_of(store: Store) -> int:
    """The number of calls in alice's totals."""
    reply = store.execute(ReadUsage("p", "user", "alice"))
    assert isinstance(reply, UsageRows)
    return sum(usage.calls for _, usage in reply.rows)
