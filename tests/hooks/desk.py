"""A test's view of the ledger behind a callback."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import litellm

from litellm_budget_plugin import BudgetCallback
from litellm_budget_plugin.core.accounts import Amounts, Subject, Usage
from litellm_budget_plugin.core.commands import (
    Accounts,
    AccountState,
    Granted,
    Read,
    ReadUsage,
    Release,
    Reserve,
    UsageRows,
)
from litellm_budget_plugin.hooks.call import Call
from litellm_budget_plugin.manager.ids import new_id

CHAT = "openai/gate-chat"
OTHER = "openai/gate-other"
EMBED = "openai/gate-embed"
INPUT = "openai/gate-input"
TEXT = "text-completion-openai/gate-text"
DEAR = "openai/gate-dear"
CHEAP = "openai/gate-cheap"

# Nano-dollars per (input token, output token).
PRICES = {
    "gate-chat": (0, 12_500),
    "gate-other": (0, 2_500),
    "gate-embed": (12_500, 0),
    "gate-input": (1_000, 0),
    "gate-text": (0, 12_500),
    "gate-dear": (1_000, 12_500),
    "gate-cheap": (500, 2_500),
}
WORTH = 12_500_000
"""The cost of each call of `arguments`, at most and in fact: $0.0125."""


def register_prices() -> None:
    """Register the test models' prices in LiteLLM."""
    modes = {"gate-embed": ("openai", "embedding"), "gate-text": ("text-completion-openai", "completion")}
    for name, (per_input, per_output) in PRICES.items():
        provider, mode = modes.get(name, ("openai", "chat"))
        entry = {
            "input_cost_per_token": per_input / 1e9,
            "output_cost_per_token": per_output / 1e9,
            "litellm_provider": provider,
            "mode": mode,
            "max_tokens": 4096,
        }
        litellm.register_model({f"{provider}/{name}": entry})


class Desk:
    """A registered callback, and the arguments of a call that is worth exactly WORTH."""

    def __init__(self, callback: BudgetCallback, url: str) -> None:
        self.callback = callback
        self.url = url

    def arguments(self, user: str, **more: Any) -> dict[str, Any]:
        """Return the keyword arguments of a chat call by `user`."""
        return {
            "model": CHAT,
            "messages": [{"role": "user", "content": "x"}],
            "max_tokens": 1000,
            "api_base": self.url,
            "api_key": "sk-test",
            "user": user,
            "max_retries": 0,
            **more,
        }

    def embedding(self, user: str, **more: Any) -> dict[str, Any]:
        """Return the keyword arguments of an embedding call by `user`: a thousand tokens, counted exactly."""
        arguments = self.arguments(user, model=EMBED, input=[1] * 1000)
        del arguments["messages"], arguments["max_tokens"]
        return {**arguments, **more}

    def text(self, user: str, **more: Any) -> dict[str, Any]:
        """Return the keyword arguments of a text completion by `user`."""
        arguments = self.arguments(user, model=TEXT, prompt="x")
        del arguments["messages"]
        return {**arguments, **more}

    def state(self, user: str) -> AccountState | None:
        """Return the user's account."""
        ledger = self.callback.budget_ledger
        assert ledger is not None
        reply = ledger.ask(Read(ledger.project, "user", user, defaults=ledger.defaults))
        assert isinstance(reply, Accounts)
        return reply.accounts[0] if reply.accounts else None

    def spent(self, user: str) -> int:
        """Return the nano-dollars that were spent, according to the ledger."""
        state = self.state(user)
        return state.spent if state else 0

    def held(self, user: str) -> int:
        """Return the nano-dollars that are held."""
        state = self.state(user)
        return state.held if state else 0

    def hold(self, user: str, nanos: int = WORTH) -> Callable[[], None]:
        """Hold money as a call in flight of this process does. The returned function releases it."""
        ledger, subject, hold = self.callback._ledger, Subject("user", user), new_id()
        want = Amounts(nanos, 1, 1)
        reply = ledger.reserve(Reserve(hold, ledger.project, (subject,), (), want, 600_000_000, ledger.defaults))
        assert isinstance(reply, Granted)

        def release() -> None:
            ledger.deliver(Release(hold, ledger.project))
            ledger.waiting_line.freed([subject])

        return release

    @property
    def waiting(self) -> int:
        """Return the number of calls that wait for money of calls in flight."""
        return len(self.callback._ledger.waiting_line)

    def usage(self, user: str) -> Usage:
        """Return the user's totals."""
        ledger = self.callback.budget_ledger
        assert ledger is not None
        reply = ledger.ask(ReadUsage(ledger.project, "user", user))
        assert isinstance(reply, UsageRows)
        total = Usage()
        for _, usage in reply.rows:
            total = total.plus(usage)
        return total

    def calm_slices(self, user: str) -> int:
        """Do what `calm` does, after releasing the money that is held in advance."""
        ledger = self.callback.budget_ledger
        assert ledger is not None and ledger._slices is not None
        ledger._slices.retire()
        return self.calm(user)

    def calm(self, user: str) -> int:
        """Flush until nothing is held, which must happen, and return what was spent by then.

        Garbage is collected only while something is held. A dropped call is settled when its objects are freed, and
        collecting all objects of LiteLLM takes longer than most tests.
        """
        deadline = time.monotonic() + 20
        while True:
            self.callback.flush()
            if not self.held(user):
                return self.spent(user)
            assert time.monotonic() < deadline, f"{user} still holds {self.held(user)}, by {kept(user)}"
            gc.collect()
            # LiteLLM's own threads release a call a moment after its end.
            threading.Event().wait(0.01)


def kept(user: str) -> list[str]:
    """Return the calls of a user that have not ended, and the objects that refer to each, level by level."""
    found = []
    for call in [each for each in gc.get_objects() if isinstance(each, Call) and each.user == user and not each.over]:
        level: list[Any] = [call]
        seen = {id(level), id(call), id(sys._getframe())}
        for depth in range(8):
            referring = [each for each in gc.get_referrers(*level) if id(each) not in seen]
            found += [f"{depth}: {type(each).__qualname__} {each!r:.120}" for each in referring[:12]]
            level = referring[:12]
            seen.update(map(id, (referring, level, *referring)))
    return found


def forty_at_once(desk: Desk, user: str) -> list[Any]:
    """Return the results of forty calls that began on one loop at the same moment."""

    async def all_of_them() -> list[Any]:
        calls = [litellm.acompletion(**desk.arguments(user)) for _ in range(40)]
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(all_of_them())
