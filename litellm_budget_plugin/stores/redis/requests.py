"""From a command to the run of its script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from litellm_budget_plugin.core.accounts import Default, Subject, alias_mark
from litellm_budget_plugin.core.commands import (
    KEEP,
    Command,
    DropBudget,
    PutBudget,
    Read,
    ReadUsage,
    Release,
    Renew,
    Reserve,
    Reset,
    Roll,
    Settle,
    Sweep,
)
from litellm_budget_plugin.core.names import clean_label
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.redis.scripts import Request

UNSTORABLE = (UnicodeError, PydanticSerializationError)
"""What Python raises for half a surrogate pair."""

PAGE = 500
"""How many subjects, or about how many rows of totals, one run of a script reads."""
_EXACT = 2**53


def request_for(command: Command, root: bytes, test_clock: bool) -> Request:
    """The run of a script that applies `command`. `core.checks.check` has passed it.

    Raises BudgetInputError for a text or a number that cannot be sent.
    """
    now = command.now if test_clock and command.now is not None else 0
    try:
        return _REQUESTS[type(command)](command, root, now)
    except UNSTORABLE as error:
        raise BudgetInputError(f"the command holds text that cannot be stored: {error}") from None


def _reserve(command: Reserve, root: bytes, now: int) -> Request:
    subjects, order = _subjects(command.subjects)
    models, at_least = command.models, command.at_least
    arguments = [
        command.hold, now, subjects, order, models, command.want, command.expires_after, command.floor,
        False if at_least is None else at_least, command.replaces or False,
        command.cheap, command.patient, clean_label(models[0]) if models else "", _rolls(command.rolls),
    ]  # fmt: skip
    return Request("reserve", root, to_json(arguments), _defaults(command.defaults))


def _settle(command: Settle, root: bytes, now: int) -> Request:
    subjects, order = _subjects(command.subjects)
    at = command.at
    arguments = [
        command.hold, now, subjects, order, command.models, command.cost, clean_label(command.model),
        command.input_tokens, command.output_tokens, command.calls, command.parent or False,
        [alias_mark(alias) for alias in command.aliases], alias_mark(command.unless) if command.unless else False,
        sorted(command.thresholds), False if at is None else _exact(at, "Settle.at"), _rolls(command.rolls),
    ]  # fmt: skip
    return Request("settle", root, to_json(arguments), _defaults(command.defaults))


def _release(command: Release, root: bytes, now: int) -> Request:
    return Request("release", root, to_json([command.hold, now]))


def _renew(command: Renew, root: bytes, now: int) -> Request:
    return Request("renew", root, to_json([command.holds, now, command.expires_after]))


def _put_budget(command: PutBudget, root: bytes, now: int) -> Request:
    scope, subject = command.subject
    put: dict[str, Any] = {
        "id": command.id, "now": now, "scope": scope, "subject": subject, "model": command.model, "unit": command.unit,
        "only": command.only, "rolls": _rolls(command.rolls),
    }  # fmt: skip
    for name in ("window", "limit", "blocked", "raised_by", "raised_until", "carry_over", "created_at", "spent"):
        value = getattr(command, name)
        if value is not KEEP:
            put[name] = False if value is None else value
    for name in ("raised_until", "created_at"):
        _exact(put.get(name, 0), f"PutBudget.{name}")
    if command.bounds is not KEEP:
        start, end = command.bounds
        put["bounds"] = [_exact(start, "PutBudget.bounds"), False if end is None else _exact(end, "PutBudget.bounds")]
    return Request("put_budget", root, to_json(put), _defaults(command.defaults))


def _on_budgets(script: str) -> Callable[[DropBudget | Reset, bytes, int], Request]:
    def request(command: DropBudget | Reset, root: bytes, now: int) -> Request:
        scope, subject = command.subject
        model, window = (False if value is None else value for value in (command.model, command.window))
        return Request(script, root, to_json([command.id, now, scope, subject, model, window]))

    return request


def _read(command: Read, root: bytes, now: int) -> Request:
    subject = False if command.subject is None else command.subject
    return Request("read", root, to_json([now, command.scope, subject, command.after, min(command.page, PAGE)]))


def usage_request(command: ReadUsage, root: bytes, after: str) -> Request:
    """The run that reads the totals of the subjects that follow `after`."""
    subject = False if command.subject is None else command.subject
    since, until = (max(-_EXACT, min(day, _EXACT)) for day in (command.since, command.until))
    return Request("read_usage", root, to_json([command.scope, subject, since, until, after, PAGE]))


def _sweep(command: Sweep, root: bytes, now: int) -> Request:
    kept = (min(command.marks_kept, _EXACT), min(command.days_kept, _EXACT))
    return Request("sweep", root, to_json([now, *kept]))


_REQUESTS: dict[type, Callable[[Any, bytes, int], Request]] = {
    Reserve: _reserve,
    Settle: _settle,
    Release: _release,
    Renew: _renew,
    PutBudget: _put_budget,
    DropBudget: _on_budgets("drop_budget"),
    Reset: _on_budgets("reset"),
    Read: _read,
    ReadUsage: lambda command, root, _: usage_request(command, root, ""),
    Sweep: _sweep,
}


def _subjects(subjects: tuple[Subject, ...]) -> tuple[Sequence[Subject], list[int]]:
    """Each subject once, and their places (from 1) in the order of their keys: Lua compares by the server's locale."""
    if len(subjects) == 1:
        return subjects, [1]
    distinct = tuple(dict.fromkeys(subjects))
    return distinct, [place + 1 for place in sorted(range(len(distinct)), key=distinct.__getitem__)]


def _rolls(rolls: tuple[Roll, ...]) -> list[list[Any]]:
    return [
        [*ref, *(False if time is None else _exact(time, "a roll") for time in (old_end, start, end))]
        for ref, old_end, start, end in rolls
    ]


def _exact(number: int, what: str) -> int:
    if not -_EXACT < number < _EXACT:
        raise BudgetInputError(f"{what} must be within 2**53 microseconds of 1970, got {number}")
    return number


@lru_cache(maxsize=1024)
def _defaults(defaults: tuple[Default, ...]) -> bytes:
    return to_json(
        [
            [default.scope, default.window, False if default.limit is None else default.limit, *default[3:]]
            for default in defaults
        ]
    )
