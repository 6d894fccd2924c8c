"""How far a copy is: a moving line on a terminal, plain lines elsewhere. Both go to standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from litellm_budget_plugin.stores.copying import Progress

_EVERY = 100_000
"""Rows between two plain lines of one step."""


@contextmanager
def shown_progress() -> Iterator[Callable[[Progress], None]]:
    """What to call with each Progress while this is entered."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("")
        yield lambda progress: bar.update(task, description=_line(progress))


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
