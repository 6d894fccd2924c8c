"""The gate with a prompt of 100,000 tokens: reading the request, pricing.estimate and Reserve in SQLite. Against one
`litellm.token_counter` call on the same messages, which is what a gate that counts tokens pays at the least.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import litellm

from benchmarks.report import Row, duration
from benchmarks.rounds import in_turn
from litellm_budget_plugin.hooks.call import Call
from litellm_budget_plugin.hooks.call_types import request_of
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.settings import BudgetSettings

TOKENS = 100_000
MESSAGES = 20
ROUNDS = 9
CALLS = 10
AIM = 0.05
PLENTY, TIGHT = 1_000_000, 10


def long_messages() -> list[dict[str, str]]:
    """Return messages of English words with about TOKENS tokens."""
    choose = random.Random(1)
    words = ["the", "of", "budget", "call", "model", "answer", "question", "token", "price", "limit", "user", "window"]
    texts = [" ".join(choose.choices(words, k=TOKENS // MESSAGES)) for _ in range(MESSAGES)]
    return [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(texts)]


def gate(ledger: BudgetLedger, arguments: dict[str, Any]) -> float:
    """Return the seconds that one call takes at the gate, and release its hold."""
    begun = time.perf_counter()
    call = Call(ledger, ledger.principal("user-1"), request_of("completion", arguments))
    call.admit()
    taken = time.perf_counter() - begun
    assert call.held
    call.release()
    return taken


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    messages = long_messages()
    ledgers = {
        limit: BudgetLedger(BudgetSettings(store_url=f"sqlite:///{Path(f'{limit}.db').resolve()}", default_limit=limit))
        for limit in (PLENTY, TIGHT)
    }

    def passages(model: str, limit: int) -> float:
        arguments = {"model": model, "messages": messages, "max_tokens": 100, "user": "user-1"}
        return sorted(gate(ledgers[limit], arguments) for _ in range(CALLS))[CALLS // 2]

    def counted() -> float:
        begun = time.perf_counter()
        litellm.token_counter(model="gpt-4o", messages=messages)
        return time.perf_counter() - begun

    arms = {
        "count": counted,
        "gate": lambda: passages("gpt-4o", PLENTY),
        "tight": lambda: passages("gpt-4-turbo", TIGHT),
    }
    timings = in_turn(arms, ROUNDS)
    for ledger in ledgers.values():
        ledger.close()
    tokens = litellm.token_counter(model="gpt-4o", messages=messages)
    against = f"{duration(timings.seconds('count'))} token_counter"
    share, tight = timings.ratio("gate", "count"), timings.ratio("tight", "count")
    return [
        Row(f"gate, {tokens:,} tokens", duration(timings.seconds("gate")), against, f"{share:.2%}", f"<= {AIM:.0%}",
            share <= AIM),
        Row("gate, near the limit (cl100k counted exactly)", duration(timings.seconds("tight")), against, f"{tight:.0%}"),
    ]  # fmt: skip
