"""Users as the dashboard lists them: each by the account that stands nearest to its limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from litellm_budget_plugin.core.commands import AccountState

NEAR = 0.8
"""From which share of its limit an account counts as near to it."""


class Person(NamedTuple):
    """A user and their nearest account. `share` is (spent + held) / limit, -1.0 without a limit; amounts are in `unit`;
    `in_flight` (nano-dollars) is held for calls that go on.
    """

    id: str
    share: float
    unit: str
    model: str
    window: str
    limit: int | None
    spent: int
    held: int
    end: int | None
    ended: bool
    blocked: bool
    in_flight: int

    @property
    def near(self) -> bool:
        """Whether the limit is near, or reached."""
        return self.share >= NEAR

    @property
    def full(self) -> bool:
        """Whether nothing is left."""
        return self.share >= 1.0


def share_of(state: AccountState) -> float:
    """Which part of its limit is spent or held; -1.0 without a limit. A limit of nothing is used up."""
    if state.limit is None:
        return -1.0
    return (state.spent + state.held) / state.limit if state.limit > 0 else 1.0


def counting(states: Iterable[AccountState]) -> list[AccountState]:
    """The accounts of one subject that calls count against: where it has a limit of its own for a model and a unit, accounts
    that once followed a default for the same are left over.
    """
    states = list(states)
    own = {(state.ref.model, state.ref.unit) for state in states if state.pinned}
    return [
        state
        for state in states
        if state.pinned or state.blocked or state.held or (state.ref.model, state.ref.unit) not in own
    ]


def person_of(subject: str, states: Iterable[AccountState]) -> Person:
    """How a subject with at least one account is listed."""
    counted = counting(states)
    nearest = max(counted, key=lambda state: (share_of(state), state.ref.unit == "usd", state.spent))
    return Person(
        id=subject,
        share=share_of(nearest),
        unit=nearest.ref.unit,
        model=nearest.ref.model,
        window=nearest.ref.window,
        limit=nearest.limit,
        spent=nearest.spent,
        held=nearest.held,
        end=nearest.end,
        ended=nearest.ended,
        blocked=any(state.blocked for state in counted),
        in_flight=max((state.held for state in counted if state.ref.unit == "usd"), default=0),
    )


def people_of(states: Iterable[AccountState]) -> Iterator[Person]:
    """Everybody on a page of accounts, which lie side by side for each subject."""
    for subject, theirs in groupby(states, key=lambda state: state.ref.subject):
        yield person_of(subject, theirs)
