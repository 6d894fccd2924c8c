"""litellm-budget top: shows, with regular updates, who has used most of a budget."""

from __future__ import annotations

import heapq
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, NamedTuple

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from litellm_budget_plugin.cli.ledgers import CommandLedger, ledger_command
from litellm_budget_plugin.cli.progress import counted
from litellm_budget_plugin.cli.table import show, table_of
from litellm_budget_plugin.cli.unnamed import Known
from litellm_budget_plugin.core.accounts import SCOPES
from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.manager.standing import SubjectStanding, standings

_LOOK_SECONDS = 0.2
"""Seconds between two checks for pressed keys, each with a redraw of the screen."""


class Frame(NamedTuple):
    """The result of one reading of the ledger: the number of its subjects, and those that have used most. `at` is in seconds
    since 1970; `warning` says that there may be limits that the settings do not name.
    """

    subjects: int
    first: tuple[SubjectStanding, ...]
    at: float
    warning: str | None = None


@ledger_command("top")
@click.option("--scope", type=click.Choice(SCOPES), help="Only these.  [default: all]")
@click.option("--rows", default=20, show_default=True, type=click.IntRange(1, 1000), help="Subjects to show.")
@click.option(
    "--interval", default=2.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Seconds between updates."
)
@click.option("--once", is_flag=True, help="Show the figures once and end, as in a pipe.")
def top(ledger: CommandLedger, as_json: bool, scope: str | None, rows: int, interval: float, once: bool) -> None:
    """Watch who has used most of a budget. On a terminal, q quits; elsewhere, the figures are printed once.

    Money that is held for calls in flight counts as spent.
    """
    scopes = SCOPES if scope is None else (scope,)
    if once or as_json or not sys.stdout.isatty():
        with counted("reading") as step:
            found = _read(ledger, scopes, rows, step)
        show((one.row() for one in found.first), as_json, "no subjects")
        if found.warning is not None:
            click.echo(f"Warning: {found.warning}", err=True)
        return
    _watch(_Reader(ledger, scopes, rows, interval), ledger.project)


def _read(ledger: CommandLedger, scopes: tuple[str, ...], rows: int, seen: Any = lambda _: None) -> Frame:
    number, known = 0, Known(ledger)

    def each() -> Iterator[SubjectStanding]:
        nonlocal number
        for scope in scopes:
            for one in known.look(standings(ledger, scope, seen)):
                number += 1
                yield one

    first = heapq.nlargest(rows, each(), key=lambda one: one.used)
    return Frame(number, tuple(first), time.time(), known.warning())


class _Reader(threading.Thread):
    """Reads the ledger repeatedly on a thread, because a large ledger takes long and the screen must be redrawn meanwhile."""

    def __init__(self, ledger: CommandLedger, scopes: tuple[str, ...], rows: int, interval: float) -> None:
        super().__init__(name="litellm-budget-top", daemon=True)
        self._ledger, self._scopes, self._rows, self._interval = ledger, scopes, rows, interval
        self.frame: Frame | None = None
        self.problem = ""
        self.seen = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            self.seen = 0
            try:
                self.frame = _read(self._ledger, self._scopes, self._rows, self._count)
                self.problem = ""
            except _Stopped:
                return
            except (BudgetError, OSError) as error:
                self.problem = str(error)
            self.stopping.wait(self._interval)

    def _count(self, more: int) -> None:
        self.seen += more
        if self.stopping.is_set():
            raise _Stopped


class _Stopped(Exception):
    """Raised to stop a reading after the screen was closed."""


def _watch(reader: _Reader, project: str) -> None:
    reader.start()
    try:
        with _keys() as pressed, Live(console=Console(), screen=True, auto_refresh=False) as live:
            while not pressed(_LOOK_SECONDS):
                live.update(_screen(reader, project), refresh=True)
    finally:
        reader.stopping.set()
        reader.join(1.0)


def _screen(reader: _Reader, project: str) -> Group:
    frame = reader.frame
    said = f"{project}: " + (
        f"{frame.subjects:,} subjects at {datetime.fromtimestamp(frame.at, timezone.utc):%H:%M:%S} UTC"
        if frame is not None
        else f"reading, {reader.seen:,} subjects so far"
    )
    parts: list[Any] = [Text(f"{said}   q quits", style="bold")]
    if reader.problem:
        parts.append(Text(reader.problem, style="red"))
    if frame is not None and frame.warning is not None:
        parts.append(Text(frame.warning, style="yellow"))
    if frame is not None and frame.first:
        parts.append(table_of([one.row() for one in frame.first]))
    return Group(*parts)


@contextmanager
def _keys() -> Iterator[Any]:
    """Yield a function that waits for some seconds, and returns whether q was pressed. At the end the terminal is always
    restored.
    """
    if os.name != "posix" or not sys.stdin.isatty():
        yield _never
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)  # Ctrl-C stays an interrupt
        yield lambda seconds: _pressed(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _never(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _pressed(descriptor: int, seconds: float) -> bool:
    if not select.select([descriptor], [], [], seconds)[0]:
        return False
    read = os.read(descriptor, 1024)
    return not read or b"q" in read.lower()
