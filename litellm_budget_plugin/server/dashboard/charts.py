"""Charts as numbers. Templates draw them in SVG with every length as an attribute, because the pages allow no inline styles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from litellm_budget_plugin.server.dashboard import wording
from litellm_budget_plugin.server.dashboard.totals import OTHERS, ByDay, ByModel, models_of, summed

HEIGHT = 180
"""Height of the bars' area in pixels. Its width is that of the page."""
_SERIES = 5
"""The most models with a colour of their own in one chart; the others share one colour."""
COLOURS = 12
"""The number of colours for models. The colour after them is for all others."""
_FIXED = 8
"""The number of a project's models that have the same colour on every page."""


class Bar(NamedTuple):
    """A rectangle: `x` and `width` in per cent of the chart's width, `y` and `height` in pixels; `series` is its colour."""

    x: str
    y: str
    width: str
    height: str
    series: int
    label: str


class Row(NamedTuple):
    """A day in the table beside the chart."""

    day: int
    spent: int
    calls: int
    refusals: int
    tokens: int


class Chart(NamedTuple):
    """Bars by day, stacked by model. `ticks` are amounts from the top down; `names` are colours with their models, in stacking
    order.
    """

    bars: list[Bar]
    ticks: list[str]
    days: list[str]
    names: list[tuple[int, str]]
    rows: list[Row]
    summary: str


def colours(ranked: Sequence[str], names: Iterable[str]) -> dict[str, int]:
    """Return colours for a page's models, at most COLOURS of them. `ranked` are the project's models, most expensive first: the
    first ones have the same colour on every page.
    """
    found: dict[str, int] = {}
    for name in dict.fromkeys([*ranked[:_FIXED], *names]):
        if len(found) == COLOURS:
            break
        colour = int(hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest(), 16) % COLOURS
        while colour in found.values():
            colour = (colour + 1) % COLOURS
        found[name] = colour
    return found


def by_day(days: ByDay, first: int, last: int, ranked: Sequence[str] = ()) -> Chart:
    """Return the chart of the spend from day `first` to day `last`. `ranked` are the project's models, most expensive first."""
    shown = {day: models for day, models in days.items() if first <= day <= last}
    names = [model for model, usage in models_of(shown) if usage.spent and model != OTHERS][:_SERIES]
    own = colours(ranked, names)
    names = [name for name in names if name in own]
    stacks = {
        day: _stack({model: usage.spent for model, usage in models.items()}, names) for day, models in shown.items()
    }
    most = max((sum(stack) for stack in stacks.values()), default=0)
    top = _round_up(most)
    series = [(own[name], name) for name in names]
    if any(stack[-1] for stack in stacks.values()):
        series.append((COLOURS, OTHERS))
    bars: list[Bar] = []
    step = 100 / (last - first + 1)
    for day in range(first, last + 1):
        floor = 0.0
        for (colour, name), nanos in zip(series, stacks.get(day, [])):
            if nanos:
                height = nanos / top * HEIGHT
                floor += height
                label = f"{wording.date_of(day)}, {name or 'no model'}: {wording.usd(nanos)}"
                x, width = (day - first + 0.14) * step, 0.72 * step
                bars.append(Bar(f"{x:.3f}%", f"{HEIGHT - floor:.2f}", f"{width:.3f}%", f"{height:.2f}", colour, label))
    rows = [_row(day, shown.get(day, {})) for day in range(last, first - 1, -1)]
    total = sum(row.spent for row in rows)
    dearest = max(rows, key=lambda row: row.spent)
    summary = f"{wording.usd(total)} in {len(rows)} days"
    if total:
        summary += f"; most on {wording.date_of(dearest.day)}: {wording.usd(dearest.spent)}"
    middle = (first + last) // 2
    return Chart(
        bars,
        [wording.whole(top), wording.whole(top // 2), "$0"] if most else ["", "", "$0"],
        [wording.date_of(first), wording.date_of(middle), wording.date_of(last)],
        series,
        rows,
        summary,
    )


def _stack(spent: dict[str, int], names: list[str]) -> list[int]:
    """Return the amounts in the order of `names`, then the sum of all others."""
    return [*(spent.get(name, 0) for name in names), sum(nanos for name, nanos in spent.items() if name not in names)]


def _row(day: int, models: ByModel) -> Row:
    total = summed(models.values())
    return Row(day, total.spent, total.calls, total.refusals, total.input_tokens + total.output_tokens)


def _round_up(nanos: int) -> int:
    """Return the next round amount: 1, 2 or 5 with zeros."""
    size = 1
    while size * 10 <= nanos:
        size *= 10
    return next(size * step for step in (1, 2, 5, 10) if size * step >= max(nanos, 2))
