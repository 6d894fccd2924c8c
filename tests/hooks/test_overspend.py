"""No user passes a limit, whatever is in flight: 40 calls of $0.0125 each under $0.05, and under $0.055."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import litellm
import pytest
from litellm import Router

from litellm_budget_plugin import BudgetCallback, BudgetExceeded
from tests.hooks.desk import CHAT, EMBED, WORTH, Desk, register_prices
from tests.upstream import Upstream, Usage
from tests.warm import in_processes

CALLS = 40
LIMITS = pytest.mark.parametrize("limit", ["0.05", "0.055"])


def _outcome(call: Callable[[], Any]) -> str:
    try:
        call()
    except BudgetExceeded:
        return "refused"
    return "served"


def _check(desk: Desk, upstream: Upstream, outcomes: list[str]) -> None:
    assert sorted(set(outcomes)) == ["refused", "served"]
    assert outcomes.count("served") == 4
    assert len(outcomes) == CALLS
    assert upstream.requests == 4
    spent = desk.calm("alice")
    assert spent == 4 * WORTH, (desk.state("alice"), desk.usage("alice"))
    refused = outcomes.count("refused")
    assert desk.usage("alice").refusals == refused


@LIMITS
def test_overspend_one_after_the_other(open_desk: Callable[..., Desk], upstream: Upstream, limit: str) -> None:
    desk = open_desk(default_limit=limit)
    outcomes = [_outcome(lambda: litellm.completion(**desk.arguments("alice"))) for _ in range(CALLS)]
    _check(desk, upstream, outcomes)


def _in_threads(call: Callable[[], Any]) -> list[str]:
    outcomes: list[str] = []
    barrier = threading.Barrier(CALLS)

    def run() -> None:
        barrier.wait()
        outcomes.append(_outcome(call))

    threads = [threading.Thread(target=run) for _ in range(CALLS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


@LIMITS
def test_overspend_forty_threads(open_desk: Callable[..., Desk], upstream: Upstream, limit: str) -> None:
    desk = open_desk(default_limit=limit)
    _check(desk, upstream, _in_threads(lambda: litellm.completion(**desk.arguments("alice"))))


def _in_tasks(call: Callable[[], Any]) -> list[str]:
    async def one() -> str:
        try:
            answer = await call()
            if hasattr(answer, "__aiter__"):
                async for _ in answer:
                    pass
        except BudgetExceeded:
            return "refused"
        return "served"

    async def all_of_them() -> list[str]:
        return list(await asyncio.gather(*[one() for _ in range(CALLS)]))

    return asyncio.run(all_of_them())


@LIMITS
def test_overspend_forty_tasks(open_desk: Callable[..., Desk], upstream: Upstream, limit: str) -> None:
    desk = open_desk(default_limit=limit)
    _check(desk, upstream, _in_tasks(lambda: litellm.acompletion(**desk.arguments("alice"))))


@LIMITS
def test_overspend_streams(open_desk: Callable[..., Desk], upstream: Upstream, limit: str) -> None:
    desk = open_desk(default_limit=limit)
    outcomes = _in_threads(lambda: list(litellm.completion(**desk.arguments("alice", stream=True))))
    _check(desk, upstream, outcomes)


def test_overspend_streams_in_tasks(desk: Desk, upstream: Upstream) -> None:
    _check(desk, upstream, _in_tasks(lambda: litellm.acompletion(**desk.arguments("alice", stream=True))))


@LIMITS
def test_overspend_embeddings(open_desk: Callable[..., Desk], upstream: Upstream, limit: str) -> None:
    upstream.usage = Usage(1000, 0)
    desk = open_desk(default_limit=limit)
    _check(desk, upstream, _in_threads(lambda: litellm.embedding(**desk.embedding("alice"))))


def test_overspend_embeddings_in_tasks(desk: Desk, upstream: Upstream) -> None:
    upstream.usage = Usage(1000, 0)
    _check(desk, upstream, _in_tasks(lambda: litellm.aembedding(**desk.embedding("alice"))))


def test_overspend_text_completions(desk: Desk, upstream: Upstream) -> None:
    _check(desk, upstream, _in_threads(lambda: litellm.text_completion(**desk.text("alice"))))


def test_overspend_text_completions_in_tasks(desk: Desk, upstream: Upstream) -> None:
    _check(desk, upstream, _in_tasks(lambda: litellm.atext_completion(**desk.text("alice"))))


def router(url: str, **more: Any) -> Router:
    """Return a Router with three deployments of each test model."""
    groups = [("chat", CHAT), ("embed", EMBED)]
    deployments = [
        {
            "model_name": name,
            "litellm_params": {"model": model, "api_base": url, "api_key": f"sk-{n}", "max_retries": 0},
        }
        for name, model in groups
        for n in range(3)
    ]
    return Router(model_list=deployments, **more)


ROUTED = {"model": "chat", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1000, "user": "alice"}


@LIMITS
def test_overspend_router(open_desk: Callable[..., Desk], upstream: Upstream, limit: str) -> None:
    desk = open_desk(default_limit=limit)
    routed = router(upstream.url)
    _check(desk, upstream, _in_threads(lambda: routed.completion(**ROUTED)))


def test_overspend_router_in_tasks(desk: Desk, upstream: Upstream) -> None:
    routed = router(upstream.url)
    _check(desk, upstream, _in_tasks(lambda: routed.acompletion(**ROUTED)))


def test_overspend_router_streams_in_tasks(desk: Desk, upstream: Upstream) -> None:
    routed = router(upstream.url)
    _check(desk, upstream, _in_tasks(lambda: routed.acompletion(**ROUTED, stream=True)))


def test_overspend_router_embeddings(desk: Desk, upstream: Upstream) -> None:
    upstream.usage = Usage(1000, 0)
    routed = router(upstream.url)
    _check(desk, upstream, _in_threads(lambda: routed.embedding(model="embed", input=[1] * 1000, user="alice")))


def test_overspend_with_retries(desk: Desk, upstream: Upstream) -> None:
    outcomes = _in_threads(lambda: litellm.completion(**desk.arguments("alice", num_retries=2)))
    _check(desk, upstream, outcomes)


def test_overspend_with_retries_in_tasks(desk: Desk, upstream: Upstream) -> None:
    _check(desk, upstream, _in_tasks(lambda: litellm.acompletion(**desk.arguments("alice", num_retries=2))))


_IMPORTED_EARLIER = textwrap.dedent(
    """
    import sys
    from litellm import completion            # by name, before the callback exists
    import litellm
    from litellm_budget_plugin import BudgetCallback, BudgetExceeded
    from tests.hooks.desk import CHAT, register_prices
    register_prices()
    callback = BudgetCallback()
    litellm.callbacks = [callback]
    served = refused = 0
    for _ in range(int(sys.argv[2])):
        try:
            completion(model=CHAT, messages=[{"role": "user", "content": "x"}], max_tokens=1000, user="alice",
                       api_base=sys.argv[1], api_key="sk", max_retries=0)
            served += 1
        except BudgetExceeded:
            refused += 1
    callback.close()
    print(served, refused)
    """
)


def _in_process(url: str, settings: dict[str, Any], calls: int) -> list[str]:
    """Return the outcomes of a process's own calls."""
    register_prices()
    callback = BudgetCallback(**settings)
    litellm.callbacks = [callback]
    desk = Desk(callback, url)
    outcomes = [_outcome(lambda: litellm.completion(**desk.arguments("alice"))) for _ in range(calls)]
    callback.close()
    return outcomes


def test_overspend_name_imported_before_the_callback_existed(desk: Desk, upstream: Upstream) -> None:
    environment = {
        **os.environ,
        "LITELLM_BUDGET_STORE_URL": desk.callback.settings.url,
        "LITELLM_BUDGET_DEFAULT_LIMIT": "0.05",
    }
    command = [sys.executable, "-c", _IMPORTED_EARLIER, desk.url, str(CALLS)]
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said.split()[-2:] == ["4", str(CALLS - 4)]
    assert (upstream.requests, desk.calm("alice")) == (4, 4 * WORTH)


@LIMITS
def test_overspend_eight_processes(open_desk: Callable[..., Desk], upstream: Upstream, limit: str) -> None:
    desk = open_desk(default_limit=limit)
    settings = {"default_limit": limit, "store_url": desk.callback.settings.url}
    outcomes = in_processes(8, _in_process, desk.url, settings, CALLS // 8)
    _check(desk, upstream, [outcome for process in outcomes for outcome in process])


def test_overspend_process_forked_after_the_callback_was_made(desk: Desk, upstream: Upstream) -> None:
    outcomes = [_outcome(lambda: litellm.completion(**desk.arguments("alice")))]
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=_forked, args=(desk, 20, results))
    child.start()
    outcomes += results.get()
    child.join()
    outcomes += [_outcome(lambda: litellm.completion(**desk.arguments("alice"))) for _ in range(CALLS - 21)]
    _check(desk, upstream, outcomes)


def _forked(desk: Desk, calls: int, results: Any) -> None:
    outcomes = [_outcome(lambda: litellm.completion(**desk.arguments("alice"))) for _ in range(calls)]
    desk.callback.flush()
    results.put(outcomes)
    os._exit(0)
