"""Random files of limits and a model of their meaning in plain Python, written from the documentation, without the package's code."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

USERS = ("alice", "bob", "ann@corp.example", "zoe@corp.example", "17")
TEAMS, TAGS, RUNS = ("search", "red"), ("batch", "night"), ("r1", "r2", "r3")
CLASSES = ("pro", "trial")
PROJECT = "shop"
SUBJECTS = {"user": USERS, "team": TEAMS, "tag": TAGS, "run": RUNS}

NAMES = {
    "gpt-4o": ("gpt-4o", "openai/gpt-4o", "openai/*"),
    "gpt-4o-2024-08-06": ("gpt-4o-2024-08-06", "openai/gpt-4o-2024-08-06", "openai/*"),
    "gpt-4o-mini": ("gpt-4o-mini", "openai/gpt-4o-mini", "openai/*"),
    "o3": ("o3", "openai/o3", "openai/*"),
    "claude-3-5-sonnet-20241022": ("claude-3-5-sonnet-20241022", "anthropic/claude-3-5-sonnet-20241022", "anthropic/*"),
}
"""Models, and the names of a call of each."""
_GPT = {"gpt-4o", "gpt-4o-2024-08-06"}
COVERED = {
    "": set(NAMES),
    "gpt-4o": _GPT,
    "gpt-4o*": {*_GPT, "gpt-4o-mini"},
    "GPT-4o-Mini": {"gpt-4o-mini"},
    "gpt-4o-2024-08-06": {"gpt-4o-2024-08-06"},
    "openai/*": {*_GPT, "gpt-4o-mini", "o3"},
    "o?": {"o3"},
    "claude-3-5-sonnet": {"claude-3-5-sonnet-20241022"},
    "*sonnet*": {"claude-3-5-sonnet-20241022"},
    "gpt-5": set(),
}
"""The patterns that can follow "for", and the models that each covers."""
WINDOWS = {"": "", " per day": "%Y-%m-%d", "/month": "%Y-%m", " each year": "%Y"}
"""The text of a window, and a strftime format whose result is equal for two moments in the same window."""


class Budget(NamedTuple):
    """One limit of one subject. `amount` is in nano-dollars, calls or tokens."""

    scope: str
    subject: str
    amount: int | None
    unit: str
    window: str
    model: str


class Call(NamedTuple):
    """One call, and its cost in nano-dollars and tokens."""

    user: str
    user_class: str | None
    team: str | None
    tags: tuple[str, ...]
    runs: tuple[str, ...]
    model: str
    cost: int
    tokens: int

    @property
    def subjects(self) -> list[tuple[str, str]]:
        """The subjects whose budgets count for the call."""
        found = [("user", self.user), ("project", PROJECT)]
        found += [("team", self.team)] if self.team else []
        return [*found, *(("tag", tag) for tag in self.tags), *(("run", run) for run in self.runs)]

    def charge(self, unit: str) -> int:
        """Return its cost in a unit."""
        return {"usd": self.cost, "calls": 1, "tokens": self.tokens}[unit]


class Sentence(NamedTuple):
    """A limit as text, and its meaning."""

    text: str
    amount: int | None
    unit: str
    window: str
    model: str


def random_sentence(dice: random.Random) -> Sentence:
    """Return a random sentence and its meaning."""
    window, model = dice.choice(list(WINDOWS)), dice.choice(["", "", *COVERED])
    behind = f"{window} for {model}" if model else window
    kind = dice.random()
    if kind < 0.6:
        cents = dice.randrange(0, 60)
        return Sentence(f"${cents / 100:.2f}{behind}", cents * 10**7, "usd", window, model)
    if kind < 0.75:
        calls = dice.randrange(0, 6)
        return Sentence(f"{calls} calls{behind}", calls, "calls", window, model)
    if kind < 0.9:
        tokens = dice.randrange(1, 9) * 100
        return Sentence(f"{tokens / 1000}k tokens{behind}", tokens, "tokens", window, model)
    return Sentence(f"unlimited{behind}", None, "usd", window, model)


def random_limits(dice: random.Random) -> list[Sentence]:
    """Return a list that a file may have: no two with the same unit, model and window, and no other beside "unlimited" of its unit and model."""
    found: list[Sentence] = []
    for _ in range(dice.choice((0, 1, 1, 2, 3))):
        one = random_sentence(dice)
        alike = [each for each in found if (each.unit, each.model) == (one.unit, one.model)]
        if not any(each.window == one.window or each.amount is None or one.amount is None for each in alike):
            found.append(one)
    return found


class File:
    """A random file: `text` in TOML, and its meaning."""

    def __init__(self, dice: random.Random) -> None:
        self._scopes: dict[str, list[Sentence]] = {}
        self._own: dict[tuple[str, str], list[Sentence]] = {}
        self._classes: dict[str, tuple[list[str], list[Sentence] | None]] = {}
        lines: list[str] = []
        for scope in ("user", "team", "tag", "run", "project"):
            if dice.random() < 0.6:
                self._scopes[scope] = random_limits(dice)
                lines += [f"[{scope}]", _written(self._scopes[scope])]
        free = [*USERS, "*@corp.example", "?ob", "*"]
        for name in CLASSES:
            users = [free.pop(dice.randrange(len(free))) for _ in range(dice.randrange(3))]
            limits = random_limits(dice) if dice.random() < 0.8 else None
            self._classes[name] = (users, limits)
            lines += [f"[class.{name}]", f"users = {users}", "" if limits is None else _written(limits)]
        for scope, names in SUBJECTS.items():
            for name in names:
                if dice.random() < 0.15:
                    self._own[scope, name] = random_limits(dice)
                    lines += [f'[{scope}."{name}"]', _written(self._own[scope, name])]
        self.text = "\n".join(lines)

    def _listed(self, user: str) -> str | None:
        for name, (users, _) in self._classes.items():
            if user in users:
                return name
        ends = {"*@corp.example": user.endswith("@corp.example"), "?ob": user == "bob", "*": True}
        for name, (users, _) in self._classes.items():
            if any(ends.get(each, False) for each in users):
                return name
        return None

    def limits(self, scope: str, subject: str, user_class: str | None) -> list[Sentence]:
        """Return the limits of a subject's own table, else of its class, else of its scope."""
        if (scope, subject) in self._own:
            return self._own[scope, subject]
        if scope == "user":
            name = user_class or self._listed(subject)
            if name is not None and (limits := self._classes[name][1]) is not None:
                return limits
        return self._scopes.get(scope, [])

    def budgets(self, call: Call) -> list[Budget]:
        """Return all budgets that limit a call."""
        return [
            Budget(scope, subject, each.amount, each.unit, each.window, each.model)
            for scope, subject in call.subjects
            for each in self.limits(scope, subject, call.user_class)
            if call.model in COVERED[each.model]
        ]


def _written(limits: Sequence[Sentence]) -> str:
    return f"limits = {[each.text for each in limits]}"


class Ledger:
    """A model of the ledger: it adds up spend, and finds the budgets that refuse a call."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._calls: list[tuple[Call, datetime]] = []

    def spent(self, budget: Budget, now: datetime) -> int:
        """Return the spend that counts against a budget at a time."""
        same = WINDOWS[budget.window]
        return sum(
            call.charge(budget.unit)
            for call, at in self._calls
            if (budget.scope, budget.subject) in call.subjects
            and call.model in COVERED[budget.model]
            and at.strftime(same) == now.strftime(same)
        )

    def full(self, call: Call, now: datetime) -> set[Budget]:
        """Return the budgets that have not enough left for a call."""
        return {
            budget
            for budget in self._file.budgets(call)
            if budget.amount is not None and self.spent(budget, now) + call.charge(budget.unit) > budget.amount
        }

    def charge(self, call: Call, now: datetime) -> None:
        """Record a call that was made."""
        self._calls.append((call, now))


def random_call(dice: random.Random, classes: dict[str, str | None]) -> Call:
    """Return a random call. Each user has the same class in all calls."""
    user = dice.choice(USERS)
    return Call(
        user,
        classes[user],
        dice.choice((None, *TEAMS)),
        tuple(dice.sample(TAGS, dice.randrange(3))),
        tuple(dice.sample(RUNS, dice.choice((0, 1, 1, 2)))),
        dice.choice(list(NAMES)),
        dice.randrange(0, 16) * 10**7,
        dice.randrange(0, 300),
    )


def random_classes(dice: random.Random) -> dict[str, str | None]:
    """Return the class that is given with each user's calls."""
    return {user: dice.choice((None, None, *CLASSES)) for user in USERS}


def named(budgets: Iterable[Budget], account: Any) -> Budget | None:
    """Return the budget of an account of the ledger."""
    windows = {"": "none", " per day": "day@UTC", "/month": "month@UTC", " each year": "year@UTC"}
    for budget in budgets:
        key = (budget.scope, budget.subject, budget.model, windows[budget.window], budget.unit)
        if key == (account.scope, account.subject, account.model, account.window, account.unit):
            return budget
    return None


NOON = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
"""Two days before the end of a month."""
