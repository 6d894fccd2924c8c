"""litellm-budget export and import: what was set by hand, as a file to keep, to edit and to load; and LiteLLM's user_cost.json."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import click

from litellm_budget_plugin.cli.ledgers import CommandLedger, ledger_command
from litellm_budget_plugin.cli.progress import counted
from litellm_budget_plugin.cli.table import show
from litellm_budget_plugin.core.accounts import SCOPES, Subject
from litellm_budget_plugin.core.commands import Accounts, Read
from litellm_budget_plugin.core.csv_cells import guarded, unguarded
from litellm_budget_plugin.errors import BudgetError, BudgetFileError, BudgetInputError
from litellm_budget_plugin.manager.entries import Entry, Plan, apply, entry_from, entry_of, is_set, plan, to_json
from litellm_budget_plugin.manager.snapshot import Snapshot, replace_file
from litellm_budget_plugin.manager.users import Users

_FORMS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".json": "litellm"}
_FORM = click.option(
    "--format", "form", type=click.Choice(["jsonl", "csv", "litellm"]), help="[default: by FILE's name]"
)
_COLUMNS = ("subject", "limits", "with_defaults", "blocked", "raise_by", "raise_until")
_DEFAULT = "default"
"""The cell of limits that are not set by hand, and of a raise that is not there."""
_FLAGS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_BATCH = 200
_MISTAKES = 20


@ledger_command("export")
@click.argument("file")
@_FORM
@click.option("--all", "everybody", is_flag=True, help="Also subjects for whom nothing is set by hand.")
def export(ledger: CommandLedger, as_json: bool, file: str, form: str | None, everybody: bool) -> None:
    """Write what was set by hand to FILE, or to standard output for '-': limits, raises, and who is blocked.

    A file in JSON lines (.jsonl) or CSV (.csv) can be edited and imported. What was spent and paid is not in it: `copy` moves whole
    ledgers. The format litellm (.json) is LiteLLM's user_cost.json, with what each user has spent.
    """
    form = _form(file, form)
    if form == "litellm":
        text, number = Snapshot(Users(ledger), file).text() + "\n", 0
        number = len(json.loads(text))
    else:
        entries = [to_json(entry, ledger.project) for entry in _exported(ledger) if everybody or is_set(entry)]
        text, number = _as_csv(entries) if form == "csv" else _as_lines(entries), len(entries)
    if file == "-":
        click.echo(text, nl=False)
        return
    replace_file(file, text)
    show([{"file": file, "subjects": number}], as_json)


@ledger_command("import")
@click.argument("file")
@_FORM
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
def import_file(ledger: CommandLedger, as_json: bool, file: str, form: str | None, dry_run: bool) -> None:
    """Set what FILE says, or standard input for '-', and show what that changes.

    JSON lines: {"subject": "alice", "limits": ["$10 per month"], "blocked": false, "raise": {"by": "$5", "until": "2026-12-24T18:00Z"}};
    what a line does not name stays, and null takes away. CSV with the columns subject (or user) and limits, and if you like
    blocked, raise_by, raise_until: sentences with ';' between them, an empty cell leaves as it is, 'default' takes away.

    Every line is checked before the first change; a mistake changes nothing. What was spent, held and paid stays. Imported again, a file
    changes nothing more. LiteLLM's user_cost.json (.json) is imported once; users with a budget of their own keep it.
    """
    form = _form(file, form)
    if form == "litellm":
        _import_litellm(ledger, as_json, file, dry_run)
        return
    lines = list(_read(file, form, ledger))
    with counted("comparing", len(lines)) as step:
        plans = _plans(ledger, lines, file, step)
    changes = [(line, one) for line, one in zip(lines, plans) if one.differences]
    with counted("importing", len(changes)) as step:
        rows: list[dict[str, Any]] = []
        for line, one in changes:
            if not dry_run:
                _apply(ledger, one, f"{file}:{line.number}", len(rows))
            subject = ":".join(one.entry.subject)
            rows += [{"line": line.number, "subject": subject, **each._asdict()} for each in one.differences]
            step(1)
    if changes and not dry_run:
        ledger.flush()
    show(rows, as_json, "nothing to change: the ledger is as the file says")
    if dry_run and rows:
        click.echo("nothing was changed (--dry-run)", err=True)


class _Line(NamedTuple):
    number: int
    entry: Entry


def _form(file: str, form: str | None) -> str:
    if form is not None:
        return form
    found = "jsonl" if file == "-" else _FORMS.get(os.path.splitext(file)[1].lower())
    if found is None:
        raise click.UsageError(f"{file!r:.200}: its name ends with none of {', '.join(_FORMS)}; give --format")
    return found


def _exported(ledger: CommandLedger) -> Iterator[Entry]:
    with counted("reading") as step:
        for scope in SCOPES:
            after: str | None = ""
            while after is not None:
                reply = ledger.ask(Read(ledger.project, scope, after=after, defaults=ledger.defaults_of()))
                for name, states in groupby(reply.accounts, key=lambda state: state.ref.subject):
                    step(1)
                    yield entry_of(Subject(scope, name), list(states), reply.now)
                after = reply.after


def _as_lines(entries: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def _as_csv(entries: Iterable[dict[str, Any]]) -> str:
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


def _read(file: str, form: str, ledger: CommandLedger) -> Iterator[_Line]:
    """The lines of a file. Raises click.UsageError for one that says all mistakes, by their lines."""
    mistakes: list[str] = []
    seen: dict[Subject, int] = {}
    for number, given in (_csv_objects if form == "csv" else _json_objects)(_text(file)):
        try:
            if isinstance(given, BudgetInputError):
                raise given
            entry = entry_from(given, ledger.project, ledger.timezone)
            if entry.subject in seen:
                raise BudgetInputError(f"{':'.join(entry.subject)} is in line {seen[entry.subject]} already")
            seen[entry.subject] = number
        except BudgetInputError as error:
            mistakes.append(f"{file}:{number}: {error}")
        else:
            yield _Line(number, entry)
    _refuse(mistakes)


def _refuse(mistakes: Sequence[str]) -> None:
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
        raise click.UsageError(f"{file}: it is no text in UTF-8 (byte {error.start})") from None
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{file!r:.200} cannot be read: {error}") from error


def _json_objects(text: str) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, BudgetInputError(f"it is no JSON: {error}")


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
        yield reader.line_num, BudgetInputError(f"it is no CSV: {error}")
    except BudgetInputError as error:
        yield reader.line_num, error


def _names(cells: Sequence[str]) -> dict[str, int]:
    names = {cell.strip().lower(): place for place, cell in enumerate(cells)}
    known = {*_COLUMNS, "user"}
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise BudgetInputError(f"there is no column {unknown!r:.80}; accepted are {', '.join((*_COLUMNS, 'user'))}")
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


def _plans(ledger: CommandLedger, lines: Sequence[_Line], file: str, step: Callable[[int], None]) -> list[Plan]:
    found: list[Plan] = []
    mistakes: list[str] = []
    for first in range(0, len(lines), _BATCH):
        some = lines[first : first + _BATCH]
        reads = [
            Read(ledger.project, *line.entry.subject, defaults=ledger.defaults_of(line.entry.subject)) for line in some
        ]
        for line, reply in zip(some, ledger.client.ask_all(reads, ledger.patience)):
            if isinstance(reply, BaseException):
                raise reply
            assert isinstance(reply, Accounts)
            try:
                found.append(plan(line.entry, ledger, reply.accounts, reply.now))
            except BudgetInputError as error:
                mistakes.append(f"{file}:{line.number}: {error}")
        step(len(some))
    _refuse(mistakes)
    return found


def _apply(ledger: CommandLedger, one: Plan, where: str, done: int) -> None:
    try:
        apply(one, ledger)
    except BudgetError as error:
        raise click.ClickException(
            f"{where}: {error}; {done} changes before it are in the ledger: import the file again to go on"
        ) from error


def _import_litellm(ledger: CommandLedger, as_json: bool, file: str, dry_run: bool) -> None:
    if file == "-":
        raise click.UsageError("user_cost.json is imported from a file, once for its path")
    snapshot, users = Snapshot(Users(ledger), file), Users(ledger)
    if not os.path.isfile(file):
        raise click.UsageError(f"{file!r:.200} cannot be read: there is no such file")
    try:
        records = snapshot.records()
    except BudgetFileError as error:
        raise click.UsageError(str(error)) from error
    if snapshot.known():
        click.echo(f"{file} was imported or written before: nothing to change", err=True)
        return
    rows = [
        {"subject": f"user:{user}", "total_budget": record["total_budget"], "spent": record.get("current_cost", 0)}
        for user, record in records.items()
        if not users.get_any(user).own
    ]
    if not dry_run:
        snapshot.load()
        ledger.flush()
    show(
        ({name: str(value) for name, value in row.items()} for row in rows),
        as_json,
        "nothing to change: every user has a budget",
    )
    if dry_run and rows:
        click.echo("nothing was changed (--dry-run)", err=True)


COMMANDS = (export, import_file)
