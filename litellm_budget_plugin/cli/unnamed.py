"""What is said where the ledger counts under limits that the settings of a command do not name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from litellm_budget_plugin.manager.standing import SubjectStanding

ADVICE = "give the command the same settings (LITELLM_BUDGET_USER_LIMITS, FILE)"


def unnamed(accounts: int) -> str:
    """So many accounts, in words."""
    return f"{accounts} account{' counts' if accounts == 1 else 's count'} under limits that these settings do not name, or were removed, or came with calls"


def warned(found: Iterable[SubjectStanding]) -> Iterator[SubjectStanding]:
    """The same subjects; after the last one, standard error says how much of them the settings do not explain."""
    accounts = 0
    for each in found:
        accounts += each.unnamed
        yield each
    warn(accounts)


def warn(accounts: int) -> None:
    """Say it on standard error, unless there are none."""
    if accounts:
        click.echo(f"Warning: {unnamed(accounts)}: {ADVICE}", err=True)
