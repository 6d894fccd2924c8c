"""The progress of long work, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from litellm_budget_plugin.stores.copying import Progress

_EVERY = 100_000
"""Rows between two plain lines of the same step."""


@contextmanager
def shown_progress() -> Iterator[Callable[[Progress], None]]:
    """Yield a function to call with each Progress of a copy. It shows a moving line on a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("")
        yield lambda progress: bar.update(task, description=_line(progress))


@contextmanager
def counted(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of further items that are done. It shows a moving line on a terminal, nothing
    elsewhere.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description} {task.completed:,.0f}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)


def _plain() -> Callable[[Progress], None]:
    last = Progress("", "", 0)

    def show(progress: Progress) -> None:
        nonlocal last
        if progress[:2] != last[:2] or progress.rows - last.rows >= _EVERY:
            last = progress
            click.echo(_line(progress), err=True)

    return show


def _line(progress: Progress) -> str:
    return f"{progress.project}: {progress.step}, {progress.rows:,} rows"
