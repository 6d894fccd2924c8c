"""The commands under one name; each is in its own file."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import click

from litellm_budget_plugin.cli import changing, reading, transfer
from litellm_budget_plugin.cli.alerts import alerts
from litellm_budget_plugin.cli.check import check
from litellm_budget_plugin.cli.completion import completion
from litellm_budget_plugin.cli.copy import copy
from litellm_budget_plugin.cli.doctor import doctor
from litellm_budget_plugin.cli.journal import journal
from litellm_budget_plugin.cli.keys import keys
from litellm_budget_plugin.cli.run import run
from litellm_budget_plugin.cli.serve import serve
from litellm_budget_plugin.cli.top import top
from litellm_budget_plugin.cli.usage import usage
from litellm_budget_plugin.errors import BudgetError

UNKNOWN = 3
"""The exit code of monitoring commands that cannot say anything. Their exit code 2 is a finding."""
_MONITORS = ("status", "doctor")


class _App(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return _without_traceback(super().invoke, ctx)
        except click.ClickException as error:
            # A terminal would interpret the control characters of an argument.
            error.message = _printable(error.message)  # type: ignore[misc]  # final for subclasses
            if ctx.invoked_subcommand in _MONITORS:
                error.exit_code = UNKNOWN  # type: ignore[misc]  # of this error, not of its class
            raise


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


def _without_traceback(invoke: Callable[[click.Context], Any], ctx: click.Context) -> Any:
    try:
        return invoke(ctx)
    except BudgetError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader has closed the output; click exits quietly
            raise
        raise click.ClickException(str(error)) from error


@click.group(cls=_App, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="litellm-budget-plugin")
def app() -> None:
    """Manage the budgets and the ledgers of litellm-budget-plugin.

    A SUBJECT is alice or user:alice, team:search, tag:batch, run:42, or project. Amounts are written like '$5'.
    """


_COMMANDS = (
    *reading.COMMANDS,
    *changing.COMMANDS,
    *transfer.COMMANDS,
    alerts,
    check,
    completion,
    copy,
    doctor,
    journal,
    keys,
    run,
    serve,
    top,
    usage,
)
for command in _COMMANDS:
    app.add_command(command)
