"""The Reserve and the Settle of one call, as the callback sends them."""

from __future__ import annotations

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import Granted, Reserve, Settle, Settled
from litellm_budget_plugin.stores.protocol import Store, ask

PROJECT = "benchmark"
MODEL = "gpt-4o"
MODELS = ("openai/gpt-4o", "gpt-4o", "openai/*")
DEFAULTS = (Default("user", "none", 1_000_000_000_000),)
WANT = 41_000_000
COST = 12_500_000
TTL = 120_000_000


def reserve(store: Store, hold: str, user: str) -> None:
    """Hold WANT for a user. The store must grant it."""
    command = Reserve(
        hold=hold,
        project=PROJECT,
        subjects=(Subject("user", user),),
        models=MODELS,
        want=Amounts(WANT, 1, 5000),
        expires_after=TTL,
        defaults=DEFAULTS,
        floor=Amounts(1_000_000, 1, 100),
        cheap=True,
    )
    reply = ask(store, command)
    assert isinstance(reply, Granted), reply


def settle(store: Store, hold: str, user: str) -> None:
    """Charge COST, close the hold, and write the response's mark."""
    command = Settle(
        hold=hold,
        project=PROJECT,
        subjects=(Subject("user", user),),
        models=MODELS,
        cost=COST,
        model=MODEL,
        input_tokens=1000,
        output_tokens=1000,
        defaults=DEFAULTS,
        aliases=(f"response:{hold}:{user}",),
    )
    reply = ask(store, command)
    assert isinstance(reply, Settled), reply
