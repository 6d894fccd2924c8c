"""The subjects of a list in memory: sorted, searched and paged without queries to the store."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from litellm_budget_plugin.server.dashboard.people import Person

Sort = Literal["nearest", "spent", "id"]
Show = Literal["all", "near", "full", "blocked", "unlimited"]
SORTS: tuple[Sort, ...] = get_args(Sort)
SHOWS: tuple[Show, ...] = get_args(Show)
PAGE = 50


@dataclass(frozen=True)
class Roster:
    """The subjects of a scope as one scan found them. `at` is the store's time when the scan began (microseconds), `seconds`
    the time that reading took. `complete` is False during the first scan. `top` has the users who spent the most in the last
    days, with nano-dollars, most first; it covers all of these days once `added_up` is True. `trouble` says why there is no
    newer roster.
    """

    at: int = 0
    seconds: float = 0.0
    complete: bool = False
    by_id: tuple[Person, ...] = ()
    nearest: tuple[Person, ...] = ()
    by_spent: tuple[Person, ...] = ()
    in_flight: int = 0
    near: int = 0
    full: int = 0
    blocked: int = 0
    top: tuple[tuple[str, int], ...] = ()
    added_up: bool = False
    trouble: str = ""


class Selection(NamedTuple):
    """One page of the selected subjects. `first` and `page` count from 1; `first` is 0 if nobody was found."""

    people: Sequence[Person]
    page: int
    pages: int
    first: int
    total: int


def in_order(people: Iterable[Person], sort: Sort) -> list[Person]:
    """Return some people, sorted like the roster."""
    return sorted(people, key=_KEYS[sort])


def _nearness(person: Person) -> tuple[float, int, str]:
    return (-person.share, -person.spent, person.id)


def _spend(person: Person) -> tuple[bool, int, str]:
    return (person.unit != "usd", -person.spent, person.id)


_KEYS: dict[Sort, Callable[[Person], tuple[object, ...]]] = {
    "nearest": _nearness,
    "spent": _spend,
    "id": lambda person: (person.id,),
}


def roster_of(pages: Sequence[Sequence[Person]], at: int, seconds: float, complete: bool) -> Roster:
    """Return a roster of pages that are in the order of ids."""
    # Sorting a hundred thousand at once would block every other thread. Sorting pages and merging them does not.
    by_id = tuple(person for page in pages for person in page)
    return Roster(
        at=at,
        seconds=seconds,
        complete=complete,
        by_id=by_id,
        nearest=tuple(heapq.merge(*(sorted(page, key=_nearness) for page in pages), key=_nearness)),
        by_spent=tuple(heapq.merge(*(sorted(page, key=_spend) for page in pages), key=_spend)),
        in_flight=sum(person.in_flight for person in by_id),
        near=sum(person.near for person in by_id),
        full=sum(person.full for person in by_id),
        blocked=sum(person.blocked for person in by_id),
    )


def select(roster: Roster, search: str, show: Show, sort: Sort, page: int) -> Selection:
    """Return a page of the subjects whose id contains `search`, ignoring case. A page beyond the last one is the last one."""
    ordered = {"nearest": roster.nearest, "spent": roster.by_spent, "id": roster.by_id}[sort]
    found = ordered if show == "all" and not search else list(_matching(ordered, search.casefold(), show))
    pages = max(1, -(-len(found) // PAGE))
    page = min(max(page, 1), pages)
    begin = (page - 1) * PAGE
    return Selection(found[begin : begin + PAGE], page, pages, begin + 1 if found else 0, len(found))


def _matching(people: Sequence[Person], needle: str, show: Show) -> Iterator[Person]:
    for person in people:
        if (not needle or needle in person.id.casefold()) and _shown(person, show):
            yield person


def _shown(person: Person, show: Show) -> bool:
    if show == "all":
        return True
    if show == "unlimited":
        return person.limit is None
    return person.blocked if show == "blocked" else person.full if show == "full" else person.near
