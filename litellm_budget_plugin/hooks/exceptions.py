"""BudgetExceeded: the exception that tells a caller about a refusal."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import litellm

from litellm_budget_plugin.core.commands import MICROS, Refused
from litellm_budget_plugin.core.money import usd_float, usd_text
from litellm_budget_plugin.core.sentences import Limit, amount_text
from litellm_budget_plugin.core.windows import CREDIT
from litellm_budget_plugin.errors import BudgetRefused

_LONGEST = 80
"""The most characters of an id or of a model's name that a message shows."""


class WaysOut(NamedTuple):
    """Ways to make a call smaller that states no output limit."""

    tokens: int
    """The output tokens that would have been held for the call."""
    ways: tuple[str, ...] = ()
    """One sentence for each way. Lists only ways that leave a call for which there is room now."""


class BudgetExceeded(BudgetRefused, litellm.BudgetExceededError):  # type: ignore[misc]  # LiteLLM's classes are Any
    """A call was refused because a budget has no room for what it may cost. No request has left the process.

    `scope` and `subject` name the budget, `budget` is its sentence as it was set ("blocked" if the account is blocked).
    `limit`, `spent`, `held`, `requested` and `remaining` (never below 0) are USD (or calls or tokens, as `unit` says).
    `limit` is the limit that applies now; `raised` and `carried` are what a temporary raise and the previous window
    have added to it. `resets_at` is the end of the window. It is None if the window never ends, and for a blocked
    account, which a new window does not help. `reason` is "spent" if waiting for calls in flight cannot help, "held" if
    only these leave no room, "blocked" if the account is blocked. `suggestion` says in one sentence what the caller or
    the operator can do. `current_cost`, `max_budget`, `entity_type` and `entity_id` are LiteLLM's names for the same
    values. Can be pickled.
    """

    # The proxy writes this into the body of its answer, as it does for its own budgets.
    type = "budget_exceeded"

    def __init__(self, refused: Refused, model: str, ways_out: WaysOut | None = None) -> None:
        account, blocked = refused.account, refused.reason == "blocked"
        self.scope, self.subject, self.unit = account.scope, account.subject, account.unit
        self.reason = refused.reason
        self.budget = "blocked" if blocked else str(_limit(refused))
        self.model = model
        self.limit, self.spent = self._amount(refused.limit), self._amount(refused.spent)
        self.raised, self.carried = self._amount(refused.raised), self._amount(refused.carried)
        self.held, self.requested = self._amount(refused.held), self._amount(refused.requested)
        self.remaining = 0.0 if blocked else self._amount(max(0, refused.limit - refused.spent - refused.held))
        self.resets_at = None if blocked else _time(refused.resets_at)
        self._refused = refused
        self._ways_out = ways_out
        litellm.BudgetExceededError.__init__(
            self, current_cost=self.spent, max_budget=self.limit, message=_message(refused, model, ways_out)
        )
        self.suggestion = _suggestion(refused, ways_out)
        self.entity_type, self.entity_id = self.scope, self.subject
        # LiteLLM's constructor sets a configurable code, which can be 429.
        self.status_code = BudgetRefused.status_code

    def _amount(self, amount: int) -> float:
        return usd_float(amount) if self.unit == "usd" else float(amount)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._refused, self.model, self._ways_out)


def shown(name: str) -> str:
    """Return an id or a model's name as messages show it: printable and of limited length. Its text may come from
    anyone.
    """
    printable = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in name[: _LONGEST + 1])
    return printable if len(name) <= _LONGEST else f"{printable[:_LONGEST]}…"


def called(model: str) -> str:
    """Return the words that name a call in messages. An empty `model` means that the call names none."""
    return f"this {shown(model)} call" if model.strip() else "this call, which names no model,"


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else datetime.fromtimestamp(micros / MICROS, tz=timezone.utc)


def _time_text(micros: int) -> str:
    """Return a time for people, rounded up so that it is never too early."""
    seconds = -(-micros // MICROS)
    at = datetime.fromtimestamp(0, tz=timezone.utc) + timedelta(seconds=seconds)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at.second else f"{at:%Y-%m-%d %H:%M} UTC"


def _text(amount: int, unit: str) -> str:
    return f"${usd_text(amount)}" if unit == "usd" else amount_text(amount, unit)


def _limit(refused: Refused) -> Limit:
    """Return the limit as it was set."""
    account = refused.account
    own = refused.limit - refused.raised - refused.carried
    return Limit(own, account.window, account.model, account.unit)


def _budget(refused: Refused) -> str:
    account, limit = refused.account, _limit(refused)
    if account.window == CREDIT:
        said = f"a balance of {amount_text(refused.limit, account.unit)}"
    else:
        said = str(limit._replace(model=shown(limit.model)))
    added = [f"raised by {amount_text(refused.raised, account.unit)}"] if refused.raised else []
    added += [f"{amount_text(refused.carried, account.unit)} carried over"] if refused.carried else []
    return f"{said} ({', '.join(added)})" if added else said


def _message(refused: Refused, model: str, ways_out: WaysOut | None) -> str:
    account = refused.account
    who = f"{account.scope} {shown(account.subject)!r}"
    if refused.reason == "blocked":
        what = f" for {shown(account.model)}" if account.model else ""
        return f"{who} is blocked{what} by its operator; {called(model)} was not made"
    unit = account.unit
    parts = [f"{who} has spent {_text(refused.spent, unit)} of {_budget(refused)}"]
    if refused.reason == "held":
        parts[0] += f" and holds {_text(refused.held, unit)} for calls in flight"
    parts.append(f"{called(model)} may {'cost' if unit == 'usd' else 'take'} {_text(refused.requested, unit)}")
    if ways_out is not None:
        ways = f": {_any_of(ways_out.ways)}" if ways_out.ways else ""
        parts.append(f"without max_tokens, {ways_out.tokens:,} output tokens are held for it{ways}")
    if refused.reason == "held":
        parts.append("only holds of calls in flight prevent it")
    if refused.resets_at is not None:
        parts.append(f"resets {_time_text(refused.resets_at)}")
    return "; ".join(parts)


def _any_of(ways: tuple[str, ...]) -> str:
    return ways[0] if len(ways) == 1 else f"{', '.join(ways[:-1])} or {ways[-1]}"


def _suggestion(refused: Refused, ways_out: WaysOut | None) -> str:
    account = refused.account
    unit, requested = account.unit, refused.requested
    if refused.reason == "blocked":
        return "Ask the operator to lift the block: `litellm-budget unblock`, or BudgetManager.unblock."
    smaller = _any_of(ways_out.ways) if ways_out is not None and ways_out.ways else ""
    if refused.reason == "held":
        wait = "try again when the calls in flight have ended, or have calls wait for them with LITELLM_BUDGET_WAIT_FOR_HELD"
        return _sentence(f"{smaller}; or {wait}" if smaller else wait)
    if smaller:
        return _sentence(f"{smaller}, so that less is held for the call")
    missing = _text(refused.spent + max(requested, 1) - refused.limit, unit)
    if account.window == CREDIT:
        return f"Top the balance up with at least {missing}: `litellm-budget top-up`, or BudgetManager.top_up."
    raising = f"raise the limit by at least {missing}"
    if requested > refused.limit:
        less = "a cheaper model or fewer tokens" if unit == "usd" else f"fewer {unit}"
        raising = f"make the call smaller ({less}), because it alone exceeds the whole limit, or {raising}"
    elif refused.resets_at is not None:
        raising = f"wait until {_time_text(refused.resets_at)}, or {raising}"
    return _sentence(raising)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
