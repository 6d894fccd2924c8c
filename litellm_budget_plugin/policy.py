"""The limits that the environment and a budget file set, as one immutable value.

A subject has all the limits of the first of these that has any: its own table, its class, its scope. Limits that are set by hand in
the ledger take precedence over all of them.
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
    """The contents of one table. None: the table sets nothing, and the next table counts. `alert_at` is in per cent."""

    limits: tuple[Limit, ...] | None = None
    alert_at: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Policy:
    """The limits by scope, by subject and by class of users. Threads may share it."""

    scopes: Mapping[str, Table] = field(default_factory=dict)
    subjects: Mapping[Subject, Table] = field(default_factory=dict)
    classes: Mapping[str, Table] = field(default_factory=dict)
    members: Mapping[str, str] = field(default_factory=dict)
    """The class of each user who is listed by the exact id."""
    patterns: tuple[tuple[re.Pattern[str], str], ...] = ()
    """Patterns of users' ids, each with its class; the first match counts."""
    recorded: str = "none"
    """The window in which the spend of users without a limit is recorded."""

    def class_of(self, user: str) -> str | None:
        """Return the class that lists a user; None if no class does."""
        if user in self.members:
            return self.members[user]
        return next((name for pattern, name in self.patterns if pattern.fullmatch(user)), None)

    def own_limits(self, subject: Subject, user_class: str | None = None) -> tuple[Limit, ...] | None:
        """Return the limits of a subject's own table or class; None if those of its scope count. `user_class` takes precedence over
        the class that lists the user. Raises BudgetInputError for an unknown class.
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
        """Return the per cent of its limits at which a subject has alerts, by its table, class or scope; None if none of them says."""
        named = self.class_of(subject.id) if subject.scope == "user" else None
        tables = (
            self.subjects.get(subject),
            None if named is None else self.classes[named],
            self.scopes.get(subject.scope),
        )
        return next((table.alert_at for table in tables if table is not None and table.alert_at is not None), None)

    def limits(self, subject: Subject, user_class: str | None = None) -> tuple[Limit, ...]:
        """Return the limits that count for a subject without limits set by hand."""
        own = self.own_limits(subject, user_class)
        return own if own is not None else self.scopes.get(subject.scope, Table()).limits or ()

    @cached_property
    def defaults(self) -> tuple[Default, ...]:
        """The limits of every scope, as commands carry them. They include an entry that records the spend of users without a limit."""
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
        """Return the limits that count for these subjects, as commands carry them. Limits in `given` are added; where two limits have
        the same model, unit and window, the smaller one counts. Raises BudgetInputError for an unknown class.
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
        """Return every model that a limit names, sorted."""
        tables = (*self.scopes.values(), *self.subjects.values(), *self.classes.values())
        return sorted({limit.model for table in tables for limit in table.limits or () if limit.model})


def smaller(limits: tuple[Limit, ...], given: tuple[Limit, ...]) -> tuple[Limit, ...]:
    """Return all of these limits; of two with the same model, unit and window, only the smaller one."""
    both: dict[tuple[str, str, str], Limit] = {}
    for limit in (*limits, *given):
        key = (limit.model, limit.unit, limit.window)
        other = both.get(key)
        if other is None or other.amount is None or (limit.amount is not None and limit.amount < other.amount):
            both[key] = limit
    return tuple(both.values())


def as_defaults(scope: str, limits: Iterable[Limit], subject: str = "") -> list[Default]:
    """Return limits in the form that commands carry."""
    return [Default(scope, each.window, each.amount, each.model, each.unit, subject=subject) for each in limits]


def nearest(name: str, accepted: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the accepted name that is similar, else all accepted names."""
    known = list(accepted)
    near = difflib.get_close_matches(name, known, 1)
    return (
        f"; did you mean {near[0]!r}?" if near else f"; accepted are {', '.join(known)}" if known else "; there is none"
    )
