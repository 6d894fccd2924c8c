"""The cost of alerts: a call's reserve and settle through a process's ledger, with alerts and without, 100 users with a limit; and
a scan for alerts of 100,000 users, of whom one in a hundred is near a limit.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks import traffic
from benchmarks.filling import fill
from benchmarks.report import Row, duration
from benchmarks.rounds import Timings, in_turn, together
from litellm_budget_plugin.core.accounts import Amounts
from litellm_budget_plugin.core.commands import Granted, Reserve, Settle
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.registry import open_store

USERS = [f"user-{number:03}" for number in range(100)]
CALLS = 400
ROUNDS = 15
MANY = 100_000
AIM = 1.05


def _opened(url: str, alert_at: str) -> BudgetLedger:
    settings = BudgetSettings(
        store_url=url, project=f"alerts {alert_at}", user_limits="$1000000/month", project_limits="$1000000", alert_at=alert_at,
        metrics=False, journal="off",
    )  # fmt: skip
    return BudgetLedger(settings, charging=True)


def _call(ledger: BudgetLedger, hold: str, user: str) -> None:
    given: dict[str, Any] = {"project": ledger.project, "models": traffic.MODELS}
    principal = ledger.principal(user)
    given |= {"subjects": principal.subjects, "defaults": principal.defaults}
    reply = ledger.reserve(
        Reserve(hold, want=Amounts(traffic.WANT, 1, 5000), expires_after=traffic.TTL, cheap=True, **given)
    )
    assert isinstance(reply, Granted), reply
    ledger.deliver(Settle(hold, cost=traffic.COST, model=traffic.MODEL, input_tokens=1000, **given))


def measure() -> Timings:
    """Measure with and without alerts, in turn, in memory and on SQLite."""
    ledgers = {
        f"{name} {alert_at}": _opened(url, alert_at)
        for name, url in (("memory", "memory://"), ("sqlite", f"sqlite:///{Path('alerts.db').resolve()}"))
        for alert_at in ("80,100", "off")
    }

    def arm(ledger: BudgetLedger) -> float:
        calls = [(new_id(), USERS[number % len(USERS)]) for number in range(CALLS)]
        return together(lambda call: _call(ledger, *call), calls)

    timings = in_turn({name: lambda ledger=ledger: arm(ledger) for name, ledger in ledgers.items()}, ROUNDS)  # type: ignore[misc]  # one each
    for ledger in ledgers.values():
        ledger.close()
    return timings


def scan() -> tuple[float, float]:
    """Return the seconds of a scan of MANY users with limits, and of its longest uninterrupted part."""
    path = str(Path("many.db").resolve())
    store = open_store(f"sqlite:///{path}")
    traffic.reserve(store, "0-template", "template")
    traffic.settle(store, "0-template", "template")
    store.close()
    fill(path, "template", MANY)
    settings = BudgetSettings(
        store_url=f"sqlite:///{path}", project=traffic.PROJECT, user_limits="$1000", metrics=False, journal="off"
    )
    ledger = BudgetLedger(settings, charging=True)
    alerts = ledger.alerts
    assert alerts is not None
    parts: list[float] = []
    while not parts or alerts.scanning:
        begun = time.perf_counter()
        alerts.scan_page()
        parts.append(time.perf_counter() - begun)
    ledger.close()
    return sum(parts), max(parts)


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    timings = measure()
    rows = []
    for store in ("memory", "sqlite"):
        ratio = timings.ratio(f"{store} 80,100", f"{store} off")
        rows.append(
            Row(f"reserve + settle with alerts, {store}://", duration(timings.seconds(f"{store} 80,100")),
                f"{duration(timings.seconds(f'{store} off'))} without", f"{ratio:.2f}x", f"<= {AIM}x", ratio <= AIM)
        )  # fmt: skip
    whole, part = scan()
    rows.append(Row(f"a scan of {MANY:,} users, sqlite://", duration(whole), f"{duration(part)} in one piece", "", ""))
    return rows
