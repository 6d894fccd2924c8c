"""The warning that the ledger may count under limits that a command's settings do not name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from litellm_budget_plugin.cli.ledgers import CommandLedger
from litellm_budget_plugin.core.commands import Read, ReadUsage
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.standing import SubjectStanding

ADVICE = "give this command the services' settings (LITELLM_BUDGET_USER_LIMITS, DEFAULT_LIMIT, FILE)"


def unnamed(accounts: int) -> str:
    """Return the number of accounts as the beginning of a warning."""
    return f"{accounts} account{' counts' if accounts == 1 else 's count'} against limits that these settings do not name: other settings, removed limits, or limits given with calls"


class Known:
    """Checks whether the limits that a command knows explain what it reads. `doubtful`: somebody may be at a limit that it does
    not know.
    """

    def __init__(self, ledger: CommandLedger) -> None:
        self._ledger = ledger
        self._limited = ledger.policies.look().limited
        self._accounts, self._spent, self.doubtful = 0, False, False

    def look(self, found: Iterable[SubjectStanding]) -> Iterator[SubjectStanding]:
        """Yield the same subjects as they come, and remember which limits they have."""
        for each in found:
            self._accounts += each.unnamed
            self.doubtful |= each.unnamed > 0 and each.subject.scope != "run"  # a run's limits may come with its calls
            self._limited |= each.blocked or any(line.limit is not None for line in each.lines)
            self._spent |= any(line.spent for line in each.lines)
            yield each

    def warning(self) -> str | None:
        """Return the warning after all subjects were seen, None if there is none. Raises BudgetStoreError."""
        if self._accounts:
            return f"{unnamed(self._accounts)}: {ADVICE}"
        if self._limited:
            return None
        # Users without a limit are recorded in the same account as users with a limit without a window. So the account cannot
        # tell whether services have a limit.
        refused = _refused(self._ledger)
        if not (refused or self._spent):
            return None
        self.doubtful |= refused > 0
        though = f", though {refused} call{'' if refused == 1 else 's'} had no room since yesterday" if refused else ""
        return f"none of these has a limit set by hand or named by these settings{though}; if services have limits in code, {ADVICE}"

    def warn(self) -> None:
        """Print the warning on standard error."""
        if (said := self.warning()) is not None:
            click.echo(f"Warning: {said}", err=True)


def _refused(ledger: CommandLedger) -> int:
    """Return the number of the project's calls that were refused yesterday and today, in UTC."""
    whole = ("project", ledger.project)
    since = ledger.ask(Read(ledger.project, *whole)).now // DAY - 1
    try:
        return sum(usage.refusals for _, usage in ledger.ask(ReadUsage(ledger.project, *whole, since=since)).rows)
    except BudgetInputError:  # an endpoint that has no totals
        return 0
