"""litellm-budget usage: sums up calls, tokens and spend by day, model or subject."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import click

from litellm_budget_plugin.cli import focus
from litellm_budget_plugin.cli.ledgers import CommandLedger, ledger_command
from litellm_budget_plugin.cli.table import show
from litellm_budget_plugin.core.accounts import SCOPES
from litellm_budget_plugin.core.csv_cells import guarded
from litellm_budget_plugin.manager.budgets import PERIODS, Budgets, UsageTotals


class _Day(click.DateTime):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            reason = f"a day is written like 2026-11-30, got {str(value)!r:.80}; --days 2 means yesterday and today"
            raise click.BadParameter(reason, ctx, param) from None


_DATE = _Day(["%Y-%m-%d"])
_ONE_OF = ", ".join(PERIODS)


@ledger_command("usage")
@click.option("--by", metavar="WHAT", help=f"Group by one or more of {_ONE_OF}, separated by commas.  [default: day]")
@click.option("--since", type=_DATE, metavar="DATE", help="First day, in UTC.")
@click.option("--until", type=_DATE, metavar="DATE", help="Last day, in UTC.")
@click.option("--days", type=click.IntRange(1, 100_000), help="The last days, today's included, in UTC.")
@click.option("--subject", metavar="SUBJECT", help="Only this subject.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json", "focus"]), help="[default: table]")
@click.option(
    "--provider", metavar="NAME", help="The provider of the models, for FOCUS: the ledger does not record it."
)
def usage(  # noqa: PLR0917  # click calls it by names
    ledger: CommandLedger,
    as_json: bool,
    by: str | None,
    since: datetime | None,
    until: datetime | None,
    days: int | None,
    subject: str | None,
    form: str | None,
    provider: str | None,
) -> None:
    """Sum up calls, tokens and spend. Days before the last 400 are one row, "before".

    A table ends with a total; a call with several tags counts for each of them. The format focus is CSV by the FinOps Open Cost and
    Usage Specification 1.2, a row for each day, model and user, or whichever of team, tag, run and project --by names.
    """
    if as_json and form not in (None, "json"):
        raise click.UsageError("--json means --format json: give one of them")
    if days is not None and (since is not None or until is not None):
        raise click.UsageError("--days, and --since or --until, exclude each other")
    if provider is not None and form != "focus":
        raise click.UsageError("--provider needs --format focus")
    first, last = (None if day is None else day.date() for day in (since, until))
    if days is not None:
        first = datetime.now(timezone.utc).date() - timedelta(days=days - 1)
    if first is not None and last is not None and first > last:
        raise click.UsageError("--since is after --until")
    names = [name.strip() for name in (by or ("user" if form == "focus" else "day")).split(",")]
    if form == "focus":
        _print_focus(ledger, names, first, last, subject, provider)
        return
    found = Budgets(ledger).usage_by(names, since=first, until=last, subject=subject)
    if form == "csv":
        columns = (*names, *UsageTotals._fields)
        _print_csv(columns, ((*keys, *totals) for keys, totals in found))
        return
    rows = [{**dict(zip(names, keys)), **totals._asdict()} for keys, totals in found]
    as_json = as_json or form == "json"
    if rows and not as_json:
        sums = UsageTotals(*(sum(each) for each in zip(*(totals for _, totals in found))))
        sums = sums._replace(spent=sums.spent.normalize())
        rows.append({**dict.fromkeys(names, ""), names[0]: "total", **sums._asdict()})
    show(rows, as_json, "no calls")


def _print_focus(
    ledger: CommandLedger,
    names: Sequence[str],
    since: date | None,
    until: date | None,
    subject: str | None,
    provider: str | None,
) -> None:
    [scope, *more] = names
    if more or scope not in SCOPES:
        raise click.UsageError(f"--format focus is by one of {', '.join(SCOPES)}, always by day and model as well")
    found = Budgets(ledger).usage_by((scope, "day", "model"), since=since, until=until, subject=subject)
    _print_csv(focus.COLUMNS, focus.rows(ledger.project, scope, found, provider))
    before = sum((totals.spent for (_, day, _), totals in found if day == "before"), Decimal(0))
    if before:
        click.echo(f"days before the last 400 have no dates and are left out: ${before:f}", err=True)


def _print_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(columns)
    for row in rows:
        out.writerow([f"{cell:f}" if isinstance(cell, Decimal) else guarded(cell) for cell in row])
