"""Forty calls by one user, worth exactly $0.0125 each, under a limit of $0.05: how many requests reach the provider? Four
are right. Real HTTP to a server on loopback that counts them and answers after 50 ms, so that calls overlap. Once from 40
threads, as in a service; and once one after the other, stopping at the first error, as in a script. What a scheme
raises after the answer comes too late: that request was paid for.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any, NamedTuple

import litellm

from benchmarks import schemes
from benchmarks.report import Row, installed
from benchmarks.upstream import Upstream, serving

CALLS = 40
LIMIT = 0.05
TOKENS = 1000
RIGHT = 4
DELAY = 0.05


class Scheme(NamedTuple):
    """One way to limit spend. `module` must be importable and comes from `package`; both are None if the scheme is always available."""

    name: str
    enter: Any
    module: str | None = None
    package: str | None = None


SCHEMES = (
    Scheme("litellm.max_budget", schemes.max_budget),
    Scheme("litellm.BudgetManager, documented loop", schemes.budget_manager_loop),
    Scheme("callback that raises in log_pre_api_call", schemes.raising_callback),
    Scheme("litellm-cost-tracker", schemes.litellm_cost_tracker, "llm_cost", "litellm-cost-tracker"),
    Scheme("shekel", schemes.shekel, "shekel", "shekel"),
    Scheme("agentbudget", schemes.agentbudget, "agentbudget", "agentbudget"),
    Scheme("floe-guard, wrapper", schemes.floe_guard, "floe_guard", "floe-guard"),
    Scheme("floe-guard, callback", schemes.floe_guard_callback, "floe_guard", "floe-guard"),
    Scheme("litellm-budget-plugin", schemes.this_package),
)


def arguments(upstream: Upstream) -> dict[str, Any]:
    """Return the arguments of one call. It is limited to TOKENS output tokens, and gets as many."""
    return {
        "model": f"openai/{schemes.MODEL}",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": TOKENS,
        "api_base": upstream.url,
        "api_key": "sk-benchmark",
        "user": "alice",
        "max_retries": 0,
    }


def calmly(call: schemes.Call, given: dict[str, Any]) -> bool:
    """Make a call, and return whether it raised no error."""
    try:
        call(given)
    except Exception:  # each scheme raises its own errors; only the requests at the upstream count
        return False
    return True


def from_threads(call: schemes.Call, given: dict[str, Any]) -> None:
    """Make all calls at once."""
    with ThreadPoolExecutor(CALLS) as pool:
        list(pool.map(lambda _: calmly(call, given), range(CALLS)))


def in_sequence(call: schemes.Call, given: dict[str, Any]) -> None:
    """Make one call after the other, until the first error, with time for LiteLLM's callbacks to run in between."""
    for _ in range(CALLS):
        if not calmly(call, given):
            return
        time.sleep(0.02)


def requests(scheme: AbstractContextManager[schemes.Call], run_calls: Any) -> int:
    """Return how many requests reached a fresh upstream."""
    with serving(TOKENS, DELAY) as upstream, scheme as call:
        run_calls(call, arguments(upstream))
        return upstream.requests


def quiet() -> None:
    """Silence the logs and warnings of LiteLLM and the packages about refusals."""
    litellm.suppress_debug_info = True
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    quiet()
    price = {"input_cost_per_token": 0.0, "output_cost_per_token": schemes.OUTPUT_PRICE, "max_tokens": 4096}
    litellm.register_model({f"openai/{schemes.MODEL}": {**price, "litellm_provider": "openai", "mode": "chat"}})
    rows = []
    for scheme in SCHEMES:
        if scheme.module is not None and find_spec(scheme.module) is None:
            rows.append(Row(scheme.name, "not installed", f"pip install {scheme.package}", "-"))
            continue
        name = f"{scheme.name} {installed(scheme.package)}" if scheme.package else scheme.name
        sequence = requests(scheme.enter(LIMIT), in_sequence)
        if os.path.exists("user_cost.json"):
            os.unlink("user_cost.json")
        threads = requests(scheme.enter(LIMIT), from_threads)
        ours = scheme.enter is schemes.this_package
        met = sequence == RIGHT and threads == RIGHT if ours else None
        rows.append(
            Row(name, f"{threads} of {CALLS} from threads", f"{sequence} in sequence", f"{threads / RIGHT:.1f}x",
                f"{RIGHT} and {RIGHT}" if ours else "-", met)
        )  # fmt: skip
    return rows
