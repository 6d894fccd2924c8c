"""Phantom refusals: calls that were refused although the money spent in the end would have allowed them. A hold is the most that a
call may cost, so calls near a limit are refused that would have fitted. Counted exactly: of each user's refused calls, in
the order of their arrival, those whose actual cost fits into what the limit leaves beside all that was spent in the end, each
taking its cost from that rest.

A made-up day of 40 users whose demand is 0.6 to 1.6 times their limit ($0.05 to $0.50): sessions of 1 to 8 parallel calls, of
gpt-4o-mini and gpt-4o, prompts and answers long-tailed (median 300 and 250 tokens, each up to thousands), 40 % with a
`max_tokens` of 512 to 4,096, the others without. An answer takes 1 s and 1 s for each 60 tokens. Calls arrive at four processes. The time is
simulated, the gate is not: estimates, plans, holds, waiting lines, slices and settlements are the package's own, on `memory://`. The
same seed gives the same figures. "Refused" counts all refused calls; with CAP_OUTPUT, "shortened" are served calls whose answer
was cut off by the lower limit. A shorter answer costs less, so caps leave money for more calls.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import litellm

from benchmarks.report import Row
from benchmarks.simulated import simulate
from litellm_budget_plugin import BudgetExceeded, pricing
from litellm_budget_plugin.core.commands import Release, Settle
from litellm_budget_plugin.core.money import charge_nanos
from litellm_budget_plugin.core.sentences import amount_text
from litellm_budget_plugin.hooks.call import Call
from litellm_budget_plugin.hooks.call_types import request_of
from litellm_budget_plugin.hooks.near_limit.plan import plan_for
from litellm_budget_plugin.hooks.waiting import Place, wait_deferred
from litellm_budget_plugin.manager.budgets import Budgets
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.slice_keeper import SliceKeeper
from litellm_budget_plugin.settings import BudgetSettings

SEED = 12
USERS = 40
PROCESSES = 4
DAY = 8 * 3600.0
TOKENS_A_SECOND = 60
MODELS = (("gpt-4o-mini", 0.7), ("gpt-4o", 0.3))
TEXT = "A budget holds what a call may cost before it is made, and charges what it did cost afterwards. "
SLICE = 20_000_000


class Asked(NamedTuple):
    """One call of the mix. `at` is in seconds, `prompt` in repetitions of TEXT; `answer` is how many tokens the model would write."""

    at: float
    user: str
    model: str
    prompt: int
    answer: int
    limit: int | None
    process: int

    @property
    def arguments(self) -> dict[str, Any]:
        """The call's arguments."""
        given: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": TEXT * self.prompt}]}
        return given if self.limit is None else {**given, "max_tokens": self.limit}

    def cost(self, limit: int | None) -> int:
        """Return the cost in nano-dollars with at most `limit` output tokens; None: no limit."""
        tokens = self.answer if limit is None else min(self.answer, limit)
        count = self.prompt * _TEXT_TOKENS + 8
        return charge_nanos(sum(litellm.cost_per_token(self.model, prompt_tokens=count, completion_tokens=tokens)))


_TEXT_TOKENS = litellm.token_counter("gpt-4o", text=TEXT)


def mix(seed: int = SEED, users: int = USERS) -> tuple[list[Asked], dict[str, int]]:
    """Return the calls in the order of their arrival, and each user's limit in nano-dollars."""
    chance = random.Random(seed)
    calls: list[Asked] = []
    limits = {}
    for number in range(users):
        user, limit = f"user-{number}", charge_nanos(round(chance.uniform(0.05**0.5, 0.5**0.5) ** 2, 2))
        wanted, demand = 0, limit * chance.uniform(0.6, 1.6)
        while wanted < demand:
            at = chance.uniform(0, DAY)
            for _ in range(chance.choice((1, 1, 2, 4, 8))):
                call = _one(chance, at + chance.uniform(0, 2), user)
                wanted += call.cost(call.limit)
                calls.append(call)
        limits[user] = limit
    return sorted(calls), limits


def _one(chance: random.Random, at: float, user: str) -> Asked:
    model = chance.choices([name for name, _ in MODELS], [share for _, share in MODELS])[0]
    prompt = max(1, min(round(chance.lognormvariate(5.7, 1.2) / _TEXT_TOKENS), 2000))
    answer = max(1, min(round(chance.lognormvariate(5.5, 1.0)), 16_000))
    limit = chance.choice((512, 1024, 2048, 4096)) if chance.random() < 0.4 else None
    return Asked(at, user, model, prompt, answer, limit, chance.randrange(PROCESSES))


@dataclass
class Result:
    """The outcome of the calls of one replay."""

    calls: int
    refused: list[Asked]
    spent: dict[str, int]
    shortened: int
    waited: list[float]

    def beyond(self, limits: dict[str, int]) -> int:
        """Return by how many nano-dollars limits were exceeded, in total."""
        return sum(max(0, self.spent.get(user, 0) - limit) for user, limit in limits.items())

    def phantoms(self, limits: dict[str, int]) -> int:
        """Return how many refused calls would have fitted beside the money that was spent in the end."""
        left = {user: limit - self.spent.get(user, 0) for user, limit in limits.items()}
        count = 0
        for call in self.refused:
            cost = call.cost(call.limit)
            if cost <= left[call.user]:
                left[call.user] -= cost
                count += 1
        return count


class Replay:
    """A run of the mix with given settings."""

    def __init__(self, settings: dict[str, Any], limits: dict[str, int]) -> None:
        slices = settings.pop("slices", False)
        self.result = Result(0, [], defaultdict(int), 0, [])
        own = {"store_url": "memory://", "journal": "off", "metrics": False, "store_timeout": 10, "hold_ttl": 3600}
        self.ledgers = [BudgetLedger(BudgetSettings(**own, **settings)) for _ in range(PROCESSES)]
        for user, limit in limits.items():
            Budgets(self.ledgers[0]).set_limits(user, amount_text(limit, "usd"))
        for ledger in self.ledgers if slices else ():
            # Not given to the worker, which would run them in real time, on its own thread.
            keeper = ledger._slices = SliceKeeper(ledger, SLICE)
            keeper._deliver = self._deliver

    def _deliver(self, command: Settle | Release) -> None:
        self.ledgers[0].client.ask(command, 10)

    async def run(self, calls: Sequence[Asked]) -> Result:
        """Make all calls, each at its time."""
        sliced = any(ledger._slices is not None for ledger in self.ledgers)
        keeping = asyncio.create_task(self._keep_slices()) if sliced else None
        begun = asyncio.get_running_loop().time()
        tasks = []
        for asked in calls:
            await asyncio.sleep(begun + asked.at - asyncio.get_running_loop().time())
            tasks.append(asyncio.create_task(self._make(asked)))
        await asyncio.gather(*tasks)
        if keeping is not None:
            keeping.cancel()
        self.result.refused.sort()
        return self.result

    async def _keep_slices(self) -> None:
        while True:
            for ledger in self.ledgers:
                if ledger._slices is not None:
                    ledger._slices.run()
            await asyncio.sleep(0.25)

    async def _make(self, asked: Asked) -> None:
        ledger, result = self.ledgers[asked.process], self.result
        request = request_of("completion", asked.arguments)
        call = Call(ledger, ledger.principal(asked.user), request, plan=plan_for(ledger.settings, request, frozenset()))
        result.calls += 1
        loop = asyncio.get_running_loop()
        try:
            call.admit(Place.LATER if ledger.settings.wait_for_held else Place.NOWHERE)
            if call.waiter is not None:
                await wait_deferred(call)
                result.waited.append(loop.time() - asked.at)
        except BudgetExceeded:
            result.refused.append(asked)
            return
        limit = call.request.params.get("max_tokens")
        result.shortened += limit is not None and limit < min(asked.answer, asked.limit or asked.answer)
        tokens = asked.answer if limit is None else min(asked.answer, limit)
        call.sent = True
        await asyncio.sleep(1 + tokens / TOKENS_A_SECOND)
        cost = asked.cost(limit)
        call._settle(pricing.Cost(cost, asked.model, 0, tokens, estimated=False), None)
        result.spent[asked.user] += cost

    def close(self) -> None:
        """Close the ledgers."""
        for ledger in self.ledgers:
            ledger.close()


ARMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("strict", {}),
    ("OUTPUT_ALLOWANCE=1024", {"output_allowance": 1024}),
    ("WAIT_FOR_HELD=10", {"wait_for_held": 10}),
    ("WAIT_FOR_HELD=60", {"wait_for_held": 60}),
    ("CAP_OUTPUT", {"cap_output": True}),
    ("CAP_OUTPUT, WAIT_FOR_HELD=60", {"cap_output": True, "wait_for_held": 60}),
    ("OUTPUT_ALLOWANCE=1024, WAIT_FOR_HELD=60", {"output_allowance": 1024, "wait_for_held": 60}),
    ("slices of $0.02", {"slices": True}),
)


@contextmanager
def _quietly() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def replay(settings: dict[str, Any], seed: int = SEED, users: int = USERS) -> tuple[Result, int, int]:
    """Return the outcome of the mix with these settings, how many of its refusals are phantoms, and by how many nano-dollars limits were
    exceeded in total.
    """
    calls, limits = mix(seed, users)
    with _quietly():
        replayed = Replay(dict(settings), limits)
        try:
            result: Result = simulate(replayed.run(calls), seed)
        finally:
            replayed.close()
    return result, result.phantoms(limits), result.beyond(limits)


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    rows = []
    for name, settings in ARMS:
        result, phantoms, beyond = replay(settings)
        refused = len(result.refused)
        notes = [f"{result.shortened / result.calls:.1%} shortened"] if settings.get("cap_output") else []
        if result.waited:
            notes.append(
                f"{len(result.waited) / result.calls:.1%} waited and were served, {median(result.waited):.1f} s at the median"
            )
        if beyond:
            notes.append(f"limits passed by {beyond / sum(result.spent.values()):.2%} of the spend")
        what = f"{name} ({'; '.join(notes)})" if notes else name
        rows.append(
            Row(what, f"{phantoms / result.calls:.1%} of {result.calls:,} calls", f"{refused / result.calls:.1%} refused",
                f"{phantoms / refused:.0%} of the refused" if refused else "-")
        )  # fmt: skip
    return rows
