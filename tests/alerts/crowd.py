"""Processes that cross a threshold together.

python -m tests.alerts.crowd SIZE URL WEBHOOK CALLS [DIRECTORY]

They make their calls when a line arrives on standard input, and end at the next line. Then their exit codes are printed as JSON. With a
DIRECTORY, the first process with a claim is killed before it sends, and the next one after it has sent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
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
"""The cost of a call: 80 calls cost one dollar."""


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
        Reserve(hold, ledger.project, principal.subjects, ("m",), Amounts(cost, 1), MINUTE, defaults=principal.defaults)
    )
    if isinstance(reply, Granted):
        ledger.deliver(Settle(hold, ledger.project, principal.subjects, ("m",), cost, "m", defaults=principal.defaults))


def work(wait: Callable[[], None], url: str, webhook: str, calls: int, directory: str | None = None) -> None:
    """Do the work of one process."""
    settings = BudgetSettings(
        store_url=url,
        # A generous time-out, because the machine may be busy.
        store_timeout=10,
        user_limits="$1",
        alert_at="80",
        alert_webhook=webhook,
        journal="off",
        metrics=False,
    )
    ledger = BudgetLedger(settings, charging=True)
    assert ledger.alerts is not None
    if directory is not None:
        sender = ledger.alerts.sender
        sender.claims.lease = ledger.alerts.scan_seconds = 1.0
        sender.channels = [Deadly(each, Path(directory)) if each.name != "log" else each for each in sender.channels]
    wait()
    for _ in range(calls):
        call(ledger, "alice")
    wait()
    ledger.close()
    assert "litellm" not in sys.modules


class Member:
    """One process, forked before it opens anything."""

    def __init__(self, *given: object) -> None:
        down, self._down = os.pipe()
        self._up, up = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(down)
            os.close(up)
            return
        os.close(self._down)
        os.close(self._up)

        def wait() -> None:
            os.write(up, b".")
            os.read(down, 1)

        try:
            work(wait, *given)  # type: ignore[arg-type]
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def arrived(self) -> None:
        """Return when the process waits, or was killed."""
        os.read(self._up, 1)

    def go(self) -> None:
        """Let the process continue, if it is alive."""
        try:
            os.write(self._down, b".")
        except BrokenPipeError:
            return


def main(size: int, url: str, webhook: str, calls: int, *directory: str) -> None:
    """Run all processes."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    members = [Member(url, webhook, calls, *directory) for _ in range(size)]
    for _ in range(2):
        for member in members:
            member.arrived()
        print("here", flush=True)
        sys.stdin.readline()
        for member in members:
            member.go()
    ends = [os.waitstatus_to_exitcode(os.waitpid(member.pid, 0)[1]) for member in members]
    print(json.dumps(sorted(ends)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), *sys.argv[5:])
