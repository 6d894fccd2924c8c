"""Checks of a command before it is applied: they reject values out of range, also from hostile clients."""

from __future__ import annotations

from functools import lru_cache

from litellm_budget_plugin.core.accounts import UNITS, Amounts, Default, alias_mark, command_mark
from litellm_budget_plugin.core.commands import KEEP, Command, PutBudget, Read, Release, Renew, Reserve, Settle, Sweep
from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError


def check(command: Command) -> None:
    """Raise BudgetInputError, naming the field, unless every amount and time of the command is within its range."""
    if isinstance(command, (Reserve, Settle, Release)):
        _hold_id(command.hold, command, "hold")
    if isinstance(command, Reserve):
        _check_reserve(command)
    elif isinstance(command, Settle):
        _hold_id(command.parent, command, "parent")
        _amount(command.cost, "Settle.cost")
        _amount(command.input_tokens, "Settle.input_tokens")
        _amount(command.output_tokens, "Settle.output_tokens")
        _amount(command.calls, "Settle.calls")
        _defaults(command.defaults)
    elif isinstance(command, Renew):
        for hold in command.holds:
            _hold_id(hold, command, "holds")
        _lifetime(command.expires_after, "Renew.expires_after")
    elif isinstance(command, PutBudget):
        _check_put(command)
    elif isinstance(command, Read):
        _defaults(command.defaults)
        if command.page < 1:
            raise BudgetInputError(f"Read.page must be at least 1, got {command.page}")
    elif isinstance(command, Sweep) and (command.marks_kept < 0 or command.days_kept < 0):
        raise BudgetInputError("Sweep.marks_kept and Sweep.days_kept must not be negative")


_MARKS = (command_mark(""), alias_mark(""))


def _hold_id(value: str | None, command: Command, name: str) -> None:
    # Marks of commands and of aliases lie among the holds.
    if value is not None and (not value or value.startswith(_MARKS)):
        what = f"{type(command).__name__}.{name}"
        raise BudgetInputError(
            f"{what} must not be empty, nor begin with {_MARKS[0]!r} or {_MARKS[1]!r}, got {value!r:.80}"
        )


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


def _check_put(command: PutBudget) -> None:
    if command.unit not in UNITS:
        raise BudgetInputError(f"PutBudget.unit must be one of {', '.join(UNITS)}, got {command.unit!r}")
    for name in ("limit", "raised_by", "carry_over"):
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


@lru_cache(maxsize=256)
def _defaults(defaults: tuple[Default, ...]) -> None:
    # A process sends the same ones with every command.
    if len(defaults) > 1 and len({(d.scope, d.window, d.model, d.unit) for d in defaults}) < len(defaults):
        raise BudgetInputError("defaults name one account twice")
    for default in defaults:
        if default.unit not in UNITS:
            raise BudgetInputError(
                f"the default unit of {default.scope} must be one of {', '.join(UNITS)}, got {default.unit!r}"
            )
        _amount(default.carry_over, f"the default carry-over of {default.scope}")
        if default.limit is not None:
            _amount(default.limit, f"the default limit of {default.scope}")
