"""Check that the gate stops a call and settles one. `check()` tests the gate that is armed in this process,
`rehearse()` arms one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import litellm

from litellm_budget_plugin.hooks import instrument
from litellm_budget_plugin.hooks.exceptions import BudgetExceeded
from litellm_budget_plugin.hooks.registration import BudgetHook, current_ledger, deregister, override_ledger, register
from litellm_budget_plugin.hooks.versions import litellm_version
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.users import Users
from litellm_budget_plugin.settings import GivenSettings

_USER = "budget-check"
_CALL: dict[str, Any] = {
    "model": "openai/budget-check",
    "messages": [{"role": "user", "content": "check"}],
    "max_tokens": 10,
    "mock_response": "checked",
    "input_cost_per_token": 0.0,
    "output_cost_per_token": 0.001,
    "litellm_metadata": {"budget_user": _USER},
    "user": _USER,
    "no-log": True,
    "cache": {"no-cache": True, "no-store": True},
}


@dataclass(frozen=True)
class Check:
    """The result of `check`. `armed` names LiteLLM's functions that the gate wraps, `missing` those that it should wrap
    but does not.

    `registered`: a BudgetCallback is open. `mode` is its mode; only "enforce" refuses calls. `blocks`: a call over
    budget was refused before it left. `settles`: a call within budget was charged, and nothing stayed held.
    """

    litellm: str
    registered: bool
    mode: str | None
    armed: tuple[str, ...]
    missing: tuple[str, ...]
    blocks: bool
    settles: bool

    @property
    def ok(self) -> bool:
        """Whether budgets hold in this process."""
        return self.mode == "enforce" and not self.missing and self.blocks and self.settles

    def __str__(self) -> str:
        lines = [
            f"LiteLLM {self.litellm}: {'budgets hold' if self.ok else 'BUDGETS DO NOT HOLD'}",
            f"  a BudgetCallback is open:       {_word(self.registered)}{f', mode {self.mode}' if self.mode else ''}",
            f"  a call over budget is refused:  {_word(self.blocks)}",
            f"  a call within budget is charged: {_word(self.settles)}",
            f"  armed: {', '.join(self.armed) or 'nothing'}",
        ]
        return "\n".join([*lines, *([f"  not armed: {', '.join(self.missing)}"] if self.missing else [])])


def _word(good: bool) -> str:
    return "yes" if good else "NO"


def check() -> Check:
    """Make one mock call that must be refused and one that must be charged, on a ledger of their own in memory.

    No request leaves, no budget of the application changes, and its other calls continue meanwhile. Never raises: the
    result says what is wrong.
    """
    armed, missing = instrument.in_place()
    ledger = current_ledger()
    return Check(
        litellm=litellm_version(),
        registered=ledger is not None,
        mode=None if ledger is None else ledger.settings.mode,
        armed=armed,
        missing=missing,
        blocks=_blocks(),
        settles=_settles(),
    )


@contextlib.contextmanager
def _trial(limit: str, hook: BudgetHook | None = None) -> Iterator[BudgetLedger]:
    """Open a ledger on which this context's calls are held: those of the open callback or, without one, those of
    `hook`.
    """
    settings = GivenSettings(
        project=f"budget-check-{new_id()}",
        store_url="memory://",
        default_limit=Decimal(limit),
        user_from="metadata",
        metrics=False,
    )
    ledger = BudgetLedger(settings)
    try:
        if hook is not None:
            hook.budget_ledger = ledger
        with override_ledger(ledger):
            yield ledger
    finally:
        if hook is not None:
            hook.budget_ledger = None
        ledger.close()


def _completion() -> None:
    litellm.completion(**_CALL)


def _acompletion() -> None:
    asyncio.run(litellm.acompletion(**_CALL))


def _stream() -> None:
    for _ in litellm.completion(**_CALL, stream=True):
        pass


def _astream() -> None:
    async def read() -> None:
        async for _ in await litellm.acompletion(**_CALL, stream=True):
            pass

    asyncio.run(read())


KINDS: dict[str, Callable[[], None]] = {
    "completion": _completion,
    "acompletion": _acompletion,
    "completion, streamed": _stream,
    "acompletion, streamed": _astream,
}
"""The kinds of calls that `rehearse` makes."""


class Rehearsal(NamedTuple):
    """The results for one kind of call: whether a call over budget was refused, and whether one within it was charged."""

    kind: str
    blocks: bool
    settles: bool


def rehearse() -> Iterator[Rehearsal]:
    """Arm a gate in this process and make two mock calls of each kind, on ledgers of their own in memory. No request
    leaves.

    For a process without a callback and without a running event loop. Raises IncompatibleLiteLLMError if the installed
    LiteLLM lacks a patch point.
    """
    instrument.instrument()
    hook = BudgetHook()
    register(hook)
    try:
        for kind, call in KINDS.items():
            yield Rehearsal(kind, _blocks(call, hook), _settles(call, hook))
    finally:
        deregister(hook)
        instrument.uninstrument()


def _blocks(call: Callable[[], None] = _completion, hook: BudgetHook | None = None) -> bool:
    with _trial("0.009", hook):
        try:
            call()
        except BudgetExceeded as refused:
            return refused.subject == _USER
        except Exception:  # noqa: BLE001  # whatever else went wrong, the gate did not stop the call
            return False
    return False


def _settles(call: Callable[[], None] = _completion, hook: BudgetHook | None = None) -> bool:
    with _trial("1", hook) as ledger:
        try:
            call()
        except Exception:  # noqa: BLE001  # a hook of other code may refuse a mock call: then nothing is shown
            return False
        ledger.flush()
        state = Users(ledger).get_any(_USER).state
        return state is not None and state.spent > 0 and state.held == 0
