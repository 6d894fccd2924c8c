"""Subjects as the dashboard lists them, each with the account that is nearest to its limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from litellm_budget_plugin.core.accounts import Default, Ref, Subject
from litellm_budget_plugin.core.applying import defaults_for, whole_mark
from litellm_budget_plugin.core.commands import AccountState
from litellm_budget_plugin.core.windows import bounds, parse_window

DefaultsOf = Callable[[Subject], tuple[Default, ...]]

NEAR = 0.8
"""The share of its limit from which an account counts as near to it."""


class Person(NamedTuple):
    """A subject and its nearest account. `share` is (spent + held) / limit, -1.0 without a limit; amounts are in `unit`;
    `in_flight` (nano-dollars) is held for calls in flight.
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
        """Whether the limit is near or reached."""
        return self.share >= NEAR

    @property
    def full(self) -> bool:
        """Whether nothing is left."""
        return self.share >= 1.0


def share_of(state: AccountState) -> float:
    """Return the share of the limit that is spent or held; -1.0 without a limit. A limit of 0 counts as used up."""
    if state.limit is None:
        return -1.0
    return (state.spent + state.held) / state.limit if state.limit > 0 else 1.0


def counting(
    subject: Subject,
    states: Iterable[AccountState],
    defaults: tuple[Default, ...],
    now: int,
    *,
    coming: bool = False,
) -> list[AccountState]:
    """Return the accounts of a subject that calls count against; with `coming` also those that its first call will create; and
    where no limit is known, the remaining ones. Each has the limit that counts now. `own_limit` is the limit that was set by
    hand, else by a default.
    """
    known = {state.ref: state for state in states}
    rows = list(known.values())
    whole = known.pop(whole_mark(subject), None) is not None
    followers: dict[Ref, Default] = {}
    # A client may have brought hundreds of defaults, and lists have thousands of subjects, so defaults are not matched in vain.
    if coming or not all(state.pinned for state in rows):
        followers = defaults_for(subject, rows, defaults)
    found = [
        _following(default, known.pop(ref) if ref in known else _new(ref, now), now)
        for ref, default in followers.items()
        if coming or ref in known
    ]
    found = [state for state in found if state.created_at or state.limit is not None]
    found += [state for state in known.values() if state.pinned]
    taken = {(each.ref.model.casefold(), each.ref.unit) for each in found if each.pinned or each.limit is not None}
    for ref, state in known.items():
        left_over = not whole and (ref.model.casefold(), ref.unit) not in taken
        if not state.pinned and (state.blocked or state.held or left_over):
            found.append(replace(state, own_limit=None, limit=None))
    return sorted(found, key=lambda state: (state.ref.model, state.ref.unit, state.ref.window))


def _following(default: Default, state: AccountState, now: int) -> AccountState:
    limit = default.limit
    if limit is not None:
        limit += state.carried + (state.raised_by if now < state.raised_until else 0)
    return replace(state, own_limit=default.limit, limit=limit)


def _new(ref: Ref, now: int) -> AccountState:
    window = parse_window(ref.window)
    start, end = bounds(window, now) if window.period else (now, None)
    ended = bool(window.length)  # it begins with the first call
    return AccountState(ref, False, None, None, 0, 0, start, now if ended else end, ended, False, 0, 0, 0, 0, 0, 0, ())


def person_of(subject: Subject, states: Iterable[AccountState], defaults: tuple[Default, ...], now: int) -> Person:
    """Return a subject as lists show it."""
    counted = counting(subject, states, defaults, now) or [_new(Ref(*subject), now)]
    nearest = max(counted, key=lambda state: (share_of(state), state.ref.unit == "usd", state.spent))
    return Person(
        id=subject.id,
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


def people_of(states: Iterable[AccountState], defaults_of: DefaultsOf, now: int) -> Iterator[Person]:
    """Yield everybody on a page of accounts, in which the accounts of a subject are adjacent."""
    for ref, theirs in groupby(states, key=lambda state: state.ref[:2]):
        subject = Subject(*ref)
        yield person_of(subject, theirs, defaults_of(subject), now)
