"""The commands of litellm-budget that read: status, users, teams, runs, show."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import click

from litellm_budget_plugin.cli.ledgers import CommandLedger, ledger_command
from litellm_budget_plugin.cli.progress import counted
from litellm_budget_plugin.cli.table import NEAR, show
from litellm_budget_plugin.cli.unnamed import Known
from litellm_budget_plugin.core.accounts import SCOPES, Subject
from litellm_budget_plugin.manager.budgets import Budgets, UsageTotals, parse_subject
from litellm_budget_plugin.manager.forecasts import Forecast
from litellm_budget_plugin.manager.standing import read_standings, standings

_DAYS = 7


@ledger_command("status", store_failure=2)
def status(ledger: CommandLedger, as_json: bool) -> None:
    """Show who is near a limit (80 %) or at it.

    Exit codes: 0 nobody, 1 somebody is near, or the ledger counts against limits that these settings do not name, 2 somebody is at a limit,
    or the store does not answer, 3 bad arguments or settings. Money held for calls in flight counts as spent.
    """
    known = Known(ledger)
    with counted("reading") as step:
        found = known.look(one for scope in SCOPES for one in standings(ledger, scope, step))
        near = [one for one in found if one.used >= NEAR]
    near.sort(key=lambda one: -one.used)
    budgets = Budgets(ledger)
    rows = ({**one.row(), "runs_out_at": _run_out(budgets.forecast(one.subject))} for one in near)
    show(rows, as_json, "nobody is near a limit")
    known.warn()
    if near or known.doubtful:
        raise click.exceptions.Exit(2 if near and near[0].used >= 1 else 1)


def _run_out(forecast: Forecast | None) -> datetime | None:
    return None if forecast is None else forecast.runs_out_at


def _list(name: str, scope: str) -> click.Command:
    def listed(ledger: CommandLedger, as_json: bool) -> None:
        with counted("reading") as step:
            known = Known(ledger)
            rows = (one.row() for one in known.look(standings(ledger, scope, step)))
            found = rows if as_json else list(rows)
        show(found, as_json, f"no {name}")
        known.warn()

    listed.__doc__ = f"List the {name}: what is spent, held and left on the budget that is nearest to its limit."
    return ledger_command(name)(listed)


@ledger_command("show")
@click.argument("subject")
def show_subject(ledger: CommandLedger, as_json: bool, subject: str) -> None:
    """Show the limits of SUBJECT, what was spent and held, its balance, a forecast, and its last seven days."""
    show_limits(ledger, as_json, subject)
    budgets = Budgets(ledger)
    if (forecast := budgets.forecast(subject)) is not None:
        show([{"forecast": forecast.sentence}], as_json)
    since = datetime.now(timezone.utc).date() - timedelta(days=_DAYS - 1)
    show(
        ({"day": row.key, **UsageTotals(*row[1:])._asdict()} for row in budgets.usage(since=since, subject=subject)),
        as_json,
        f"no calls since {since}",
    )


def show_limits(ledger: CommandLedger, as_json: bool, subject: str) -> None:
    """Print each budget of a subject that is in force, its raise and the end of the raise, and the balance if it was ever
    topped up.
    """
    named = Subject("project", ledger.project) if subject == "project" else parse_subject(subject)
    known = Known(ledger)
    [found] = known.look(read_standings(ledger, [named]))
    rows = list(found.rows())
    if not as_json and not any(row["raised"] for row in rows):  # the sentence contains the limit
        rows = [
            {name: one for name, one in row.items() if name not in ("limit", "raised", "raised_until")} for row in rows
        ]
    show(rows, as_json)
    budgets = Budgets(ledger)
    if budgets.payments(subject):
        show([{"balance": budgets.balance(subject)}], as_json)
    known.warn()


COMMANDS = (status, _list("users", "user"), _list("teams", "team"), _list("runs", "run"), show_subject)
