"""litellm-budget journal: shows the charges that wait on this machine for a store, and delivers them by hand."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from datetime import datetime, timezone

import click

from litellm_budget_plugin.cli.ledgers import ledger_url, opened
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.delivery import Charge, Delivery
from litellm_budget_plugin.manager.journal import Journal, Seen, deliver_dead_letters
from litellm_budget_plugin.manager.journal_file import DEAD_LETTERS
from litellm_budget_plugin.manager.sharing import journal_directory, store_key
from litellm_budget_plugin.stores.protocol import Store, ask_all
from litellm_budget_plugin.stores.registry import place_of

_TIMEOUT = 30.0
_BATCH = 200


@click.command()
@click.argument("store", callback=ledger_url)
@click.option("--directory", metavar="DIR", help="LITELLM_BUDGET_JOURNAL of the service, if it has one.")
@click.option("--deliver", is_flag=True, help="Deliver the charges that ended processes have left.")
@click.option(
    "--aside", is_flag=True, help="Also deliver charges that were set aside: too old, or from a damaged file."
)
@click.option(
    "--retention", type=click.IntRange(1), default=30, show_default=True, help="RETENTION of the service, in days."
)
@click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")
def journal(store: str, directory: str | None, deliver: bool, aside: bool, retention: int, as_json: bool) -> None:
    """Show the charges that are waiting on this machine for STORE, a URL or env:NAME; deliver them, each once.

    A running process delivers its own. A charge that was set aside may have been charged before, and the store may have
    forgotten it since: check the user's totals before you deliver it.
    """
    key = store_key(store)
    place = journal_directory(key, directory)
    if place is None:
        reason = "off keeps charges in the service's memory only; name a directory"
        raise click.BadParameter(reason, param_hint="--directory")
    files = Journal(place, place_of(key))
    if deliver or aside:
        with closing(opened(store, new=True)) as target:
            _deliver(target, files, retention)
            if aside:
                _deliver_dead_letters(target, files, as_json)
    seen = files.seen()
    for file in seen:
        click.echo(json.dumps(_row(file), ensure_ascii=False) if as_json else _line(file))
    if not seen:
        click.echo(f"nothing is waiting in {place}", err=as_json)
    if deliver and any(not file.in_use and not file.path.endswith(DEAD_LETTERS) for file in seen):
        raise click.ClickException("the remaining charges could not be delivered; the reason is above")


def _deliver(store: Store, files: Journal, retention: int) -> None:
    # This command makes no calls, so there are none that a full journal would have to refuse.
    most, kept_for = sys.maxsize, retention * DAY * 9 // 10
    delivery = Delivery(lambda commands, timeout: ask_all(store, commands, timeout), files, most, lambda _: kept_for)
    delivery.run(_TIMEOUT)
    delivery.close()
    store.sync()


def _deliver_dead_letters(store: Store, files: Journal, as_json: bool) -> None:
    def send(commands: list[Charge]) -> None:
        for first in range(0, len(commands), _BATCH):
            batch = commands[first : first + _BATCH]
            for command, outcome in zip(batch, ask_all(store, batch, _TIMEOUT)):
                if isinstance(outcome, BudgetInputError):
                    raise click.ClickException(f"the charge {command.hold} cannot be stored: {outcome}")
        store.sync()

    for file in files.seen():
        if file.path.endswith(DEAD_LETTERS) and file.entries:
            click.echo(f"{file.path}: {deliver_dead_letters(file.path, send)} delivered", err=as_json)


def _row(file: Seen) -> dict[str, object]:
    since = None if file.since is None else datetime.fromtimestamp(file.since / 1e6, timezone.utc).isoformat()
    return {"file": file.path, "waiting": file.entries, "since": since, "damaged": file.damaged, "state": _state(file)}


def _state(file: Seen) -> str:
    if file.path.endswith(DEAD_LETTERS):
        return "set aside"
    return "its process is running" if file.in_use else "its process has ended"


def _line(file: Seen) -> str:
    since = (
        ""
        if file.since is None
        else f", since {datetime.fromtimestamp(file.since / 1e6, timezone.utc):%Y-%m-%d %H:%M} UTC"
    )
    damaged = f", {file.damaged} damaged" if file.damaged else ""
    return f"{file.path}: {file.entries} waiting{since}{damaged} ({_state(file)})"
