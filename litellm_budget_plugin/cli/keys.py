"""litellm-budget keys: manages the API keys of a server, in the ledger that it serves."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import datetime, timezone

import click

from litellm_budget_plugin.cli.ledgers import ledger_url, opened
from litellm_budget_plugin.core.commands import MICROS
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.server.keys import Key, create_key, list_keys, revoke_key

_JSON = click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")


@click.group()
def keys() -> None:
    """Create, list and revoke the API keys of `litellm-budget serve`. Each opens one project.

    STORE is the URL of the ledger that is served, or env:NAME for the environment variable that holds it.
    """


@keys.command()
@click.argument("store", callback=ledger_url)
@click.option("--project", required=True, metavar="NAME", help="The project that the key opens.")
@click.option("--read-only", is_flag=True, help="The key may only read.")
@click.option("--label", default="key", show_default=True, help="What the key is for, up to 100 characters.")
@_JSON
def create(store: str, project: str, read_only: bool, label: str, as_json: bool) -> None:
    """Create a key and print it. It cannot be shown again: the ledger keeps only a digest of it."""
    with closing(opened(store, new=True)) as ledger:
        try:
            key, text = create_key(ledger, project, "read-only" if read_only else "read-write", label)
        except BudgetInputError as error:
            raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps({**_shown(key), "key": text}))
        return
    click.echo(text)
    click.echo(f"{key.access} for project {project!r}; servers accept it within two seconds", err=True)


@keys.command("list")
@click.argument("store", callback=ledger_url)
@_JSON
def list_command(store: str, as_json: bool) -> None:
    """List the valid keys, without their secrets."""
    with closing(opened(store)) as ledger:
        found = sorted(list_keys(ledger), key=lambda key: (key.project, key.created_at))
    for key in found:
        click.echo(json.dumps(_shown(key)) if as_json else "  ".join(_shown(key).values()))
    if not found:
        click.echo("no keys", err=True)


@keys.command()
@click.argument("store", callback=ledger_url)
@click.argument("key")
@_JSON
def revoke(store: str, key: str, as_json: bool) -> None:
    """Revoke KEY: its id, as `list` shows it, or the key itself. Servers refuse it within two seconds."""
    with closing(opened(store)) as ledger:
        try:
            gone = revoke_key(ledger, key)
        except BudgetInputError as error:
            raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(_shown(gone)))
        return
    click.echo(f"revoked {gone.id} ({gone.label}), {gone.access} for project {gone.project!r}")


def _shown(key: Key) -> dict[str, str]:
    created = datetime.fromtimestamp(key.created_at / MICROS, timezone.utc)
    return {
        "id": key.id,
        "project": key.project,
        "access": key.access,
        "created": created.isoformat(timespec="seconds"),
        "label": key.label,
    }
