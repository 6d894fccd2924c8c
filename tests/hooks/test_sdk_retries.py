"""Requests that OpenAI's SDK repeats by itself are attempts of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import litellm
import openai
import pytest
from openai._base_client import AsyncAPIClient, SyncAPIClient

from litellm_budget_plugin import BudgetExceeded
from tests.hooks.desk import EMBED, INPUT, TEXT, Desk
from tests.upstream import Upstream

MODELS = {"chat": INPUT, "stream": INPUT, "text": TEXT, "embedding": EMBED}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the waiting between requests."""
    for client in (SyncAPIClient, AsyncAPIClient):
        monkeypatch.setattr(client, "_calculate_retry_timeout", lambda *args, **kwargs: 0)


@pytest.fixture
def rich(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk(default_limit="10")


def call(desk: Desk, kind: str, user: str, *, awaited: bool = False, **more: Any) -> Any:
    """Make a call that OpenAI's SDK may repeat twice."""
    names = {"chat": "completion", "stream": "completion", "text": "text_completion", "embedding": "embedding"}
    arguments = {
        "chat": lambda: desk.arguments(user, model=INPUT),
        "stream": lambda: desk.arguments(user, model=INPUT, stream=True),
        "text": lambda: desk.text(user, prompt="x" * 1000),
        "embedding": lambda: desk.embedding(user),
    }[kind]()
    arguments = {**arguments, "max_retries": 2, **more}
    if not awaited:
        answer = getattr(litellm, names[kind])(**arguments)
        return list(answer) if kind == "stream" else answer

    async def work() -> Any:
        answer = await getattr(litellm, "a" + names[kind])(**arguments)
        return [chunk async for chunk in answer] if kind == "stream" else answer

    return asyncio.run(work())


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("kind", list(MODELS))
def test_a_repeated_request_is_an_attempt_of_its_own(rich: Desk, upstream: Upstream, kind: str, awaited: bool) -> None:
    call(rich, kind, "calm", awaited=awaited)
    once = rich.calm("calm")
    upstream.script[MODELS[kind].split("/")[1]].extend(["cut", "cut"])
    call(rich, kind, "alice", awaited=awaited)
    assert upstream.requests == 4
    spent = rich.calm("alice")
    assert rich.usage("alice").calls == 3
    # A lost request is charged its input side, which costs nothing for two of the models.
    assert spent == once if kind == "text" else spent > once


@pytest.mark.parametrize("awaited", [False, True])
def test_a_request_that_was_free_is_not_charged_for(rich: Desk, upstream: Upstream, awaited: bool) -> None:
    call(rich, "chat", "calm", awaited=awaited)
    upstream.script["gate-input"].extend([500, 429])
    call(rich, "chat", "alice", awaited=awaited)
    assert upstream.requests == 4
    assert rich.calm("alice") == rich.calm("calm")
    assert rich.usage("alice").calls == 1


@pytest.mark.parametrize("awaited", [False, True])
def test_each_request_behind_a_timeout_is_charged(rich: Desk, upstream: Upstream, awaited: bool) -> None:
    upstream.script["gate-input"].extend(["hang"] * 9)
    with pytest.raises(litellm.Timeout):
        call(rich, "chat", "alice", awaited=awaited, timeout=0.2)
    spent = rich.calm("alice")
    assert rich.usage("alice").calls == upstream.requests == 3
    with pytest.raises(litellm.Timeout):
        call(rich, "chat", "bob", awaited=awaited, timeout=0.2, max_retries=0)
    assert spent == 3 * rich.calm("bob") > 0


def test_requests_repeated_by_the_sdk_and_by_litellm_are_all_charged(rich: Desk, upstream: Upstream) -> None:
    upstream.script["gate-input"].extend(["cut"] * 9)
    with pytest.raises(litellm.InternalServerError):
        call(rich, "chat", "alice", num_retries=2, max_retries=None)
    rich.calm("alice")
    assert rich.usage("alice").calls == upstream.requests > 3


@pytest.mark.parametrize("awaited", [False, True])
def test_a_repeated_request_for_which_there_is_no_room_is_refused(
    open_desk: Callable[..., Desk], upstream: Upstream, awaited: bool
) -> None:
    # 1,000 tokens of input, and no output that costs anything: a lost request leaves no room for a second one.
    desk = open_desk(default_limit="0.015")
    upstream.script["gate-embed"].extend(["cut"] * 9)
    with pytest.raises(BudgetExceeded):
        call(desk, "embedding", "alice", awaited=awaited)
    assert upstream.requests == 1
    desk.calm("alice")
    assert desk.usage("alice").calls == 1


def test_requests_of_somebody_else_in_the_same_context_are_not_ours(rich: Desk, upstream: Upstream) -> None:
    call(rich, "chat", "alice")
    spent = rich.calm("alice")
    upstream.script["gate-chat"].extend(["cut", "cut"])
    client = openai.OpenAI(api_key="sk-test", base_url=upstream.url, max_retries=2)
    client.chat.completions.create(model="gate-chat", messages=[{"role": "user", "content": "x"}])
    assert upstream.requests == 4
    assert (rich.calm("alice"), rich.usage("alice").calls) == (spent, 1)


def test_a_stream_that_is_being_read_is_not_charged_for_other_requests(rich: Desk, upstream: Upstream) -> None:
    stream = litellm.completion(**rich.arguments("alice", model=INPUT, stream=True))
    next(stream)
    upstream.script["gate-chat"].extend(["cut", "cut"])
    client = openai.OpenAI(api_key="sk-test", base_url=upstream.url, max_retries=2)
    client.chat.completions.create(model="gate-chat", messages=[{"role": "user", "content": "x"}])
    assert upstream.requests == 4
    list(stream)
    rich.calm("alice")
    assert rich.usage("alice").calls == 1
