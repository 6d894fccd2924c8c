"""Ledgers as arguments and options of a command."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import closing
from typing import Any

import click

from litellm_budget_plugin.core.commands import BaseCommand, ReplyT_co
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.policies import Policies
from litellm_budget_plugin.manager.worker import StoreWorker
from litellm_budget_plugin.settings import BudgetSettings, url_from
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import open_store
from litellm_budget_plugin.stores.sqlite.files import path_from

_TIMEOUT = 30.0
"""Seconds that a command waits for a store. This is long, because no LLM call waits for the command."""


def ledger_url(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Return the URL that an argument names: its own text, or for `env:NAME` the value of the environment variable NAME."""
    try:
        url = url_from(value)
    except BudgetInputError as error:
        raise click.BadParameter(str(error), context, parameter) from error
    if url.lower().startswith("memory:"):
        reason = "memory:// is a ledger of this command alone: it is empty and ends with it"
        raise click.BadParameter(reason, context, parameter)
    return url


class NoLedger(click.ClickException):
    """The settings name a ledger that does not exist."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"there is no ledger {path}; a service creates its own when it starts; set, block, import and top-up create one with --create"
        )


def opened(url: str, *, new: bool = False) -> Store:
    """Open the store at a URL. Raises click.UsageError for a URL that names no store, and BudgetStoreError.

    A file that does not exist is created only if it may be `new`, because a mistyped name is not an empty ledger. Otherwise
    raises NoLedger.
    """
    try:
        scheme, _, rest = url.partition("://")
        if not new and scheme.lower() == "sqlite" and not os.path.exists(path := path_from(rest)):
            raise NoLedger(path)
        return open_store(url, timeout=_TIMEOUT)
    except BudgetInputError as error:
        raise click.UsageError(str(error)) from error


class CommandLedger(BudgetLedger):
    """One project's ledger for one command: it starts no thread, opens no journal and counts no metrics.

    Raises click.UsageError for a store that cannot be used, NoLedger for a file that does not exist unless `create` is set,
    BudgetStoreError for a store that does not answer.
    """

    def __init__(
        self, settings: BudgetSettings, create: bool = False
    ) -> None:  # it shares nothing with the ledgers of a service
        self.settings, self.project, self.policies = settings, settings.project, Policies(settings)
        self.patience = _TIMEOUT
        if settings.url.lower().startswith("memory:"):
            raise click.UsageError("memory:// ends with its process: give --store, or LITELLM_BUDGET_STORE_URL")
        # Without a journal the worker only holds the client, and its thread never gets any work.
        self.worker = StoreWorker(opened(settings.url, new=create), _TIMEOUT)
        self.client = self.worker.client

    def ask(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        """Return the store's reply. Raises BudgetStoreError, BudgetInputError."""
        return self.client.ask(command, self.patience)

    def flush(self) -> None:
        """Return once the changes would survive a power cut. Raises BudgetStoreError."""
        self.client.sync()

    def close(self) -> None:
        """Close the store."""
        self.worker.release()


def ledger_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options of commands on a ledger: `store`, `project` and `as_json`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="JSON, one object a line."),
        click.option("--project", metavar="NAME", help="The project of the ledger.  [default: as the callback]"),
        click.option("--store", metavar="URL", help="A store's URL, or env:NAME.  [default: as the callback]"),
    ):
        function = option(function)
    return function


def ledger_command(
    name: str, store_failure: int = 1, creates: bool = False
) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function that is called with a ledger, `as_json`, and its own parameters by name.

    The command exits with `store_failure` if the store fails. With `creates` it has an option --create, which makes the ledger.
    """
    option = click.option("--create", is_flag=True, help="Create the ledger if there is none.")

    def made(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(store: str | None, project: str | None, as_json: bool, create: bool = False, **given: Any) -> None:
            if create and given.get("dry_run"):
                raise click.UsageError("--create and --dry-run exclude each other")
            try:
                with closing(CommandLedger(BudgetSettings(**given_settings(store, project)), create)) as ledger:
                    function(ledger, as_json, **given)
            except BudgetInputError as error:
                raise click.UsageError(str(error)) from error
            except BudgetStoreError as error:
                click.echo(f"Error: {error}", err=True)
                raise click.exceptions.Exit(store_failure) from error

        return click.command(name)(ledger_options(option(run) if creates else run))

    return made


def given_settings(store: str | None, project: str | None) -> dict[str, Any]:
    """Return --store and --project as arguments of BudgetSettings. Raises BudgetInputError."""
    given: dict[str, Any] = {} if project is None else {"project": project}
    if store is not None:
        given |= {"store_url": (url := url_from(store)), "client_type": "local", "api_base": None}
        if not url.lower().startswith(("http:", "https:")):
            given |= {"api_key": None, "headers": {}}  # those of the environment are for the environment's endpoint
    return given
