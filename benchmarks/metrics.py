"""The time that metrics add to a mocked `litellm.completion` with the ledger in SQLite, and to a call's part on a ledger in memory
(hold, track, settle) alone: prometheus_client's metrics on against off, in turn.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from statistics import median

import litellm

from benchmarks.caller import ARGUMENTS, CALLS, PAUSE, WARMING
from benchmarks.report import Row, duration
from benchmarks.rounds import Timings, in_turn, together
from litellm_budget_plugin import BudgetCallback, BudgetSettings
from litellm_budget_plugin.core.accounts import Amounts
from litellm_budget_plugin.core.commands import Reserve, Settle
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger

LEDGER_CALLS = 400
ROUNDS = 15
AIM = 0.05
LIMIT = 1_000_000


def ledger_round(arm: str) -> float:
    """Return the mean seconds of one call's hold and settlement, as an attempt does them."""
    ledger = BudgetLedger(BudgetSettings(store_url="memory://", default_limit=LIMIT, metrics=arm == "on"))
    subjects, want = ledger.principal("user-1").subjects, Amounts(1_000, 1, 100)

    def one(hold: str) -> None:
        ledger.reserve(Reserve(hold, ledger.project, subjects, ("m",), want, ledger.hold_ttl, ledger.defaults))
        ledger.track(hold, lambda: None, 1_000)
        ledger.deliver(Settle(hold, ledger.project, subjects, ("m",), 500, "m", defaults=ledger.defaults))
        ledger.worker.untrack(hold)

    seconds = together(one, [new_id() for _ in range(LEDGER_CALLS)])
    ledger.close()
    return seconds


def call_round(arm: str) -> float:
    """Return the median seconds of one `completion`."""
    path = Path(f"calls-{arm}.db").resolve()
    callback = BudgetCallback(store_url=f"sqlite:///{path}", default_limit=LIMIT, metrics=arm == "on")
    litellm.callbacks = [callback]
    taken = []
    for _ in range(WARMING + CALLS):
        begun = time.perf_counter()
        litellm.completion(**ARGUMENTS)
        taken.append(time.perf_counter() - begun)
        time.sleep(PAUSE)
    litellm.logging_callback_manager._reset_all_callbacks()
    callback.close()
    return median(taken[WARMING:])


def row(what: str, timings: Timings, aim: float | None = None) -> Row:
    """Return the row that compares metrics on with metrics off."""
    ratio, against = timings.ratio("on", "off"), f"{duration(timings.seconds('off'))} without"
    aimed = ("-", None) if aim is None else (f"<= {1 + aim}x", ratio <= 1 + aim)
    return Row(what, duration(timings.seconds("on")), against, f"{ratio:.2f}x", *aimed)


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    calls = in_turn({arm: partial(call_round, arm) for arm in ("off", "on")}, ROUNDS)
    ledger = in_turn({arm: partial(ledger_round, arm) for arm in ("off", "on")}, ROUNDS)
    return [row("completion, sqlite://", calls, AIM), row("hold and settle, memory://", ledger)]
