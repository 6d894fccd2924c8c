"""The gate of a call with ten budgets on it, of two and of five subjects, against one with one budget: naming who pays, pricing.estimate
and Reserve, in memory and in SQLite.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.report import Row, duration
from benchmarks.rounds import in_turn
from litellm_budget_plugin.hooks.call import Call
from litellm_budget_plugin.hooks.call_types import request_of
from litellm_budget_plugin.hooks.principal import principal_of
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.settings import BudgetSettings

ROUNDS = 9
CALLS = 400
AIM = 1.5
LIMITS: dict[str, dict[str, Any]] = {
    "one budget": {"user_limits": "$100/month"},
    "ten of a user and the project": {
        "user_limits": "$100/month, $50/week, $20/day, 10k calls/day, 100M tokens/day",
        "project_limits": "$1000/month, $500/week, $100/day, 100k calls/day, 1B tokens/day",
    },
    "ten of a user, team, tag, run and the project": {
        "user_limits": "$100/month, $20/day",
        "project_limits": "$1000/month, $100/day",
        "team_limits": "$500/month, $50/day",
        "tag_limits": "$500/month, $50/day",
        "run_limits": "$50, 1k calls",
    },
}
ARGUMENTS = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100, "user": "alice"}
NAMED = {"budget_team": "search", "budget_tags": ["batch"], "budget_run": "run-1"}


def gate(ledger: BudgetLedger, arguments: dict[str, Any]) -> float:
    """Return the seconds that one call takes at the gate, and release its hold."""
    begun = time.perf_counter()
    call = Call(ledger, principal_of(ledger, arguments), request_of("completion", arguments))
    call.admit()
    taken = time.perf_counter() - begun
    assert call.held
    call.release()
    return taken


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    rows = []
    for store in ("memory", "sqlite"):
        ledgers = {name: _open(store, number, limits) for number, (name, limits) in enumerate(LIMITS.items())}
        timings = in_turn({name: _arm(ledger, name) for name, ledger in ledgers.items()}, ROUNDS)
        for ledger in ledgers.values():
            ledger.close()
        first, *others = LIMITS
        for name in others:
            ratio = timings.ratio(name, first)
            against = f"{duration(timings.seconds(first))} {first}"
            rows.append(
                Row(
                    f"{store}: {name}",
                    duration(timings.seconds(name)),
                    against,
                    f"{ratio:.2f}x",
                    f"<= {AIM}x",
                    ratio <= AIM,
                )
            )
    return rows


def _open(store: str, number: int, limits: dict[str, Any]) -> BudgetLedger:
    url = "memory://" if store == "memory" else f"sqlite:///{Path(f'{number}.db').resolve()}"
    return BudgetLedger(BudgetSettings(store_url=url, project=f"project-{number}", **limits))


def _arm(ledger: BudgetLedger, name: str) -> Any:
    arguments = {**ARGUMENTS, "litellm_metadata": NAMED} if "run" in name else ARGUMENTS
    return lambda: sorted(gate(ledger, arguments) for _ in range(CALLS))[CALLS // 2]
