"""The commands of litellm-budget that change budgets. Each says what is in force afterwards."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone

import click

from litellm_budget_plugin.cli.ledgers import CommandLedger, ledger_command
from litellm_budget_plugin.cli.progress import counted
from litellm_budget_plugin.cli.reading import show_limits
from litellm_budget_plugin.cli.table import show
from litellm_budget_plugin.core.commands import MICROS, Sweep
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.budgets import Budgets
from litellm_budget_plugin.manager.entries import micros_from
from litellm_budget_plugin.manager.ledger import DAYS_KEPT


@ledger_command("set")
@click.argument("subject")
@click.argument("sentences", nargs=-1, required=True, metavar="SENTENCE...")
def set_limits(ledger: CommandLedger, as_json: bool, subject: str, sentences: tuple[str, ...]) -> None:
    """Make these the limits of SUBJECT, all of them: '$10 per month' '100 calls/hour' '$2/day for gpt-4o*'.

    What was spent in a window that goes on still counts.
    """
    Budgets(ledger).set_limits(subject, *sentences)
    _done(ledger, as_json, subject)


@ledger_command("raise")
@click.argument("subject")
@click.argument("amount")
@click.option("--until", required=True, metavar="TIME", help="Like 2026-12-24 or 2026-12-24T18:00+01:00.")
def raise_limit(ledger: CommandLedger, as_json: bool, subject: str, amount: str, until: str) -> None:
    """Let SUBJECT spend AMOUNT more on each of its limits in US dollars, until a time.

    A TIME without a zone is in LITELLM_BUDGET_TIMEZONE.
    """
    try:
        micros = micros_from(until, ledger.timezone)
    except BudgetInputError as error:
        raise click.UsageError(f"--until: {error}") from error
    Budgets(ledger).raise_limit(subject, amount, until=datetime.fromtimestamp(micros / MICROS, timezone.utc))
    _done(ledger, as_json, subject)


@ledger_command("top-up")
@click.argument("subject")
@click.argument("amount")
@click.option("--id", "payment", required=True, metavar="ID", help="Counts once: an invoice's number, for instance.")
def top_up(ledger: CommandLedger, as_json: bool, subject: str, amount: str, payment: str) -> None:
    """Add AMOUNT to the balance of SUBJECT. Its calls need room in the balance from then on."""
    Budgets(ledger).top_up(subject, amount, id=payment)
    _done(ledger, as_json, subject)


@ledger_command("refund")
@click.argument("payment", metavar="ID")
def refund(ledger: CommandLedger, as_json: bool, payment: str) -> None:
    """Take the whole of a top-up back, once. What was spent of it stays spent."""
    Budgets(ledger).refund(payment)
    ledger.flush()
    show([{"refunded": payment}], as_json)


@ledger_command("sweep")
def sweep(ledger: CommandLedger, as_json: bool) -> None:
    """Expire holds that are due and forget what is older than LITELLM_BUDGET_RETENTION.

    Services do this every hour by themselves.
    """
    marks_kept = round(ledger.settings.retention * DAY)
    with counted("sweeping"):
        swept = ledger.ask(Sweep(ledger.project, marks_kept, max(DAYS_KEPT * DAY, marks_kept)))
    show([{"expired": swept.expired, "forgotten": swept.forgotten, "folded": swept.folded}], as_json)


def _of_subject(name: str, change: Callable[[Budgets, str], None], what: str) -> click.Command:
    """A command that takes a subject and nothing else."""

    def run(ledger: CommandLedger, as_json: bool, subject: str) -> None:
        change(Budgets(ledger), subject)
        _done(ledger, as_json, subject)

    run.__doc__ = what
    return ledger_command(name)(click.argument("subject")(run))


def _done(ledger: CommandLedger, as_json: bool, subject: str) -> None:
    ledger.flush()
    show_limits(ledger, as_json, subject)


COMMANDS = (
    set_limits,
    _of_subject(
        "clear",
        Budgets.clear_limits,
        "Forget the limits of SUBJECT that were set by hand: those of the environment and the file count again.",
    ),
    raise_limit,
    _of_subject(
        "reset",
        Budgets.reset,
        "Set what SUBJECT has spent in its open windows to nothing. Totals by day and a balance stay.",
    ),
    _of_subject("block", Budgets.block, "Refuse every call of SUBJECT from now on, in every process."),
    _of_subject("unblock", Budgets.unblock, "Let SUBJECT call again."),
    top_up,
    refund,
    sweep,
)
