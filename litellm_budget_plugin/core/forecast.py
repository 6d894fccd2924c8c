"""Forecasts of when a budget runs out at the present rate, from the totals of the last days and the amounts spent and held now.

A forecast needs three UTC days of history: the day of the first use does not count, because use may have begun a minute before
its end, and two whole days must follow it. One burst is no rate: there must be spend on two days. After a week, only whole
weeks count, so that it makes no difference whether a weekend has just passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from litellm_budget_plugin.core.accounts import Ref, Usage, UsageKey
from litellm_budget_plugin.core.holding import charge_of
from litellm_budget_plugin.core.models import covers_any
from litellm_budget_plugin.core.windows import DAY

HISTORY_DAYS = 28
"""The days before today that a forecast looks at."""
_WHOLE_DAYS, _DAYS_WITH_SPEND = 2, 2
_SHORTEST = DAY * 23 // 24
"""The length of a day on which clocks are put forward. Shorter windows have no forecast: daily totals say nothing about them."""
_HORIZON = 3650 * DAY


def by_day(rows: Iterable[tuple[UsageKey, Usage]], ref: Ref) -> dict[int, int]:
    """The amounts charged on each UTC day, in an account's unit and for the models that it covers."""
    found: dict[int, int] = {}
    for key, usage in rows:
        if key.day and covers_any(ref.model, (key.model,)):
            amount = charge_of(usage.spent, usage.calls, usage.input_tokens, usage.output_tokens).of(ref.unit)
            found[key.day] = found.get(key.day, 0) + amount
    return found


def daily_rate(days: Mapping[int, int], now: int) -> tuple[int, int] | None:
    """The present rate of spending, as an amount and a time in microseconds; None without enough history. `days` are
    the totals of the HISTORY_DAYS days before today, and of today.
    """
    today = now // DAY
    used = [day for day, amount in days.items() if amount > 0 and today - HISTORY_DAYS <= day <= today]
    if not used:
        return None
    oldest = today - HISTORY_DAYS
    first = max(oldest, min(used) + (min(used) > oldest))
    whole = today - first
    if whole < _WHOLE_DAYS:
        return None
    if whole >= 7:
        first = today - whole // 7 * 7
    if sum(first <= day for day in used) < _DAYS_WITH_SPEND:
        return None
    amount = sum(max(0, spent) for day, spent in days.items() if first <= day <= today)
    return amount, now - first * DAY


def runs_out(
    days: Mapping[int, int], used: int, limit: int | None, start: int, end: int | None, now: int
) -> int | None:
    """The time (microseconds) at which a limit is used up at the present rate. None if it lasts until the window's
    `end` (without one, for ten years), or if there is no forecast. `used` is the amount spent and held. For a limit
    that is already used up, the time is `now`.
    """
    if limit is None or limit <= 0 or (end is not None and (end - start < _SHORTEST or end <= now)):
        return None
    if used >= limit:
        return now
    rate = daily_rate(days, now)
    if rate is None:
        return None
    amount, time = rate
    at = now + -(-(limit - used) * time // amount)
    return None if at >= (now + _HORIZON if end is None else end) else at
