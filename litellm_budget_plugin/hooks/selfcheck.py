"""`check()`: does the gate, as it is armed in this process, stop a call and settle one?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import litellm

from litellm_budget_plugin.hooks import instrument
from litellm_budget_plugin.hooks.exceptions import BudgetExceeded
from litellm_budget_plugin.hooks.registration import current_ledger, override_ledger
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.users import Users
from litellm_budget_plugin.settings import BudgetSettings

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
    """What `check` found. `armed` and `missing` name LiteLLM's functions that the gate stands around, or should.

    `registered`: there is an open BudgetCallback; `mode` is its mode, and only "enforce" refuses anybody. `blocks`: a call that was over budget was refused before it
    left. `settles`: a call that had room was charged, and nothing stayed held.
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

    No request leaves, no budget of the application is touched, and its other calls go on meanwhile. Raises nothing: what is
    wrong is in the answer.
    """
    armed, missing = instrument.in_place()
    ledger = current_ledger()
    return Check(
        litellm=instrument.litellm_version(),
        registered=ledger is not None,
        mode=None if ledger is None else ledger.settings.mode,
        armed=armed,
        missing=missing,
        blocks=_blocks(),
        settles=_settles(),
    )


@contextlib.contextmanager
def _trial(limit: str) -> Iterator[BudgetLedger]:
    settings = BudgetSettings(
        project=f"budget-check-{new_id()}",
        store_url="memory://",
        client_type="local",
        default_limit=Decimal(limit),
        default_window="none",
        project_limit=None,
        mode="enforce",
        user_from="metadata",
        cap_output=False,
        fallback_models={},
        metrics=False,
    )
    ledger = BudgetLedger(settings)
    try:
        with override_ledger(ledger):
            yield ledger
    finally:
        ledger.close()


def _blocks() -> bool:
    with _trial("0.009"):
        try:
            litellm.completion(**_CALL)
        except BudgetExceeded as refused:
            return refused.subject == _USER
        except Exception:  # noqa: BLE001  # whatever else went wrong, the gate did not stop the call
            return False
    return False


def _settles() -> bool:
    with _trial("1") as ledger:
        try:
            litellm.completion(**_CALL)
        except Exception:  # noqa: BLE001  # somebody else's hook may refuse a mock call: then nothing is shown
            return False
        state = Users(ledger).get_any(_USER).state
        return state is not None and state.spent > 0 and state.held == 0
