"""Who has which limits: what the environment and a budget file say, as one value that never changes.

A subject has the limits of its own table, else of its class, else of its scope: the first that there are, as a whole. A limit set by
hand in the ledger goes before all of them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.errors import BudgetInputError


class Table(NamedTuple):
    """What one table says. None: nothing, and the next one counts. `alert_at` is in per cent."""

    limits: tuple[Limit, ...] | None = None
    alert_at: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Policy:
    """Limits by scope, by subject and by class of users. Threads may share it."""

    scopes: Mapping[str, Table] = field(default_factory=dict)
    subjects: Mapping[Subject, Table] = field(default_factory=dict)
    classes: Mapping[str, Table] = field(default_factory=dict)
    members: Mapping[str, str] = field(default_factory=dict)
    """The class of a user, by the exact id."""
    patterns: tuple[tuple[re.Pattern[str], str], ...] = ()
    """The class of every user whose id matches, the first that does."""
    recorded: str = "none"
    """The window in which the spend of users without a limit is recorded."""

    def class_of(self, user: str) -> str | None:
        """The class that lists a user."""
        if user in self.members:
            return self.members[user]
        return next((name for pattern, name in self.patterns if pattern.fullmatch(user)), None)

    def own_limits(self, subject: Subject, user_class: str | None = None) -> tuple[Limit, ...] | None:
        """The limits of a subject's own table or class; None if those of its scope count. `user_class` goes before the class that
        lists the user. Raises BudgetInputError for a class that there is not.
        """
        own = self.subjects.get(subject)
        if own is not None and own.limits is not None:
            return own.limits
        if subject.scope != "user":
            return None
        if user_class is not None and user_class not in self.classes:
            near = nearest(user_class, self.classes)
            raise BudgetInputError(f"there is no class of users {user_class!r:.80}{near}")
        name = user_class if user_class is not None else self.class_of(subject.id)
        return None if name is None else self.classes[name].limits

    def alert_at(self, subject: Subject) -> tuple[int, ...] | None:
        """At how many per cent of its limits a subject has alerts, by its own table, its class or its scope; None if none of them says."""
        named = self.class_of(subject.id) if subject.scope == "user" else None
        tables = (
            self.subjects.get(subject),
            None if named is None else self.classes[named],
            self.scopes.get(subject.scope),
        )
        return next((table.alert_at for table in tables if table is not None and table.alert_at is not None), None)

    def limits(self, subject: Subject, user_class: str | None = None) -> tuple[Limit, ...]:
        """The limits that count for a subject that has none set by hand."""
        own = self.own_limits(subject, user_class)
        return own if own is not None else self.scopes.get(subject.scope, Table()).limits or ()

    @cached_property
    def defaults(self) -> tuple[Default, ...]:
        """The limits of every scope, as commands carry them. What users without a limit spend is recorded."""
        found = [default for scope, table in self.scopes.items() for default in as_defaults(scope, table.limits or ())]
        if not any(default.scope == "user" for default in found):
            found.insert(0, Default("user", self.recorded))
        return tuple(found)

    def defaults_of(
        self,
        subjects: Iterable[Subject],
        user_class: str | None = None,
        given: Mapping[Subject, tuple[Limit, ...]] | None = None,
    ) -> tuple[Default, ...]:
        """The limits that count for these subjects, as commands carry them. Those of `given` add to the others; of two for the same,
        the smaller one counts. Raises BudgetInputError for a class that there is not.
        """
        found: list[Default] = []
        for subject in subjects:
            own = self.own_limits(subject, user_class)
            if given and subject in given:
                own = smaller(
                    self.scopes.get(subject.scope, Table()).limits or () if own is None else own, given[subject]
                )
            if own is not None:
                found += as_defaults(subject.scope, own or (Limit(None),), subject.id)
        return (*self.defaults, *found) if found else self.defaults

    @property
    def limited(self) -> bool:
        """Whether anything has a limit."""
        tables = (*self.scopes.values(), *self.subjects.values(), *self.classes.values())
        return any(limit.amount is not None for table in tables for limit in table.limits or ())

    def models(self) -> list[str]:
        """Every model that a limit names, sorted."""
        tables = (*self.scopes.values(), *self.subjects.values(), *self.classes.values())
        return sorted({limit.model for table in tables for limit in table.limits or () if limit.model})


def smaller(limits: tuple[Limit, ...], given: tuple[Limit, ...]) -> tuple[Limit, ...]:
    """All of these limits; of two for the same, the smaller one."""
    both: dict[tuple[str, str, str], Limit] = {}
    for limit in (*limits, *given):
        key = (limit.model, limit.unit, limit.window)
        other = both.get(key)
        if other is None or other.amount is None or (limit.amount is not None and limit.amount < other.amount):
            both[key] = limit
    return tuple(both.values())


def as_defaults(scope: str, limits: Iterable[Limit], subject: str = "") -> list[Default]:
    """Limits as commands carry them."""
    return [Default(scope, each.window, each.amount, each.model, each.unit, subject=subject) for each in limits]


def nearest(name: str, accepted: Iterable[str]) -> str:
    """What is said behind a name that there is not: which one is meant, or which there are."""
    known = list(accepted)
    near = difflib.get_close_matches(name, known, 1)
    return (
        f"; did you mean {near[0]!r}?" if near else f"; accepted are {', '.join(known)}" if known else "; there is none"
    )
