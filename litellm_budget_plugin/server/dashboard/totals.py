"""The spend of the last days, by day and model, and the users who spent the most."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from litellm_budget_plugin.core.accounts import Usage, UsageKey

PERIODS = (7, 30, 90, 400)
"""The periods that a page can show, in days, today included."""
DAYS = 30
"""The default period in days. `Adding` adds up this period."""
RECENT = 2
"""The number of days, today included, that may still grow: a charge that is delivered late counts on the day of its call."""
MOST_MODELS = 100
"""The most models that are counted separately, because callers can make up names."""
OTHERS = "other models"
_TOP = 10

Rows = Iterable[tuple[UsageKey, Usage]]
ByModel = dict[str, Usage]
ByDay = dict[int, ByModel]


def summed(usages: Iterable[Usage]) -> Usage:
    """Return the sum, field by field."""
    total = Usage()
    for usage in usages:
        total = total.plus(usage)
    return total


def models_of(days: ByDay) -> list[tuple[str, Usage]]:
    """Return the totals of all days by model, most expensive first."""
    found: ByModel = {}
    for models in days.values():
        for model, usage in models.items():
            found[model] = found.get(model, Usage()).plus(usage)
    return sorted(found.items(), key=lambda item: (-item[1].spent, -item[1].calls, item[0]))


def by_day(rows: Rows) -> ByDay:
    """Return the totals of one subject by day and model."""
    days: ByDay = {}
    for key, usage in rows:
        _add(days.setdefault(key.day, {}), key.model, usage)
    return days


def refusal_rate(usage: Usage) -> float:
    """Return refused calls as a share of all calls that were asked for."""
    asked = usage.calls + usage.refusals
    return usage.refusals / asked if asked else 0.0


def _add(models: ByModel, model: str, usage: Usage) -> None:
    if model not in models and len(models) >= MOST_MODELS:
        model = OTHERS
    models[model] = models.get(model, Usage()).plus(usage)


class Adding:
    """Adds up the spend of every user from `today` back to `first`. `since` is the earliest day read so far.

    Days that may still grow are kept separately, so that reading them again replaces them.
    """

    def __init__(self, today: int) -> None:
        self.first, self.today, self.since = today - DAYS + 1, today, today + 1
        self._older: dict[str, int] = {}
        self._recent: dict[int, dict[str, int]] = {}

    @property
    def complete(self) -> bool:
        """Whether every day has been read."""
        return self.since <= self.first

    def put(self, rows: Rows, since: int, until: int) -> None:
        """Add rows of the days from `since` to `until`. They replace the known rows of RECENT days; other days may be added
        once only.
        """
        for day in range(max(since, self.today - RECENT + 1), until + 1):
            self._recent[day] = {}
        for key, usage in rows:
            if usage.spent:
                users = self._recent.get(key.day, self._older)
                users[key.subject] = users.get(key.subject, 0) + usage.spent
        self.since = min(self.since, since)

    def top(self) -> tuple[tuple[str, int], ...]:
        """Return the users who spent the most so far, most first, with nano-dollars."""
        spent = dict(self._older)
        for users in self._recent.values():
            for user, nanos in users.items():
                spent[user] = spent.get(user, 0) + nanos
        return tuple(heapq.nsmallest(_TOP, spent.items(), key=lambda item: (-item[1], item[0])))
