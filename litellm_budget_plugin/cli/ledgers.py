"""Ledgers as arguments of a command."""

from __future__ import annotations

import os

import click

from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.settings import url_from
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import open_store
from litellm_budget_plugin.stores.sqlite.files import path_from

_TIMEOUT = 30.0
"""Seconds that a command line waits for a store: nobody's call waits behind it."""


def ledger_url(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The URL that an argument names: its own text, or what the environment variable NAME holds for `env:NAME`."""
    try:
        url = url_from(value)
    except BudgetInputError as error:
        raise click.BadParameter(str(error), context, parameter) from error
    if url.lower().startswith("memory:"):
        reason = "memory:// is a ledger of this command's own, which is empty and ends with it"
        raise click.BadParameter(reason, context, parameter)
    return url


def opened(url: str, *, new: bool = False) -> Store:
    """The store at a URL. A URL that names none is a usage error; BudgetStoreError goes through.

    Only where it may be `new`, a file that is not there is made: a mistyped name is not an empty ledger.
    """
    try:
        scheme, _, rest = url.partition("://")
        if not new and scheme.lower() == "sqlite" and not os.path.exists(path := path_from(rest)):
            raise click.UsageError(f"there is no ledger {path}; a service makes its own when it starts")
        return open_store(url, timeout=_TIMEOUT)
    except BudgetInputError as error:
        raise click.UsageError(str(error)) from error
