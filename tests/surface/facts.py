"""The measured facts about one way of calling: the rows of docs/surface.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from litellm_budget_plugin import BudgetExceeded, pricing
from tests.hooks.desk import Desk
from tests.pricing import bounds
from tests.surface.provider import Provider
from tests.surface.ways import WORTH, Place, Way

PAGE = Path(__file__).parents[2] / "docs" / "surface.md"
HEAD = ("way of calling", "refused before sending", "charged", "bound", "dropped in the middle")
BEGIN, END = "<!-- measured: python -m tests.surface -->", "<!-- end of what is measured -->"
BOUNDS = "<!-- counted: python -m tests.surface -->"


@dataclass(frozen=True)
class Facts:
    """The facts that were measured for a way; `row` is their row on the page."""

    way: Way
    refused: bool
    requests: int
    spent_at_once: int
    spent: int
    bounded: bool
    dropped: int | None

    @property
    def row(self) -> str:
        """The line of the page."""
        when = "before the answer" if self.spent_at_once == self.spent else "once the call is freed"
        drop = "-" if self.dropped is None else "input and output received"
        cells = (
            f"`{self.way.name}`",
            f"yes, {self.way.refusal}" if self.refused and not self.requests else "NO",
            f"exactly, {when}" if self.spent == WORTH else f"{self.spent} of {WORTH}",
            "proven" if self.bounded else "`UNBOUNDED_HOLD`",
            drop,
        )
        return f"| {' | '.join(cells)} |"


def refusal_of(way: Way, place: Place, user: str) -> bool:
    """Return whether a call is refused by its budget."""
    try:
        answer = way.call(place, user)
    except BudgetExceeded:
        return True
    if way.refusal == "out of the list":
        return bool(answer == [])
    return way.refusal == "in the list" and any(isinstance(item, BudgetExceeded) for item in answer)


def measure(way: Way, open_desk: Callable[..., Desk], upstream: Provider) -> Facts:
    """Make calls this way: over budget, under budget, and dropped. Return the facts."""
    place = Place(upstream.url)
    desk = open_desk(default_limit="0.0124", project="poor")
    refused, requests = refusal_of(way, place, "alice"), upstream.requests
    assert desk.calm("alice") == 0
    desk = open_desk(default_limit="10", project="rich")
    estimates: list[Any] = []
    estimate = pricing.estimate

    def noted(*args: Any, **kwargs: Any) -> Any:
        estimates.append(estimate(*args, **kwargs))
        return estimates[-1]

    with mock.patch("litellm_budget_plugin.pricing.estimate", noted):
        way.call(place, "alice")
    at_once = desk.spent("alice")
    spent = desk.calm("alice")
    dropped = None
    if way.streams:
        way.call(place, "bob", most=4)
        dropped = desk.calm("bob")
    assert desk.usage("anonymous").calls == 0, "somebody else has paid"
    return Facts(way, refused, requests, at_once, spent, estimates[0].bounded, dropped)


def table(rows: list[str]) -> str:
    """Return the measured part of the page."""
    return "\n".join([f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}", *rows])


def bounds_table() -> str:
    """Return a table of the number of models in LiteLLM's cost map that are bounded, and the reasons why the others are not."""
    head = ("family", "models", "with a price", "bounded", "why the others are not")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in bounds.rows():
        why = "; ".join(f"{reason} ({count})" for reason, count in row.reasons.most_common()) or "-"
        lines.append(f"| {row.family} (mode `{row.mode}`) | {row.models} | {row.priced} | {row.bounded} | {why} |")
    return "\n".join(lines)


def page_rows() -> list[str]:
    """Return the rows that the page has now."""
    text = PAGE.read_text("utf-8")
    measured = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    return [line for line in measured.splitlines() if line.startswith("| `")]
