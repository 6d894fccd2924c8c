"""The commands under one name; each has a file of its own."""

from __future__ import annotations

import errno
from typing import Any

import click

from litellm_budget_plugin.cli.check import check
from litellm_budget_plugin.cli.copy import copy
from litellm_budget_plugin.cli.journal import journal
from litellm_budget_plugin.cli.keys import keys
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
    """Look after the ledgers of litellm-budget-plugin."""


app.add_command(check)
app.add_command(copy)
app.add_command(journal)
app.add_command(keys)
app.add_command(serve)
