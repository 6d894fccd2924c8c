"""One of many processes that cross a threshold together.

python -m tests.alerts.crowd URL WEBHOOK CALLS [DIRECTORY]

Makes its calls when a line arrives, and ends with the next one. With a DIRECTORY the first process that has a claim is killed before it
sends, and the next one after it has sent.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from litellm_budget_plugin.core.accounts import Amounts
from litellm_budget_plugin.core.commands import Granted, Reserve, Settle
from litellm_budget_plugin.manager.alerts.alert import Alert
from litellm_budget_plugin.manager.alerts.channels import Channel
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.settings import BudgetSettings

MINUTE = 60_000_000
COST = 12_500_000
"""Eighty of them are one dollar."""


class Deadly:
    """A channel whose process is killed, once before it sends and once after."""

    def __init__(self, channel: Channel, directory: Path) -> None:
        self.name, self.label = channel.name, channel.label
        self._channel, self._directory = channel, directory

    def send(self, alert: Alert, seconds: float) -> None:
        self._die_at("before")
        self._channel.send(alert, seconds)
        self._die_at("after")

    def _die_at(self, moment: str) -> None:
        try:
            (self._directory / moment).touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def call(ledger: BudgetLedger, user: str, cost: int = COST) -> None:
    """Hold and charge, like one call."""
    principal, hold = ledger.principal(user), new_id()
    reply = ledger.reserve(
        Reserve(
            hold, ledger.project, principal.subjects, ("m",), Amounts(cost, 1), MINUTE, defaults=principal.defaults
        )
    )
    if isinstance(reply, Granted):
        ledger.deliver(
            Settle(hold, ledger.project, principal.subjects, ("m",), cost, "m", defaults=principal.defaults)
        )


def run(url: str, webhook: str, calls: int, directory: str | None = None) -> None:
    settings = BudgetSettings(
        store_url=url, user_limits="$1", alert_at="80", alert_webhook=webhook, journal="off", metrics=False
    )
    ledger = BudgetLedger(settings, charging=True)
    assert ledger.alerts is not None
    if directory is not None:
        sender = ledger.alerts.sender
        sender.claims.lease = ledger.alerts.scan_seconds = 1.0
        sender.channels = [
            Deadly(each, Path(directory)) if each.name != "log" else each for each in sender.channels
        ]
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(calls):
        call(ledger, "alice")
    print("done", flush=True)
    sys.stdin.readline()
    ledger.close()
    assert "litellm" not in sys.modules


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
