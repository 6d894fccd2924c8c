"""WAIT_FOR_HELD in the proxy: a request waits, and the proxy continues to serve others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from litellm_budget_plugin.core.accounts import Amounts, Subject
from litellm_budget_plugin.core.commands import Release, Reserve
from tests.proxy.desk import LIMIT, WORTH, Proxy, chat_only
from tests.upstream import Upstream, Usage


def test_a_request_waits_for_money_that_is_held(start: Callable[..., Proxy], shared_upstream: Upstream) -> None:
    shared_upstream.usage = Usage(1000, 1000)
    shared_upstream.requests = 0
    proxy = start(chat_only(shared_upstream.url), wait_for_held="300", store_timeout="10")
    limit = round(float(LIMIT) * 10**9)
    alice, everything = (Subject("user", "alice"),), Amounts(limit, 1, 1)
    proxy.ask(lambda ledger: Reserve("h", ledger.project, alice, (), everything, 600_000_000, ledger.defaults))
    with ThreadPoolExecutor(2) as pool:
        whole, stream = (pool.submit(proxy.chat, "alice", stream=stream) for stream in (False, True))
        for number in range(5):
            # Both came before these, and block no other request.
            assert proxy.chat(f"bob-{number}").choices
        assert (shared_upstream.requests, whole.done(), stream.done()) == (5, False, False)
        with pytest.raises(openai.UnprocessableEntityError):
            proxy.chat("alice", max_tokens=100_000)
        proxy.ask(lambda ledger: Release("h", ledger.project))
        assert whole.result(60).choices
        assert list(stream.result(60))
    assert proxy.calm("alice", 2) == 2 * WORTH
    assert proxy.usage("alice").refusals == 1
