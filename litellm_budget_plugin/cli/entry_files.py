"""Files of budgets: entries as JSON lines and as CSV, and the messages about mistakes in them."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import click

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.csv_cells import guarded, unguarded
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.entries import Entry, entry_from

_COLUMNS = ("subject", "limits", "with_defaults", "blocked", "raise_by", "raise_until")
_DEFAULT = "default"
"""The cell for limits that are not set by hand, and for a raise that does not exist."""
_FLAGS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_MISTAKES = 20


class Line(NamedTuple):
    """An entry with the number of its line."""

    number: int
    entry: Entry


def as_lines(entries: Iterable[dict[str, Any]]) -> str:
    """Return entries as JSON lines."""
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def as_csv(entries: Iterable[dict[str, Any]]) -> str:
    """Return entries as CSV."""
    out = io.StringIO()
    written = csv.writer(out, lineterminator="\n")
    written.writerow(_COLUMNS)
    for entry in entries:
        given = entry["raise"] or {"by": _DEFAULT, "until": ""}
        limits = _DEFAULT if entry["limits"] is None else "; ".join(entry["limits"])
        row = (
            entry["subject"],
            limits,
            entry.get("with_defaults", False),
            entry["blocked"],
            given["by"],
            given["until"],
        )
        written.writerow(map(guarded, row))
    return out.getvalue()


def read_entries(file: str, form: str, project: str, zone: str) -> Iterator[Line]:
    """Yield the lines of a file. Raises click.UsageError with all mistakes, each with its line, or for a file that cannot be
    read.
    """
    mistakes: list[str] = []
    seen: dict[Subject, int] = {}
    text = _text(file)
    names = {cell.strip().lower() for cell in text.lstrip().partition("\n")[0].split(",")}
    if form == "jsonl" and names & {"subject", "user"}:
        raise click.UsageError(f"{file}: this looks like CSV: give --format csv")
    for number, given in (_csv_objects if form == "csv" else _json_objects)(text):
        try:
            if isinstance(given, BudgetInputError):
                raise given
            entry = entry_from(given, project, zone)
            if entry.subject in seen:
                raise BudgetInputError(f"{':'.join(entry.subject)} is in line {seen[entry.subject]} already")
            seen[entry.subject] = number
        except BudgetInputError as error:
            mistakes.append(f"{file}:{number}: {error}")
        else:
            yield Line(number, entry)
    refuse(mistakes)


def refuse(mistakes: Sequence[str]) -> None:
    """Raise click.UsageError with the mistakes, if there are any."""
    if mistakes:
        more = [f"and {len(mistakes) - _MISTAKES} more"] if len(mistakes) > _MISTAKES else []
        raise click.UsageError("\n".join(["nothing was changed:", *mistakes[:_MISTAKES], *more]))


def _text(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.buffer.read().decode("utf-8-sig")
        with open(file, "rb") as opened:
            return opened.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file}: it is not UTF-8 text (byte {error.start})") from None
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{file!r:.200} cannot be read: {error}") from error


def _json_objects(text: str) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, BudgetInputError(f"it is not valid JSON: {error}")


def _csv_objects(text: str) -> Iterator[tuple[int, object]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: dict[str, int] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = _names(cells)
                continue
            yield reader.line_num, _csv_object(names, [unguarded(cell.strip()) for cell in cells])
    except csv.Error as error:
        yield reader.line_num, BudgetInputError(f"it is not valid CSV: {error}")
    except BudgetInputError as error:
        yield reader.line_num, error


def _names(cells: Sequence[str]) -> dict[str, int]:
    names = {cell.strip().lower(): place for place, cell in enumerate(cells)}
    known = {*_COLUMNS, "user"}
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise BudgetInputError(f"unknown column {unknown!r:.80}; accepted are {', '.join((*_COLUMNS, 'user'))}")
    if len(names) < len(cells) or len({"subject", "user"} & set(names)) != 1:
        raise BudgetInputError("the first line names the columns, each once: subject or user, limits, ...")
    return names


def _csv_object(names: dict[str, int], cells: Sequence[str]) -> object:
    if len(cells) > len(names):
        return BudgetInputError(
            f"it has {len(cells)} cells for {len(names)} columns; a cell with a comma is put in quotes"
        )
    given = {name: cells[place] for name, place in names.items() if place < len(cells) and cells[place] != ""}
    found: dict[str, Any] = {}
    if "user" in given:
        found["subject"] = f"user:{given['user']}"
    elif "subject" in given:
        found["subject"] = given["subject"]
    if "limits" in given:
        found["limits"] = None if given["limits"].lower() == _DEFAULT else [given["limits"]]
    for name in ("blocked", "with_defaults"):
        if name in given:
            found[name] = _FLAGS.get(given[name].lower(), given[name])
    if given.get("raise_by", "").lower() == _DEFAULT:
        found["raise"] = None
    elif "raise_by" in given or "raise_until" in given:
        found["raise"] = {"by": given.get("raise_by"), "until": given.get("raise_until")}
    return found
