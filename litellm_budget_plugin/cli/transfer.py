"""litellm-budget export and import: a file of the values that were set by hand, to keep, to edit and to load; and LiteLLM's
user_cost.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import click

from litellm_budget_plugin.cli.entry_files import Line, as_csv, as_lines, read_entries, refuse
from litellm_budget_plugin.cli.ledgers import CommandLedger, ledger_command
from litellm_budget_plugin.cli.progress import counted
from litellm_budget_plugin.cli.table import show
from litellm_budget_plugin.core.accounts import SCOPES, Subject
from litellm_budget_plugin.core.commands import Accounts, Read
from litellm_budget_plugin.errors import BudgetError, BudgetFileError, BudgetInputError
from litellm_budget_plugin.manager.entries import Entry, Plan, apply, entry_of, is_set, plan, to_json
from litellm_budget_plugin.manager.snapshot import Snapshot, replace_file
from litellm_budget_plugin.manager.users import Users

_FORMS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".json": "litellm"}
_FORM = click.option(
    "--format", "form", type=click.Choice(["jsonl", "csv", "litellm"]), help="[default: by FILE's name]"
)
_BATCH = 200


@ledger_command("export")
@click.argument("file")
@_FORM
@click.option("--all", "everybody", is_flag=True, help="Also subjects for which nothing is set by hand.")
def export(ledger: CommandLedger, as_json: bool, file: str, form: str | None, everybody: bool) -> None:
    """Write what was set by hand to FILE, or to standard output for '-': limits, raises, and who is blocked.

    A file in JSON lines (.jsonl) or CSV (.csv) can be edited and imported. It does not contain what was spent and paid: `copy` moves
    whole ledgers. The format litellm (.json) is LiteLLM's user_cost.json, with what each user has spent.
    """
    form = _form(file, form)
    if form == "litellm":
        text, number = Snapshot(Users(ledger), file).text() + "\n", 0
        number = len(json.loads(text))
    else:
        entries = [to_json(entry, ledger.project) for entry in _exported(ledger) if everybody or is_set(entry)]
        text, number = as_csv(entries) if form == "csv" else as_lines(entries), len(entries)
    if file == "-":
        click.echo(text, nl=False)
        return
    replace_file(file, text)
    show([{"file": file, "subjects": number}], as_json)


@ledger_command("import", creates=True)
@click.argument("file")
@_FORM
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
def import_file(ledger: CommandLedger, as_json: bool, file: str, form: str | None, dry_run: bool) -> None:
    """Set what FILE says, or standard input for '-', and show what that changes.

    JSON lines: {"subject": "alice", "limits": ["$10 per month"], "blocked": false, "raise": {"by": "$5", "until": "2026-12-24T18:00Z"}};
    a field that a line does not name is kept, and null removes it. CSV has the columns subject (or user) and limits, and optionally
    blocked, raise_by, raise_until: sentences are separated by ';', an empty cell keeps the value, 'default' removes it.

    Every line is checked before the first change; a mistake changes nothing. What was spent, held and paid is kept. Importing a file again
    changes nothing more. LiteLLM's user_cost.json (.json) is imported once; users with a budget of their own keep it.
    """
    form = _form(file, form)
    if form == "litellm":
        _import_litellm(ledger, as_json, file, dry_run)
        return
    lines = list(read_entries(file, form, ledger.project, ledger.timezone))
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
    show(rows, as_json, "nothing to change: the ledger matches the file")
    if dry_run and rows:
        click.echo("nothing was changed (--dry-run)", err=True)


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


def _plans(ledger: CommandLedger, lines: Sequence[Line], file: str, step: Callable[[int], None]) -> list[Plan]:
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
    refuse(mistakes)
    return found


def _apply(ledger: CommandLedger, one: Plan, where: str, done: int) -> None:
    try:
        apply(one, ledger)
    except BudgetError as error:
        raise click.ClickException(
            f"{where}: {error}; {done} changes before it were made: import the file again to continue"
        ) from error


def _import_litellm(ledger: CommandLedger, as_json: bool, file: str, dry_run: bool) -> None:
    if file == "-":
        raise click.UsageError("user_cost.json is imported once for each path: name a file, not '-'")
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
