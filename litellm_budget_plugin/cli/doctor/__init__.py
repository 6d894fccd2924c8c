"""litellm-budget doctor: checks whether everything works here, and shows where each value in force comes from."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import click
from rich.console import Console

from litellm_budget_plugin.cli.doctor import litellm as on_litellm
from litellm_budget_plugin.cli.doctor import settings as on_settings
from litellm_budget_plugin.cli.doctor import store as on_store
from litellm_budget_plugin.cli.doctor.finding import CODES, Finding, failed, printable, warning
from litellm_budget_plugin.cli.ledgers import given_settings, ledger_options
from litellm_budget_plugin.cli.unnamed import ADVICE, unnamed
from litellm_budget_plugin.errors import BudgetError, BudgetInputError
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.protocol import Store

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command()
@ledger_options
def doctor(store: str | None, project: str | None, as_json: bool) -> None:
    """Check everything that budgets depend on, and say what to repair.

    Makes mock calls on a ledger in memory to prove that calls of the installed LiteLLM are refused and charged; shows the settings in force and
    where each comes from (defaults by name with --json); measures how fast the store answers, with reads and with holds in a project of its own;
    compares the models used in the last 30 days with LiteLLM's prices. No request to a provider is made, and nothing is charged or left in the ledger.
    LiteLLM fetches its list of prices when it is imported, as it does in a service.

    Exit codes: 0 all is well, 1 there are warnings, 2 something failed, 3 bad arguments.
    """
    try:
        given = given_settings(store, project)
    except BudgetInputError as error:
        raise click.UsageError(str(error)) from error
    worst = 0
    with _quiet(), _progress() as say:
        for finding in findings(given, say, as_json):
            worst = max(worst, CODES[finding.state])
            say("")
            _show(finding, as_json)
    raise click.exceptions.Exit(worst)


def findings(given: Mapping[str, Any], say: Callable[[str], None], every: bool = True) -> Iterator[Finding]:
    """Yield every finding as it comes; with `every`, name also the settings that are defaults. `say` is called with the next
    check's name. Raises nothing.
    """
    say("settings")
    yield from _safely("settings", lambda: on_settings.check_settings(given, every))
    settings, found = on_settings.check_values(given)
    yield found
    recent: on_litellm.Recent | None = None
    if settings is not None:
        policy, limits = on_settings.check_file(settings)
        yield from limits
        say("the store")
        opened, found = on_store.open_it(settings)
        yield found
        by_hand, accounts = False, 0
        if opened is not None:
            with contextlib.closing(opened) as asked:
                yield from _safely("store", lambda: _store_findings(asked, settings))
                with contextlib.suppress(BudgetError):  # a finding above says so
                    by_hand = True
                    by_hand, accounts = on_store.limited(asked, settings.project, policy)
                    recent = on_litellm.recent(asked, settings.project)
        if accounts:
            yield warning("limits", unnamed(accounts), ADVICE)
        elif policy is not None and not (policy.limited or by_hand):
            yield on_settings.NOTHING_LIMITED
        yield from _safely("disk", lambda: on_store.check_disk(settings))
        yield from _safely("journal", lambda: [on_store.check_journal(settings)])
    say("LiteLLM, which takes some seconds to import")
    yield on_litellm.check_version()
    yield from _safely("gate", on_litellm.check_gate)
    if recent is not None:
        say("prices")
        used = recent
        yield from _safely("prices", lambda: on_litellm.check_prices(used))
        yield on_litellm.check_estimated(used)


def _store_findings(store: Store, settings: BudgetSettings) -> Iterator[Finding]:
    yield from on_store.check_answers(store, settings)
    yield on_store.check_writes(store, settings)


def _safely(check: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a check. A check that fails is a finding, too."""
    try:
        # LiteLLM sometimes prints. Standard output is for findings only.
        with contextlib.redirect_stdout(sys.stderr):
            found = iter(look())
        while True:
            with contextlib.redirect_stdout(sys.stderr):
                finding = next(found, None)
            if finding is None:
                return
            yield finding
    except BudgetError as error:
        yield failed(check, printable(str(error), 1000), "repair it and run this again")
    except Exception as error:  # noqa: BLE001  # whatever is broken here, the other checks are wanted
        said = printable(f"{type(error).__name__}: {error}", 1000)
        yield failed(
            check, f"this could not be checked: {said}", "repair what it names; if the fault is not yours, report it"
        )


def _show(finding: Finding, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(finding._asdict(), ensure_ascii=False))
        return
    said = " ".join(finding.said.split())
    click.echo(f"{click.style(f'{finding.state:7}', _COLOURS[finding.state])}  {finding.check}: {said}")
    if finding.advice:
        click.echo(f"{'':9}→ {finding.advice}")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Yield a function that names the current check on a terminal; "" clears the line."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    status = console.status("")

    def say(what: str) -> None:
        if what:
            status.update(f"checking {what} …")
            status.start()
        else:
            status.stop()

    try:
        yield say
    finally:
        status.stop()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Mute the logs of the package and of LiteLLM, because findings already say the same."""
    loggers = [
        logging.getLogger(name) for name in ("litellm_budget_plugin", "LiteLLM", "LiteLLM Router", "LiteLLM Proxy")
    ]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was in zip(loggers, before):
            logger.disabled = was
