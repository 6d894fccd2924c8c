"""Forecasts in sentences: which of a subject's budgets runs out first, and when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from litellm_budget_plugin.core.accounts import Default, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.applying import limits_on
from litellm_budget_plugin.core.commands import MICROS, AccountState
from litellm_budget_plugin.core.forecast import HISTORY_DAYS, by_day, runs_out
from litellm_budget_plugin.core.sentences import Limit, amount_text
from litellm_budget_plugin.core.windows import CREDIT, DAY, ENDLESS, bounds, parse_window


class Forecast(NamedTuple):
    """A budget that runs out before its window ends, at the rate of the last days. `budget` is its sentence, and `sentence` is the whole
    forecast: "at this rate $10 per month runs out on 2026-12-19".
    """

    budget: str
    runs_out_at: datetime
    sentence: str


class RunOut(NamedTuple):
    """The account that runs out first, and the time in microseconds. `state` is None for an account that does not exist yet."""

    at: int
    ref: Ref
    limit: int
    state: AccountState | None


def first_day(now: int) -> int:
    """Return the first day whose totals a forecast uses, in days since 1970. `now` is in microseconds."""
    return now // DAY - HISTORY_DAYS


def first_run_out(
    subject: Subject,
    states: Sequence[AccountState],
    defaults: tuple[Default, ...],
    rows: Sequence[tuple[UsageKey, Usage]],
    now: int,
) -> RunOut | None:
    """Return the budget of a subject that runs out first, before its window ends; None if there is none, or too little history. `rows` are
    the subject's totals since `first_day`. A blocked account has no forecast.
    """
    found = []
    for ref, limit, state in limits_on(subject, states, None, defaults):
        if limit is None or (state is not None and state.blocked):
            continue
        days = by_day(rows, ref)
        if state is not None and not state.ended:
            used, start, end = state.spent + state.held, state.start, state.end
        elif parse_window(ref.window).period:
            # The next call opens the window, and it begins with the spend in the totals by day.
            start, end = bounds(parse_window(ref.window), now)
            used = sum(max(0, amount) for day, amount in days.items() if day * DAY >= start)
        elif ref.window in ENDLESS:
            used, start, end = 0, now, None
        else:
            continue
        at = runs_out(days, used, limit, start, end, now)
        if at is not None:
            found.append(RunOut(at, ref, limit, state))
    return min(found, key=lambda each: each[:2], default=None)


def as_forecast(found: RunOut | None, zone: str) -> Forecast | None:
    """Return a forecast in words; None if there is none. `zone` applies to windows that name no time zone."""
    if found is None:
        return None
    budget = budget_text(found.ref, found.limit, zone)
    at = datetime.fromtimestamp(found.at / MICROS, tz=timezone.utc)
    return Forecast(budget, at, f"at this rate {budget} runs out on {at.date().isoformat()}")


def budget_text(ref: Ref, limit: int, zone: str) -> str:
    """Return a budget as a sentence. `limit` includes raises and amounts that were carried over or paid."""
    if ref.window == CREDIT:
        return f"a balance of {amount_text(limit, ref.unit)}"
    return Limit(limit, ref.window, ref.model, ref.unit).sentence(zone)
