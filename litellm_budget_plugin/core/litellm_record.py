"""LiteLLM's record of a user, and its meaning for the ledger. Pure: no store, no clock.

    {"total_budget": 10.0,                                  always; Infinity: explicitly unlimited
     "duration": 7, "created_at": …, "last_updated_at": …,  only if the budget has a window: days, and seconds since 1970
     "window": "month@Europe/Berlin",                       only if whole days cannot express the window
     "current_cost": 0.5, "model_cost": {"gpt-4o": 0.5}}    only once something was spent or reset

All keys but "window" are LiteLLM's, and LiteLLM keeps "window" when it reads and writes the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin.core.accounts import Default
from litellm_budget_plugin.core.commands import MICROS, AccountState
from litellm_budget_plugin.core.money import MAX_NANOS, charge_nanos, usd_float
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.windows import DAY, bounds, parse_window
from litellm_budget_plugin.errors import BudgetInputError

UNASSIGNED = "unassigned"
"""The key in `model_cost` for spend without a model."""

KEYS = ("total_budget", "duration", "window", "created_at", "last_updated_at", "current_cost", "model_cost")

FOLLOWS = "default"
"""A key of records that are exchanged in LiteLLM's protocol: true for a user without a limit of their own. The reader applies its
default. LiteLLM keeps the key.
"""

LEDGER = "ledger"
"""A key that version 0.1.0 kept in such records. It is dropped."""

# A float of millions of dollars is not exact to a nano-dollar.
UNLIMITED = charge_nanos(usd_float(MAX_NANOS))
"""The limit (nano-dollars) that means unlimited in exchanged records: JSON has no Infinity."""

_WHOLE_DAYS = re.compile(r"[0-9]+d")
_LATEST = 9_000_000_000
"""The latest time accepted, in seconds since 1970 (the year 2255): up to it, microseconds are exact in a double."""


def record_of(state: AccountState, default: Default) -> dict[str, Any]:
    """LiteLLM's record of an account. Accounts without a limit of their own follow `default`."""
    limit = state.own_limit if state.pinned else default.limit
    record = _budget(limit, state.ref.window, state.created_at, state.start, state.end)
    if state.spent or state.ended or state.epoch:
        record["current_cost"] = usd_float(state.spent)
        record["model_cost"] = {model: usd_float(spent) for model, spent in state.models}
    return record


def exchanged_record(record: dict[str, Any], *, follows: bool) -> dict[str, Any]:
    """The record as it is exchanged in LiteLLM's protocol. `follows` says that its user has no limit of their own."""
    finite = {**record, "total_budget": min(record["total_budget"], usd_float(MAX_NANOS))}
    return {**finite, FOLLOWS: True} if follows else finite


def unopened_record(default: Default, now: int) -> dict[str, Any]:
    """The record of a user without an account: only the default applies, and nothing is spent yet."""
    start, end = bounds(parse_window(default.window), now)
    return _budget(default.limit, default.window, start, start, end)


def _budget(limit: int | None, window: str, created_at: int, start: int, end: int | None) -> dict[str, Any]:
    record: dict[str, Any] = {"total_budget": math.inf if limit is None else usd_float(limit)}
    if end is not None:
        days = (parse_window(window).length or end - start) / DAY
        record["duration"] = int(days) if days.is_integer() else days
        if not _WHOLE_DAYS.fullmatch(window):
            record["window"] = window
        record["created_at"] = created_at / MICROS
        record["last_updated_at"] = start / MICROS
    return record


def changes(given: Mapping[str, Any], state: AccountState | None, window: str, now: int, zone: str) -> dict[str, Any]:
    """The fields of a `PutBudget` that puts the keys of `given` into a record, and leaves everything else unchanged.

    `state` is the account, if it exists, and `window` its window. Fields that would change nothing are left out. Raises
    BudgetInputError, naming the key.
    """
    unknown = [key for key in given if key not in KEYS]
    if unknown:
        raise BudgetInputError(
            f"{unknown[0]!r:.80} is not a key of a budget; accepted are {', '.join(KEYS)}. Keep other data elsewhere"
        )
    fields: dict[str, Any] = {}
    if "total_budget" in given:
        fields["limit"] = _limit(given["total_budget"])
    if "created_at" in given:
        fields["created_at"] = micros(given["created_at"], "created_at")
    if "duration" in given or "window" in given:
        fields["window"] = window = _window(given, zone)
    if "last_updated_at" in given:
        fields["bounds"] = span(window, micros(given["last_updated_at"], "last_updated_at"))
    elif "window" in fields and (state is None or state.ref.window != window):
        # As in LiteLLM, another duration counts from the start of the window; the spend stays in the window that runs now.
        start = fields.get("created_at", now) if state is None or state.end is None else state.start
        fields["bounds"] = running(window, start, now)
    if "current_cost" in given or "model_cost" in given:
        recorded = state.models if state is not None else ()
        spent = _spent(given, recorded)
        if spent != recorded or "current_cost" in given or (state is not None and state.ended):
            fields["spent"] = spent
    return fields


def opening(state: AccountState | None, window: str, created: int | None, now: int) -> dict[str, Any]:
    """The fields of a `PutBudget` that open the window of a budget being created; none if no window must be opened.

    An existing account keeps its spend. It also keeps its window if the window is the same and no time of creation is given.
    """
    if state is not None and state.ref.window == window and created is None:
        return {}
    first = now if created is None else created
    if state is None or not state.spent:
        bounds_now = span(window, first)
    else:
        # The spend is kept, so the window must be the one that runs now, however long ago the first one began.
        bounds_now = running(window, first, now)
    fields: dict[str, Any] = {"created_at": first, "bounds": bounds_now}
    # Moving the bounds of a window that has ended would bring its spend back.
    return {**fields, "spent": ()} if state is not None and state.ended else fields


def whole_record(record: Any) -> dict[str, Any]:
    """A record that replaces another: missing keys are reset. Raises BudgetInputError if it is not a record."""
    if not isinstance(record, Mapping):
        raise BudgetInputError(f"a user's record must be a dictionary, got {type(record).__name__} {record!r:.80}")
    if "total_budget" not in record:
        raise BudgetInputError("a user's record must have a total_budget")
    return {"duration": None, "model_cost": {}, **record}


def span(window: str, start: int) -> tuple[int, int | None]:
    """The bounds of the window that begins at `start`; for a calendar window, of the period that contains `start`."""
    parsed = parse_window(window)
    return (start, start + parsed.length) if parsed.length else bounds(parsed, start, start)


def running(window: str, start: int, now: int) -> tuple[int, int | None]:
    """The bounds of the window that runs now, if the first window began, or will begin, at `start`."""
    return (
        span(window, start) if start > now and parse_window(window).length else bounds(parse_window(window), now, start)
    )


def micros(seconds: Any, what: str) -> int:
    """Seconds since 1970 as microseconds. Raises BudgetInputError, naming `what`."""
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds <= _LATEST:
        return round(seconds * MICROS)
    raise BudgetInputError(f"{what} must be seconds since 1970, from 0 to {_LATEST}, got {seconds!r:.80}")


def assigned(model: str, spent: Any, models: Mapping[str, Any]) -> dict[str, float]:
    """`models` with the spend on `model` set to `spent`. An increase is taken out of `UNASSIGNED` first."""
    amounts = {name: charge_nanos(usd, f"model_cost of {name!r:.80}") for name, usd in models.items()}
    before, after = amounts.get(model, 0), charge_nanos(spent, f"model_cost of {model!r:.80}")
    unassigned = amounts.pop(UNASSIGNED, 0)
    # LiteLLM's own update writes current_cost and then model_cost: together they must count once.
    rest = unassigned if model == UNASSIGNED else unassigned - min(unassigned, max(0, after - before))
    if rest:
        amounts[UNASSIGNED] = rest
    amounts[model] = after
    return {name: usd_float(nanos) for name, nanos in amounts.items()}


def _limit(total_budget: Any) -> int | None:
    return None if total_budget == math.inf else charge_nanos(total_budget, "total_budget")


def _window(given: Mapping[str, Any], zone: str) -> str:
    if given.get("window") is not None:
        if not isinstance(given["window"], str):
            raise BudgetInputError(f"window must be text like '12h' or 'month', got {given['window']!r:.80}")
        return parse_window(given["window"], zone).text
    days = given.get("duration")
    if days is None:
        return "none"
    number = isinstance(days, (int, float)) and not isinstance(days, bool)
    # Compared before rounding: an integer may be too large for a float.
    if not number or not 0 < days <= 36_600 or round(days * 86_400) < 1:
        raise BudgetInputError(f"duration must be a number of days, from one second to 100 years, got {days!r:.80}")
    whole, rest = divmod(round(days * 86_400), 86_400)
    return f"{whole * 86_400 + rest}s" if rest else f"{whole}d"


def _spent(given: Mapping[str, Any], recorded: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    models = dict(recorded)
    if "model_cost" in given:
        if not isinstance(given["model_cost"], Mapping):
            raise BudgetInputError(
                f"model_cost must be a dictionary of US dollars by model, got {given['model_cost']!r:.80}"
            )
        models = {
            checked_id(model, "a model in model_cost"): charge_nanos(usd, f"model_cost of {model!r:.80}")
            for model, usd in given["model_cost"].items()
        }
    if "current_cost" in given:
        _add_up_to(models, charge_nanos(given["current_cost"], "current_cost"))
    if sum(models.values()) > MAX_NANOS:
        raise BudgetInputError("model_cost adds up to more than a budget can hold")
    return tuple(sorted((model, spent) for model, spent in models.items() if spent))


def _add_up_to(models: dict[str, int], total: int) -> None:
    """Make the breakdown add up to the total spend, which counts, as it does in LiteLLM."""
    rest = total - sum(models.values())
    largest = max(models, key=lambda model: models[model], default=UNASSIGNED)
    if 0 < rest <= len(models):
        # At most one nano-dollar for each model comes from rounding floats, and is not spend without a model.
        models[largest] += rest
    elif rest > 0:
        models[UNASSIGNED] = models.get(UNASSIGNED, 0) + rest
    for model in sorted(models, key=lambda model: (model != UNASSIGNED, -models[model])):
        taken = min(models[model], max(0, -rest))
        models[model] -= taken
        rest += taken
