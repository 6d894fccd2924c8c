"""BudgetExceeded: how a refusal reaches the caller."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import litellm

from litellm_budget_plugin.core.accounts import Ref
from litellm_budget_plugin.core.commands import MICROS, Refused
from litellm_budget_plugin.core.money import usd_float, usd_text
from litellm_budget_plugin.core.sentences import Limit, amount_text
from litellm_budget_plugin.core.windows import CREDIT
from litellm_budget_plugin.errors import BudgetRefused


class BudgetExceeded(BudgetRefused, litellm.BudgetExceededError):  # type: ignore[misc]  # LiteLLM's classes are Any
    """A call was refused, because a budget has no room for what it may cost. No request has left the process.

    `scope` and `subject` name the budget. `limit`, `spent`, `held`, `requested` and `remaining` (never below 0) are USD (or calls or tokens, as `unit`
    says); `budget` is its sentence, with what was raised or carried over; `resets_at` is when the window ends, None if never. `reason` is
    "spent" if waiting for calls in flight cannot help, "held" if only they stand in the way, "blocked" if the account is blocked.
    `current_cost`, `max_budget`, `entity_type` and `entity_id` are LiteLLM's names for the same. Can be pickled.
    """

    # The proxy writes this into the body of its answer, as it does for its own budgets.
    type = "budget_exceeded"

    def __init__(self, refused: Refused, model: str) -> None:
        account = refused.account
        self.scope, self.subject, self.unit = account.scope, account.subject, account.unit
        self.reason = refused.reason
        self.budget = str(Limit(refused.limit, account.window, account.model, account.unit))
        self.model = model
        self.limit, self.spent = self._amount(refused.limit), self._amount(refused.spent)
        self.held, self.requested = self._amount(refused.held), self._amount(refused.requested)
        self.remaining = self._amount(max(0, refused.limit - refused.spent - refused.held))
        self.resets_at = _time(refused.resets_at)
        self._refused = refused
        litellm.BudgetExceededError.__init__(
            self, current_cost=self.spent, max_budget=self.limit, message=_message(refused, model)
        )
        self.entity_type, self.entity_id = self.scope, self.subject
        # LiteLLM's constructor sets a configurable code, which can be 429.
        self.status_code = BudgetRefused.status_code

    def _amount(self, amount: int) -> float:
        return usd_float(amount) if self.unit == "usd" else float(amount)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._refused, self.model)


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else datetime.fromtimestamp(micros / MICROS, tz=timezone.utc)


def _text(amount: int, unit: str) -> str:
    return f"${usd_text(amount)}" if unit == "usd" else amount_text(amount, unit)


def _budget(account: Ref, limit: int) -> str:
    if account.window == CREDIT:
        return f"a balance of {amount_text(limit, account.unit)}"
    return str(Limit(limit, account.window, account.model, account.unit))


def _message(refused: Refused, model: str) -> str:
    account = refused.account
    who = f"{account.scope} {account.subject!r}"
    if refused.reason == "blocked":
        return f"{who} is blocked"
    unit = account.unit
    parts = [f"{who} has spent {_text(refused.spent, unit)} of {_budget(account, refused.limit)}"]
    if refused.reason == "held":
        parts[0] += f" and holds {_text(refused.held, unit)} for calls in flight"
    parts.append(f"this {model} call may cost {_text(refused.requested, unit)}")
    if refused.reason == "held":
        parts.append("only calls in flight stand in the way")
    resets_at = _time(refused.resets_at)
    if resets_at is not None:
        parts.append(f"resets {resets_at:%Y-%m-%d %H:%M} UTC")
    return "; ".join(parts)
