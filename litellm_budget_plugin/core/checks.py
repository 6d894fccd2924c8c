"""Checks of a command before it is applied: they keep nonsense, and hostile clients, off the ledger."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from litellm_budget_plugin.core.accounts import UNITS, Amounts, Default, alias_mark, command_mark, top_up_mark
from litellm_budget_plugin.core.commands import (
    KEEP,
    Command,
    PutBudget,
    Read,
    Renew,
    Reserve,
    SetLimits,
    Settle,
    Sweep,
    TopUp,
)
from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.windows import CREDIT, DAY
from litellm_budget_plugin.errors import BudgetInputError


def check(command: Command) -> None:
    """Raise BudgetInputError, naming the field, unless every amount and time of the command is within its range."""
    hold = getattr(command, "hold", None)
    if hold is not None:
        _hold_id(hold, command, "hold")
    _CHECKS.get(type(command), _nothing)(command)


def _nothing(command: Command) -> None:
    """Accept every value of its fields."""


def _hold_id(value: str | None, command: Command, name: str) -> None:
    # The marks of commands, aliases and top-ups are stored among the holds.
    if value is not None and (not value or value.startswith(_MARKS)):
        raise BudgetInputError(
            f"{type(command).__name__}.{name} must not be empty, nor begin with {' or '.join(map(repr, _MARKS))}, got {value!r:.80}"
        )


_MARKS = (command_mark(""), alias_mark(""), top_up_mark(""))


def _check_reserve(command: Reserve) -> None:
    _hold_id(command.replaces, command, "replaces")
    _amounts(command.want, "Reserve.want")
    _amounts(command.floor, "Reserve.floor")
    _lifetime(command.expires_after, "Reserve.expires_after")
    _defaults(command.defaults)
    if command.at_least is not None and not 0 <= command.at_least <= command.want.usd:
        raise BudgetInputError(f"Reserve.at_least must be from 0 to want.usd, got {command.at_least}")
    if command.replaces == command.hold:
        raise BudgetInputError("Reserve.replaces must name another hold than this one")


def _check_settle(command: Settle) -> None:
    _hold_id(command.parent, command, "parent")
    _amount(command.cost, "Settle.cost")
    _amount(command.input_tokens, "Settle.input_tokens")
    _amount(command.output_tokens, "Settle.output_tokens")
    _amount(command.calls, "Settle.calls")
    _defaults(command.defaults)


def _check_renew(command: Renew) -> None:
    for hold in command.holds:
        _hold_id(hold, command, "holds")
    _lifetime(command.expires_after, "Renew.expires_after")


def _check_top_up(command: TopUp) -> None:
    _amount(command.amount, "TopUp.amount")
    checked_id(command.id, "TopUp.id")


def _check_read(command: Read) -> None:
    _defaults(command.defaults)
    if command.page < 1:
        raise BudgetInputError(f"Read.page must be at least 1, got {command.page}")


def _check_sweep(command: Sweep) -> None:
    if command.marks_kept < 0 or command.days_kept < 0:
        raise BudgetInputError("Sweep.marks_kept and Sweep.days_kept must not be negative")


def _check_put(command: PutBudget) -> None:
    if command.model == "*":
        raise BudgetInputError("PutBudget.model is \"\" for every model, not '*'")
    if command.unit not in UNITS:
        raise BudgetInputError(f"PutBudget.unit must be one of {', '.join(UNITS)}, got {command.unit!r}")
    for name in ("limit", "raised_by", "raised_until", "carry_over"):
        value = getattr(command, name)
        if value is not KEEP and value is not None:
            _amount(value, f"PutBudget.{name}")
    if command.bounds is not KEEP and command.bounds[1] is not None and command.bounds[0] >= command.bounds[1]:
        raise BudgetInputError("PutBudget.bounds must begin before they end")
    if command.spent is not KEEP:
        _amount(sum(amount for _, amount in command.spent), "PutBudget.spent")
        for model, amount in command.spent:
            _amount(amount, f"PutBudget.spent of {model!r:.80}")
        if len({model for model, _ in command.spent}) < len(command.spent):
            raise BudgetInputError("PutBudget.spent names a model twice")
    _defaults(command.defaults)


def _check_limits(command: SetLimits) -> None:
    for limit in command.limits or ():
        if limit.unit not in UNITS or limit.model == "*" or (limit.window == CREDIT and limit[::2] != (0, "")):
            raise BudgetInputError(f"SetLimits.limits has {tuple(limit)!r:.200}, which is not a limit")
        if limit.amount is not None:
            _amount(limit.amount, "SetLimits.limits")
    if len({limit[1:] for limit in command.limits or ()}) < len(command.limits or ()):
        raise BudgetInputError("SetLimits.limits name one account twice")
    _defaults(command.defaults)


def _amounts(amounts: Amounts, what: str) -> None:
    if min(amounts) < 0 or max(amounts) > MAX_NANOS:
        for unit, value in zip(UNITS, amounts):
            _amount(value, f"{what}.{unit}")


def _amount(value: int, what: str) -> None:
    if not 0 <= value <= MAX_NANOS:
        raise BudgetInputError(f"{what} must be from 0 to {MAX_NANOS}, got {value}")


def _lifetime(value: int, what: str) -> None:
    if not 0 < value <= DAY:
        raise BudgetInputError(f"{what} must be more than 0 and at most a day (in microseconds), got {value}")


@lru_cache(maxsize=4096)
def _defaults(defaults: tuple[Default, ...]) -> None:
    # Cached, because a process sends the same defaults every time.
    if len(defaults) > 1 and len({(d.scope, d.subject, d.window, d.model, d.unit) for d in defaults}) < len(defaults):
        raise BudgetInputError("defaults name one account twice")
    for default in defaults:
        if default.unit not in UNITS:
            raise BudgetInputError(
                f"the default unit of {default.scope} must be one of {', '.join(UNITS)}, got {default.unit!r}"
            )
        _amount(default.carry_over, f"the default carry-over of {default.scope}")
        if default.limit is not None:
            _amount(default.limit, f"the default limit of {default.scope}")


_CHECKS: dict[type, Callable[[Any], None]] = {
    Reserve: _check_reserve,
    Settle: _check_settle,
    Renew: _check_renew,
    PutBudget: _check_put,
    SetLimits: _check_limits,
    TopUp: _check_top_up,
    Read: _check_read,
    Sweep: _check_sweep,
}
