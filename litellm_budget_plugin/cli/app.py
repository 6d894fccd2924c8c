"""The commands under one name; each has a file of its own."""

from __future__ import annotations

import errno
from typing import Any

import click

from litellm_budget_plugin.cli import changing, reading
from litellm_budget_plugin.cli.alerts import alerts
from litellm_budget_plugin.cli.check import check
from litellm_budget_plugin.cli.copy import copy
from litellm_budget_plugin.cli.journal import journal
from litellm_budget_plugin.cli.keys import keys
from litellm_budget_plugin.cli.run import run
from litellm_budget_plugin.cli.serve import serve
from litellm_budget_plugin.errors import BudgetError


class _App(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BudgetError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever reads the output has gone; click ends quietly
                raise
            raise click.ClickException(str(error)) from error


@click.group(cls=_App, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="litellm-budget-plugin")
def app() -> None:
    """Look after the budgets and the ledgers of litellm-budget-plugin.

    A SUBJECT is alice or user:alice, team:search, tag:batch, run:42, or project. Amounts are written like '$5'.
    """


for command in (*reading.COMMANDS, *changing.COMMANDS, alerts, check, copy, journal, keys, run, serve):
    app.add_command(command)
