"""The commands of litellm-budget that change budgets. They print the result."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import click

from litellm_budget_plugin.cli.ledgers import CommandLedger, ledger_command
from litellm_budget_plugin.cli.progress import counted
from litellm_budget_plugin.cli.reading import show_limits
from litellm_budget_plugin.cli.table import show
from litellm_budget_plugin.core.accounts import SCOPES, Subject
from litellm_budget_plugin.core.budgets import history_scope
from litellm_budget_plugin.core.commands import MICROS, Read, ReadUsage, Sweep
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.budgets import Budgets, parse_subject
from litellm_budget_plugin.manager.entries import iso_of, micros_from, nanos_from
from litellm_budget_plugin.manager.ledger import DAYS_KEPT

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@ledger_command("set", creates=True)
@click.argument("subject")
@click.argument("sentences", nargs=-1, required=True, metavar="SENTENCE...")
def set_limits(ledger: CommandLedger, as_json: bool, subject: str, sentences: tuple[str, ...]) -> None:
    """Make these the limits of SUBJECT, all of them: '$10 per month' '100 calls/hour' '$2/day for gpt-4o*'.

    Spend in a window that is still open counts.
    """
    Budgets(ledger).set_limits(subject, *sentences)
    _done(ledger, as_json, subject)


@ledger_command("raise")
@click.argument("subject")
@click.argument("amount")
@click.option(
    "--until",
    required=True,
    metavar="TIME",
    help="Like 2026-12-24, 2026-12-24T18:00+01:00, tomorrow, friday, 5d or 12h.",
)
def raise_limit(ledger: CommandLedger, as_json: bool, subject: str, amount: str, until: str) -> None:
    """Let SUBJECT spend AMOUNT more on each of its limits in US dollars, until a time.

    A day means its beginning: the raise ends when that day begins. A TIME without a zone is in LITELLM_BUDGET_TIMEZONE. An AMOUNT of $0 ends
    a raise.
    """
    more = _dollars(amount)
    now = ledger.ask(Read(ledger.project, "project", ledger.project)).now
    try:
        micros = _until(until, now, ledger.timezone)
    except BudgetInputError as error:
        raise click.UsageError(f"--until: {error}; tomorrow, friday, 5d and 12h are accepted, too") from error
    if micros <= now:
        raise click.UsageError(f"--until: {iso_of(micros)} has passed: it must be in the future")
    Budgets(ledger).raise_limit(subject, more, until=datetime.fromtimestamp(micros / MICROS, timezone.utc))
    _done(ledger, as_json, subject)


@ledger_command("top-up", creates=True)
@click.argument("subject")
@click.argument("amount")
@click.option("--id", "payment", required=True, metavar="ID", help="Counts once: an invoice's number, for instance.")
def top_up(ledger: CommandLedger, as_json: bool, subject: str, amount: str, payment: str) -> None:
    """Add AMOUNT to the balance of SUBJECT. Its calls need room in the balance from then on."""
    Budgets(ledger).top_up(subject, _dollars(amount), id=payment)
    _done(ledger, as_json, subject)


@ledger_command("refund")
@click.argument("payment", metavar="ID")
def refund(ledger: CommandLedger, as_json: bool, payment: str) -> None:
    """Take back the whole of a top-up, once. What was already spent of it stays spent."""
    budgets = Budgets(ledger)
    budgets.refund(payment)
    ledger.flush()
    row: dict[str, Any] = {"refunded": payment}
    if (found := _paid(ledger, payment)) is not None:
        owner, amount = found
        row |= {"subject": ":".join(owner), "amount": amount, "balance": budgets.balance(owner)}
    show([row], as_json)


@ledger_command("sweep")
def sweep(ledger: CommandLedger, as_json: bool) -> None:
    """Expire holds that are due, and delete records older than LITELLM_BUDGET_RETENTION.

    Services do this every hour by themselves.
    """
    marks_kept = round(ledger.settings.retention * DAY)
    with counted("sweeping"):
        swept = ledger.ask(Sweep(ledger.project, marks_kept, max(DAYS_KEPT * DAY, marks_kept)))
    show([{"expired": swept.expired, "forgotten": swept.forgotten, "folded": swept.folded}], as_json)


def _paid(ledger: CommandLedger, payment: str) -> tuple[Subject, Decimal] | None:
    """Return the subject and the amount of a top-up, None if there is no such top-up. The ledger can find payments only by
    subject.
    """
    for scope in SCOPES:
        after: str | None = ""
        while after is not None:
            reply = ledger.ask(Read(ledger.project, history_scope(scope), after=after))
            for state in reply.accounts:
                if state.ref.model == payment:
                    return Subject(scope, state.ref.subject), Decimal(state.own_limit or 0).scaleb(-9).normalize()
            after = reply.after
    return None


def _dollars(amount: str) -> Decimal:
    return Decimal(nanos_from(amount)).scaleb(-9)


def _until(text: str, now: int, zone: str) -> int:
    """Return a time in microseconds since 1970, given as ISO 8601, as the name of a coming day, or as days or hours from now.
    Raises BudgetInputError.
    """
    given = text.strip().lower()
    if found := re.fullmatch(r"([0-9]{1,5}) ?([dh])", given):
        return now + int(found[1]) * (DAY if found[2] == "d" else DAY // 24)
    today = datetime.fromtimestamp(now / MICROS, ZoneInfo(zone)).date()
    if given == "tomorrow":
        given = (today + timedelta(days=1)).isoformat()
    elif given in _WEEKDAYS:
        given = (today + timedelta(days=(_WEEKDAYS.index(given) - today.weekday() - 1) % 7 + 1)).isoformat()
    else:
        given = text
    return micros_from(given, zone)


def _of_subject(
    name: str, change: Callable[[CommandLedger, str], None], what: str, creates: bool = False
) -> click.Command:
    """Return a command whose only argument is a subject."""

    def run(ledger: CommandLedger, as_json: bool, subject: str) -> None:
        change(ledger, subject)
        _done(ledger, as_json, subject)

    run.__doc__ = what
    return ledger_command(name, creates=creates)(click.argument("subject")(run))


def _block(ledger: CommandLedger, subject: str) -> None:
    scope, name = Subject("project", ledger.project) if subject == "project" else parse_subject(subject)
    known = scope == "project" or _is_known(ledger, scope, name)
    Budgets(ledger).block(subject)
    if not known:
        others = {state.ref.subject for state in ledger.ask(Read(ledger.project, scope)).accounts} - {name}
        alike = {other.casefold(): other for other in others}
        near = difflib.get_close_matches(name.casefold(), alike, 1)
        said = f"; did you mean {alike[near[0]]!r:.80}?" if near else ""
        click.echo(f"Note: no call has been charged to {name!r:.80}{said}", err=True)


def _is_known(ledger: CommandLedger, scope: str, name: str) -> bool:
    """Return whether the ledger has an account or totals of a subject; True if the endpoint has no totals."""
    if ledger.ask(Read(ledger.project, scope, name)).accounts:
        return True
    try:
        return bool(ledger.ask(ReadUsage(ledger.project, scope, name)).rows)
    except BudgetInputError:  # an endpoint that has no totals
        return True


def _done(ledger: CommandLedger, as_json: bool, subject: str) -> None:
    ledger.flush()
    show_limits(ledger, as_json, subject)


COMMANDS = (
    set_limits,
    _of_subject(
        "clear",
        lambda ledger, subject: Budgets(ledger).clear_limits(subject),
        "Forget the limits of SUBJECT that were set by hand: those of the environment and the file apply again.",
    ),
    raise_limit,
    _of_subject(
        "reset",
        lambda ledger, subject: Budgets(ledger).reset(subject),
        "Set the spend of SUBJECT in its open windows to zero. Totals by day and a balance are kept.",
    ),
    _of_subject("block", _block, "Refuse every call of SUBJECT from now on, in every process.", creates=True),
    _of_subject("unblock", lambda ledger, subject: Budgets(ledger).unblock(subject), "Let SUBJECT call again."),
    top_up,
    refund,
    sweep,
)
