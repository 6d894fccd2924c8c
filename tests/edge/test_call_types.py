"""Every function of LiteLLM's is gated, except for those that are listed as free. What a call does decides, not its
name.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

import litellm
import pytest
from litellm.litellm_core_utils.litellm_logging import Logging

from litellm_budget_plugin.errors import BudgetRefused
from tests.edge.desk import Edge
from tests.edge.functions import Found, arguments_for, client_functions, run
from tests.edge.provider import INPUT, OUTPUT, BillingProvider

MESSAGES = [{"role": "user", "content": "x"}]
UNBOUNDED = 100_000_000
"""The default of UNBOUNDED_HOLD, in nano-dollars."""
ALICE = {"litellm_metadata": {"budget_user": "alice"}}

EVERY_FUNCTION = pytest.mark.parametrize("found", client_functions(), ids=str)


def _free_list() -> Mapping[str, str]:
    try:
        from litellm_budget_plugin.hooks.call_types import FREE
    except ImportError:
        pytest.fail("there is no list of free functions: litellm_budget_plugin.hooks.call_types.FREE")
    return FREE  # type: ignore[no-any-return]


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts beyond loopback that code tried to reach. None of them is reached."""
    wanted: list[str] = []
    original = socket.getaddrinfo

    def only_loopback(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in ("127.0.0.1", "localhost", b"127.0.0.1"):
            return original(host, *args, **kwargs)
        wanted.append(str(host))
        raise socket.gaierror("this test has no network")

    monkeypatch.setattr(socket, "getaddrinfo", only_loopback)
    return wanted


@pytest.fixture
def broke(open_edge: Callable[..., Edge]) -> Edge:
    """An edge on which no user may spend anything."""
    return open_edge(default_limit="0")


def _refusal(error: BaseException | None) -> BudgetRefused | None:
    while error is not None:
        if isinstance(error, BudgetRefused):
            return error
        error = error.__cause__ or error.__context__
    return None


def _outcome(found: Found, provider: BillingProvider) -> BudgetRefused | None:
    try:
        run(found, arguments_for(found, provider))
    except Exception as error:
        return _refusal(error)
    return None


@EVERY_FUNCTION
def test_a_function_is_free_or_refused(found: Found, broke: Edge, outside: list[str]) -> None:
    """With a limit of 0, no request of a function leaves unless it is listed as free."""
    refusal = _outcome(found, broke.provider)
    if set(found.names) & set(_free_list()):
        assert refusal is None, f"{found} is listed as free, and is refused: {refusal}"
        return
    sent = [*broke.provider.asked, *outside]
    assert refusal is not None and not sent, (
        f"{found} is neither refused at a limit of 0 nor listed in litellm_budget_plugin.hooks.call_types.FREE; sent: {sent}"
    )


def test_the_walk_finds_what_litellm_has() -> None:
    """It also finds modules that import the decorator under another name."""
    names = {name for found in client_functions() for name in found.names}
    assert len(client_functions()) > 150
    assert {
        "main:completion",
        "main:acompletion",
        "realtime_api.main:acreate_realtime_client_secret",
        "realtime_api.main:arealtime_calls",
        "rag.main:aquery",
        "vector_stores.main:search",
        "search.main:search",
        "containers.main:create_container",
    } <= names


def test_every_free_function_has_a_reason_and_none_is_billed() -> None:
    free = _free_list()
    assert all(isinstance(reason, str) and len(reason.split()) > 1 for reason in free.values())
    billed = ("completion", "embedding", "responses", "query", "generation", "speech", "rerank", "ocr", "realtime")
    made = {
        f"{prefix}{name}" for name in billed for prefix in ("", "a", "_", "_a", "text_", "atext_", "image_", "aimage_")
    }
    assert not [name for name in free if name.partition(":")[2] in made]


def test_the_free_list_names_functions_that_exist() -> None:
    """Except for the proxy's functions, and those that only another version has. Of most of them, one must exist."""
    names = {name for found in client_functions() for name in found.names}
    free = [name for name in _free_list() if not name.startswith("proxy.")]
    known = [name for name in free if name in names]
    assert len(known) >= 0.9 * len(free), sorted(set(free) - set(known))


def _quietly(function: Callable[..., Any], **arguments: Any) -> BaseException | None:
    """Return how a call ends. It is awaited if necessary."""
    try:
        answer = function(**arguments)
        if asyncio.iscoroutine(answer):
            asyncio.run(answer)
    except Exception as error:
        return error
    return None


def _base(provider: BillingProvider) -> dict[str, Any]:
    return {"api_base": provider.url, "api_key": "sk-test", **ALICE}


def _anthropic_root(provider: BillingProvider) -> dict[str, Any]:
    return {**_base(provider), "api_base": provider.root}


# Billed calls of functions that are unknown to the estimate.
_BILLED: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "compact_responses": (litellm.compact_responses, {"model": "openai/edge-chat", "input": "x"}),
    "acompact_responses": (litellm.acompact_responses, {"model": "openai/edge-chat", "input": "x"}),
    "video_extension": (
        litellm.videos.main.video_extension,
        {"video_id": "video_1", "prompt": "x", "seconds": "4", "custom_llm_provider": "openai"},
    ),
    "avideo_extension": (
        litellm.videos.main.avideo_extension,
        {"video_id": "video_1", "prompt": "x", "seconds": "4", "custom_llm_provider": "openai"},
    ),
    "video_edit": (
        litellm.videos.main.video_edit,
        {"video_id": "video_1", "prompt": "x", "custom_llm_provider": "openai"},
    ),
    "video_remix": (
        litellm.videos.main.video_remix,
        {"video_id": "video_1", "prompt": "x", "custom_llm_provider": "openai"},
    ),
    "acreate_realtime_client_secret": (
        litellm.acreate_realtime_client_secret,
        {"model": "openai/gpt-4o-realtime-preview", "session": {"type": "realtime", "model": "openai/gpt-realtime"}},
    ),
    "arealtime_calls": (
        litellm.arealtime_calls,
        {"openai_ephemeral_key": "ek", "sdp_body": b"v=0", "model": "openai/gpt-4o-realtime-preview"},
    ),
    "interactions.create": (litellm.interactions.create, {"model": "gemini/edge-gemini", "input": "x"}),
    "interactions.acreate": (litellm.interactions.acreate, {"model": "gemini/edge-gemini", "input": "x"}),
    "create_batch": (
        litellm.create_batch,
        {
            "completion_window": "24h",
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-1",
            "custom_llm_provider": "openai",
        },
    ),
    "acreate_batch": (
        litellm.acreate_batch,
        {
            "completion_window": "24h",
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-1",
            "custom_llm_provider": "openai",
        },
    ),
    "create_fine_tuning_job": (
        litellm.create_fine_tuning_job,
        {"model": "edge-chat", "training_file": "file-1", "custom_llm_provider": "openai"},
    ),
    "acreate_fine_tuning_job": (
        litellm.acreate_fine_tuning_job,
        {"model": "edge-chat", "training_file": "file-1", "custom_llm_provider": "openai"},
    ),
}
BILLED = pytest.mark.parametrize("name", list(_BILLED))


def _billed(name: str, provider: BillingProvider) -> BaseException | None:
    function, arguments = _BILLED[name]
    base = _anthropic_root(provider) if "interactions" in name else _base(provider)
    return _quietly(function, **arguments, **base)


@BILLED
def test_a_billed_call_is_refused_at_a_limit_of_nothing(name: str, broke: Edge, outside: list[str]) -> None:
    error = _billed(name, broke.provider)
    assert _refusal(error) is not None, (error, broke.provider.asked)
    assert not broke.provider.asked and not outside


@BILLED
def test_a_billed_call_of_unknown_size_holds_for_the_unbounded(
    name: str, open_edge: Callable[..., Edge], outside: list[str]
) -> None:
    """While the provider is asked, UNBOUNDED_HOLD is held. With less room than that no request leaves."""
    edge = open_edge(default_limit="1")
    held: list[int] = []
    edge.provider.managed[""] = b"{}"
    edge.provider.asked = _Watched(lambda: held.append(edge.held("alice")))
    error = _billed(name, edge.provider)
    assert _refusal(error) is None
    assert edge.provider.asked and not outside, error
    assert min(held) >= UNBOUNDED
    poor = edge.new_user()
    edge.callback.manager.create_budget(total_budget=(UNBOUNDED - 1) / 1e9, user=poor)
    before = len(edge.provider.asked)
    function, arguments = _BILLED[name]
    base = _anthropic_root(edge.provider) if "interactions" in name else _base(edge.provider)
    refused = _quietly(function, **arguments, **{**base, "litellm_metadata": {"budget_user": poor}})
    assert _refusal(refused) is not None and len(edge.provider.asked) == before


class _Watched(list[str]):
    """A list that reports each new entry."""

    def __init__(self, tell: Callable[[], object]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, entry: str) -> None:
        self._tell()
        super().append(entry)


# Calls that cost nothing, even if their names collide with others.
_FREE: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "vector_stores.search": (
        litellm.vector_stores.search,
        {"vector_store_id": "vs_1", "query": "x", "custom_llm_provider": "openai"},
    ),
    "vector_stores.asearch": (
        litellm.vector_stores.asearch,
        {"vector_store_id": "vs_1", "query": "x", "custom_llm_provider": "openai"},
    ),
    "vector_stores.create": (litellm.vector_stores.create, {"name": "n", "custom_llm_provider": "openai"}),
    "vector_stores.acreate": (litellm.vector_stores.acreate, {"name": "n", "custom_llm_provider": "openai"}),
    "vector_stores.list": (litellm.vector_stores.main.list, {"custom_llm_provider": "openai"}),
    "create_file": (
        litellm.create_file,
        {"file": ("a.jsonl", b"{}"), "purpose": "batch", "custom_llm_provider": "openai"},
    ),
    "acreate_file": (
        litellm.acreate_file,
        {"file": ("a.jsonl", b"{}"), "purpose": "batch", "custom_llm_provider": "openai"},
    ),
    "file_retrieve": (litellm.file_retrieve, {"file_id": "file-1", "custom_llm_provider": "openai"}),
    "file_list": (litellm.file_list, {"custom_llm_provider": "openai"}),
    "file_content": (litellm.file_content, {"file_id": "file-1", "custom_llm_provider": "openai"}),
    "file_delete": (litellm.file_delete, {"file_id": "file-1", "custom_llm_provider": "openai"}),
    "list_batches": (litellm.list_batches, {"custom_llm_provider": "openai"}),
    "retrieve_batch": (litellm.retrieve_batch, {"batch_id": "batch_1", "custom_llm_provider": "openai"}),
    "aretrieve_batch": (litellm.aretrieve_batch, {"batch_id": "batch_1", "custom_llm_provider": "openai"}),
    "moderation": (litellm.moderation, {"input": "x", "model": "omni-moderation-latest"}),
    "amoderation": (litellm.amoderation, {"input": "x", "model": "omni-moderation-latest"}),
    "get_responses": (litellm.get_responses, {"response_id": "resp_1", "custom_llm_provider": "openai"}),
    "delete_responses": (litellm.delete_responses, {"response_id": "resp_1", "custom_llm_provider": "openai"}),
}


@pytest.mark.parametrize("name", list(_FREE))
def test_a_free_call_goes_through_at_a_limit_of_nothing(name: str, broke: Edge) -> None:
    function, arguments = _FREE[name]
    error = _quietly(function, **arguments, **_base(broke.provider))
    assert _refusal(error) is None, error
    assert broke.provider.asked, error
    assert broke.calm("alice") == 0


def test_retrieval_with_a_completion_sends_nothing_without_room(broke: Edge, outside: list[str]) -> None:
    """litellm.aquery searches, and passes its own Logging object to the completion that it makes from the results."""
    found = {
        "object": "vector_store.search_results.page",
        "search_query": "x",
        "data": [{"score": 1.0, "content": [{"type": "text", "text": "found"}]}],
    }
    broke.provider.managed["/search"] = json.dumps(found).encode()
    error = _quietly(
        litellm.aquery,
        model="openai/edge-chat",
        messages=MESSAGES,
        retrieval_config={
            "vector_store_id": "vs_1",
            "custom_llm_provider": "openai",
            "api_base": broke.provider.url,
            "api_key": "sk-test",
        },
        **_base(broke.provider),
    )
    assert _refusal(error) is not None, error
    assert not broke.provider.bodies and not outside


@pytest.mark.parametrize("stream", [False, True])
def test_retrieval_with_a_completion_is_charged_what_the_completion_costs(
    stream: bool, open_edge: Callable[..., Edge]
) -> None:
    """Once, and without the search before it, which has no price."""
    edge = open_edge(default_limit="1000")
    found = {"object": "vector_store.search_results.page", "search_query": "x", "data": []}
    edge.provider.managed["/search"] = json.dumps(found).encode()
    search = {"vector_store_id": "vs_1", "custom_llm_provider": "openai", "api_base": edge.provider.url, "api_key": "k"}

    async def ask() -> None:
        answer: Any = await litellm.aquery(
            model="openai/edge-chat",
            messages=MESSAGES,
            max_tokens=300,
            stream=stream,
            retrieval_config=search,
            **_base(edge.provider),
        )
        if stream:
            async for _ in answer:
                pass

    asyncio.run(ask())
    assert edge.calm("alice") == edge.provider.bill >= 300 * OUTPUT


def _labelled(call_type: str, *, stream: bool = False) -> Logging:
    """Return a Logging object as a caller may make one."""
    return Logging(
        model="gate",
        messages=[],
        stream=stream,
        call_type=call_type,
        start_time=dt.datetime.now(),
        litellm_call_id="mine",
        function_id="mine",
    )


_CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "completion": (litellm.completion, {"model": "openai/edge-chat", "messages": MESSAGES, "max_tokens": 10}),
    "acompletion": (litellm.acompletion, {"model": "openai/edge-chat", "messages": MESSAGES, "max_tokens": 10}),
    "completion, stream": (
        litellm.completion,
        {"model": "openai/edge-chat", "messages": MESSAGES, "max_tokens": 10, "stream": True},
    ),
    "acompletion, stream": (
        litellm.acompletion,
        {"model": "openai/edge-chat", "messages": MESSAGES, "max_tokens": 10, "stream": True},
    ),
    "embedding": (litellm.embedding, {"model": "openai/edge-embed", "input": ["x"]}),
    "responses": (litellm.responses, {"model": "openai/edge-chat", "input": "x", "max_output_tokens": 10}),
    "aresponses": (litellm.aresponses, {"model": "openai/edge-chat", "input": "x", "max_output_tokens": 10}),
    "anthropic.messages": (
        litellm.anthropic.messages.acreate,
        {"model": "anthropic/edge-claude", "messages": MESSAGES, "max_tokens": 10},
    ),
    "text_completion": (
        litellm.text_completion,
        {"model": "text-completion-openai/edge-text", "prompt": "x", "max_tokens": 10},
    ),
}


@pytest.mark.parametrize("name", list(_CALLS))
@pytest.mark.parametrize("label", ["moderation", "aretrieve_batch", "list_batches", "no such thing"])
def test_a_label_on_a_logging_object_does_not_open_the_gate(
    name: str, label: str, broke: Edge, outside: list[str]
) -> None:
    function, arguments = _CALLS[name]
    base = _anthropic_root(broke.provider) if "anthropic" in name else _base(broke.provider)
    logging_obj = _labelled(label, stream="stream" in name)
    error = _quietly(function, **arguments, **base, litellm_logging_obj=logging_obj)
    # An error that LiteLLM itself raises on such an object before it sends anything is fine, too.
    assert not broke.provider.asked and not outside, (error, broke.provider.asked)
    assert error is not None


def test_a_passed_logging_object_holds_and_charges_like_any(open_edge: Callable[..., Edge]) -> None:
    edge = open_edge(default_limit="1")
    arguments = {**_base(edge.provider), "model": "openai/edge-chat", "messages": MESSAGES, "max_tokens": 10}
    outcome = edge.call(litellm.completion, "alice", **arguments, litellm_logging_obj=_labelled("moderation"))
    assert outcome.error is None and outcome.held >= outcome.bill > 0, outcome
    assert edge.calm("alice") == outcome.bill


_BATCH = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "input_file_id": "file-in",
    "completion_window": "24h",
    "created_at": 1,
    "errors": None,
    "metadata": None,
}
_READ, _WROTE = 1000, 500


def _completed() -> dict[str, Any]:
    counts = {"total": 1, "completed": 1, "failed": 0}
    return {**_BATCH, "status": "completed", "output_file_id": "file-out", "completed_at": 2, "request_counts": counts}


def _output_line() -> bytes:
    answer = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "edge-batch",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
        "usage": {"prompt_tokens": _READ, "completion_tokens": _WROTE, "total_tokens": _READ + _WROTE},
    }
    line = {
        "id": "r",
        "custom_id": "1",
        "response": {"status_code": 200, "request_id": "r", "body": answer},
        "error": None,
    }
    return json.dumps(line).encode() + b"\n"


async def _all_of_it(edge: Edge, retrievals: int) -> None:
    await litellm.acreate_batch(
        completion_window="24h",
        endpoint="/v1/chat/completions",
        input_file_id="file-in",
        custom_llm_provider="openai",
        **_base(edge.provider),
    )
    await _looks(edge, retrievals)


async def _looks(edge: Edge, retrievals: int) -> None:
    for _ in range(retrievals):
        await litellm.aretrieve_batch(batch_id="batch_1", custom_llm_provider="openai", **_base(edge.provider))
        await _settled()


async def _settled() -> None:
    """LiteLLM computes the cost after the answer. Wait for its workers, not for a time."""
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

    await GLOBAL_LOGGING_WORKER.flush()


@pytest.mark.parametrize("retrievals", [1, 2, 3])
def test_a_batch_is_charged_once_when_its_cost_is_known(retrievals: int, open_edge: Callable[..., Edge]) -> None:
    litellm.register_model(
        {
            "openai/edge-batch": {
                "litellm_provider": "openai",
                "mode": "chat",
                "input_cost_per_token": INPUT / 1e9,
                "output_cost_per_token": OUTPUT / 1e9,
                "input_cost_per_token_batches": INPUT / 1e9,
                "output_cost_per_token_batches": OUTPUT / 1e9,
            }
        }
    )
    edge = open_edge(default_limit="1")
    edge.provider.managed |= {
        "/batches": json.dumps({**_BATCH, "status": "validating"}).encode(),
        "/batches/batch_1": json.dumps(_completed()).encode(),
        "/file-out/content": _output_line(),
    }
    asyncio.run(_all_of_it(edge, retrievals))
    assert edge.calm("alice") == _READ * INPUT + _WROTE * OUTPUT


def test_a_batch_that_is_not_over_is_not_charged_by_looking_at_it(open_edge: Callable[..., Edge]) -> None:
    edge = open_edge(default_limit="1")
    edge.provider.managed |= {
        "/batches": json.dumps({**_BATCH, "status": "validating"}).encode(),
        "/batches/batch_1": json.dumps({**_BATCH, "status": "in_progress"}).encode(),
    }
    asyncio.run(_all_of_it(edge, 0))
    edge.callback.flush()
    before = (edge.spent("alice"), edge.held("alice"))
    assert sum(before) in (0, UNBOUNDED)
    asyncio.run(_looks(edge, 3))
    edge.callback.flush()
    assert (edge.spent("alice"), edge.held("alice")) == before
