"""Rows on standard output: a table with bars and colours on a terminal, aligned text in a pipe, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

NEAR = 0.8
"""The part of a limit from which a subject is near it."""
_BAR = 12

Row = Mapping[str, Any]


def show(rows: Iterable[Row], as_json: bool, nothing: str = "nothing to show") -> None:
    """Print rows that have the same keys. `used` is a part of a limit, or None; Decimal amounts are US dollars."""
    if as_json:
        for row in rows:  # each as soon as it arrives
            click.echo(json.dumps(row, default=_plain, ensure_ascii=False))
        return
    found = list(rows)
    if not found:
        click.echo(nothing, err=True)
        return
    console = Console()
    if console.is_terminal:
        console.print(table_of(found))
    else:
        lines = [list(found[0]), *([_said(one) for one in row.values()] for row in found)]
        for line in _aligned(lines):
            click.echo(line)


def table_of(rows: Sequence[Row]) -> Table:
    """Return a table for a terminal, with bars and colours."""
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        style = _style(row)
        table.add_row(*(Text(_bar(one) if name == "used" else _said(one), style) for name, one in row.items()))
    return table


def _aligned(lines: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ("  ".join(one.ljust(width) for one, width in zip(line, widths)).rstrip() for line in lines)


def _style(row: Row) -> str:
    used = row.get("used")
    if row.get("blocked") or (used is not None and used >= 1):
        return "red"
    return "yellow" if used is not None and used >= NEAR else ""


def _bar(used: float | None) -> str:
    if used is None:
        return ""
    full = min(_BAR, int(used * _BAR))
    return f"{'█' * full}{'░' * (_BAR - full)} {_said(used)}"


def _plain(value: Any) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value.isoformat())


def _said(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{int(value * 100)}%"  # 99.9 % is not at the limit
    if isinstance(value, Decimal):
        return f"{'-' if value < 0 else ''}${abs(value):,f}"
    return f"{value:%Y-%m-%d %H:%M} UTC" if isinstance(value, datetime) else str(value)
