"""What was spent in the last days, by day and model, and which users spent the most."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from litellm_budget_plugin.core.accounts import Usage, UsageKey

PERIODS = (7, 30, 90, 400)
"""How many days a page can show, today included."""
DAYS = 30
"""How many it shows unless told otherwise, and those that `Adding` adds up."""
RECENT = 2
"""How many of them may still grow: a charge that is delivered late counts on the day of its call."""
MOST_MODELS = 100
"""How many models are told apart; a caller can make up names."""
OTHERS = "other models"
_TOP = 10

Rows = Iterable[tuple[UsageKey, Usage]]
ByModel = dict[str, Usage]
ByDay = dict[int, ByModel]


def summed(usages: Iterable[Usage]) -> Usage:
    """The sum, field by field."""
    total = Usage()
    for usage in usages:
        total = total.plus(usage)
    return total


def models_of(days: ByDay) -> list[tuple[str, Usage]]:
    """Totals of all days by model, the dearest first."""
    found: ByModel = {}
    for models in days.values():
        for model, usage in models.items():
            found[model] = found.get(model, Usage()).plus(usage)
    return sorted(found.items(), key=lambda item: (-item[1].spent, -item[1].calls, item[0]))


def by_day(rows: Rows) -> ByDay:
    """Totals of one subject by day and model."""
    days: ByDay = {}
    for key, usage in rows:
        _add(days.setdefault(key.day, {}), key.model, usage)
    return days


def refusal_rate(usage: Usage) -> float:
    """Refused calls as a part of all that were asked for."""
    asked = usage.calls + usage.refusals
    return usage.refusals / asked if asked else 0.0


def _add(models: ByModel, model: str, usage: Usage) -> None:
    if model not in models and len(models) >= MOST_MODELS:
        model = OTHERS
    models[model] = models.get(model, Usage()).plus(usage)


class Adding:
    """Adds up what every user spent from `today` back to `first`; `since` is how far it has come.

    What may still grow is kept apart from what does not, so that reading it again replaces it.
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
        """Take rows of the days from `since` to `until`, in place of those known where they are RECENT; others come once."""
        for day in range(max(since, self.today - RECENT + 1), until + 1):
            self._recent[day] = {}
        for key, usage in rows:
            if usage.spent:
                users = self._recent.get(key.day, self._older)
                users[key.subject] = users.get(key.subject, 0) + usage.spent
        self.since = min(self.since, since)

    def top(self) -> tuple[tuple[str, int], ...]:
        """Those who spent the most of what is known so far, most first, with nano-dollars."""
        spent = dict(self._older)
        for users in self._recent.values():
            for user, nanos in users.items():
                spent[user] = spent.get(user, 0) + nanos
        return tuple(heapq.nsmallest(_TOP, spent.items(), key=lambda item: (-item[1], item[0])))
