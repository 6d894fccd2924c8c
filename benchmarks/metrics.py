"""What metrics add: a call's part on the ledger (hold, track, settle) and a mocked `litellm.completion` with the ledger in
SQLite, each with prometheus_client's metrics on against off, in turn.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from statistics import median

import litellm

from benchmarks.caller import ARGUMENTS, CALLS, PAUSE, WARMING
from benchmarks.report import Row, duration
from benchmarks.rounds import in_turn, together
from litellm_budget_plugin import BudgetCallback, BudgetSettings
from litellm_budget_plugin.core.accounts import Amounts
from litellm_budget_plugin.core.commands import Release, Reserve, Settle
from litellm_budget_plugin.manager.ledger import BudgetLedger, new_id

LEDGER_CALLS = 400
ROUNDS = 15
AIM = 0.05
LIMIT = 1_000_000


def ledger_round(ledger: BudgetLedger) -> float:
    """Seconds of one call's hold and settlement, as an attempt does them: the mean of some."""
    subjects = ledger.subjects("user-1")

    def one(hold: str) -> None:
        want = Amounts(1_000, 1, 100)
        ledger.reserve(Reserve(hold, ledger.project, subjects, ("m",), want, ledger.hold_ttl, ledger.defaults))
        ledger.track(hold, lambda: None, 1_000)
        ledger.deliver(Settle(hold, ledger.project, subjects, ("m",), 500, "m", defaults=ledger.defaults))
        ledger.settler.untrack(hold)

    seconds = together(one, [new_id() for _ in range(LEDGER_CALLS)])
    ledger.deliver(Release("none", ledger.project))
    return seconds


def call_round(arm: str) -> float:
    """Seconds of one `completion`, the median of some."""
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


def ledger_row(what: str, url: str) -> Row:
    """One store's row."""
    ledgers = {
        name: BudgetLedger(
            BudgetSettings(store_url=url.format(name), project=name, default_limit=LIMIT, metrics=name == "on")
        )
        for name in ("off", "on")
    }
    timings = in_turn({name: partial(ledger_round, ledger) for name, ledger in ledgers.items()}, ROUNDS)
    for ledger in ledgers.values():
        ledger.close()
    return _row(what, timings.seconds("on"), timings.seconds("off"), timings.ratio("on", "off"))


def _row(what: str, on: float, off: float, ratio: float, aim: float | None = None) -> Row:
    met = None if aim is None else ratio <= 1 + aim
    return Row(what, duration(on), f"{duration(off)} without", f"{ratio:.2f}x", f"<= {1 + aim}x" if aim else "-", met)


def run() -> list[Row]:
    """The rows of this benchmark."""
    timings = in_turn({arm: partial(call_round, arm) for arm in ("off", "on")}, ROUNDS)
    return [
        _row("completion, sqlite://", timings.seconds("on"), timings.seconds("off"), timings.ratio("on", "off"), AIM),
        ledger_row("hold and settle, sqlite://", f"sqlite:///{Path.cwd()}/{{}}.db"),
    ]
