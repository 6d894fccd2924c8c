"""litellm-budget copy: copies a ledger from one store to another."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing

import click

from litellm_budget_plugin.cli.ledgers import ledger_url, opened
from litellm_budget_plugin.cli.progress import shown_progress
from litellm_budget_plugin.core.money import NANOS_PER_USD, usd_text
from litellm_budget_plugin.stores import copying


@click.command()
@click.argument("source", callback=ledger_url)
@click.argument("target", callback=ledger_url)
@click.option("--project", "projects", multiple=True, metavar="NAME", help="Copy this project; may be repeated.")
@click.option("--replace", is_flag=True, help="Update a target that was copied while the source was in use.")
@click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")
def copy(source: str, target: str, projects: tuple[str, ...], replace: bool, as_json: bool) -> None:
    """Copy a ledger from SOURCE to TARGET, and verify that it arrived.

    Both are URLs of stores, or env:NAME for the environment variable that holds one: every user of this machine can read
    the arguments of a command. First stop all processes that write to either of them. If a copy was interrupted, run the
    same command again. A target that holds more than the source is refused, so that no charge made there is lost.
    """
    if source == target:
        raise click.UsageError("SOURCE and TARGET are the same")
    with ExitStack() as stack:
        old = stack.enter_context(closing(opened(source)))
        new = stack.enter_context(closing(opened(target, new=True)))
        progress = stack.enter_context(shown_progress())
        copied = copying.copy(old, new, projects or None, replace=replace, progress=progress)
    for project, totals, written in copied:
        if as_json:
            said = {"project": project, "written": written, "rows": totals.rows, "accounts": totals.accounts}
            said |= {"open_holds": totals.open_holds, "marks": totals.marks, "totals": totals.usage_rows}
            said |= {"spent": usd_text(totals.spent.usd), "held": usd_text(totals.held.usd)}
            click.echo(json.dumps(said, ensure_ascii=False))
            continue
        click.echo(
            f"{project}: verified {totals.rows:,} rows ({totals.accounts:,} accounts, {totals.open_holds:,} open holds, "
            f"{totals.marks:,} marks, {totals.usage_rows:,} totals), {written:,} of them written now; "
            f"the accounts sum to ${totals.spent.usd / NANOS_PER_USD:,.6f} spent, ${totals.held.usd / NANOS_PER_USD:,.6f} held"
        )
