"""Whatever the names and places of arguments: what the provider bills was held, or no request left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import litellm
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from tests.edge.desk import Edge, Outcome
from tests.edge.provider import INPUT, OUTPUT, BillingProvider
from tests.generated import examples

LIMIT = 5_000_000
"""Nano-dollars. Room for the innocent part of each call here: five thousand bytes or five hundred tokens of output."""
PLENTY = "1000"
MUCH = 60_000
LONG = "y" * 100_000
MESSAGES = [{"role": "user", "content": "x"}]
CONTENTS = [{"role": "user", "parts": [{"text": "x"}]}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


class Way(NamedTuple):
    """A function of LiteLLM's, a model, and the arguments of an innocent call."""

    function: Callable[..., Any]
    model: str
    arguments: dict[str, Any]
    payer: str = "user"

    def innocent(self, provider: BillingProvider, user: str) -> dict[str, Any]:
        """Return the arguments of an ordinary call by `user`, with ten tokens of output."""
        named = "edge-bedrock" if self.model.startswith("bedrock") else self.model.partition("/")[2]
        payer = {"user": user} if self.payer == "user" else {"litellm_metadata": {"budget_user": user}}
        arguments = {
            "model": f"bedrock/converse/{named}" if self.model.startswith("bedrock") else self.model,
            "api_base": provider.base(self.model),
            "api_key": "sk-test",
            **payer,
            **self.arguments,
        }
        if self.model.startswith("azure"):
            arguments["api_version"] = "2024-06-01"
        if self.model.startswith("bedrock"):
            arguments |= {
                "aws_bedrock_runtime_endpoint": provider.root,
                "aws_access_key_id": "x",
                "aws_secret_access_key": "x",
                "aws_region_name": "us-east-1",
            }
        return json.loads(json.dumps(arguments))  # type: ignore[no-any-return]


def _run(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **arguments: asyncio.run(function(**arguments))


def _read(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its stream read to the end."""

    def whole(**arguments: Any) -> list[Any]:
        return list(function(**{**arguments, "stream": True}))

    return whole


def _chat(model: str, function: Callable[..., Any] = litellm.completion) -> Way:
    quick = {"max_retries": 0} if model.partition("/")[0] in ("openai", "azure", "hosted_vllm") else {}
    # LiteLLM passes metadata on to OpenAI, and some providers refuse `user`.
    return Way(function, model, {"messages": MESSAGES, "max_tokens": 10, **quick}, payer="litellm_metadata")


_GENERATE = {"contents": CONTENTS, "config": {"max_output_tokens": 10}}
WAYS = {
    "openai": _chat("openai/edge-chat"),
    "openai, awaited": _chat("openai/edge-chat", _run(litellm.acompletion)),
    "openai, streamed": _chat("openai/edge-chat", _read(litellm.completion)),
    "azure": _chat("azure/edge-azure"),
    "vllm": _chat("hosted_vllm/edge-vllm"),
    "anthropic": _chat("anthropic/edge-claude"),
    "anthropic, streamed": _chat("anthropic/edge-claude", _read(litellm.completion)),
    "gemini": _chat("gemini/edge-gemini"),
    "gemini, awaited": _chat("gemini/edge-gemini", _run(litellm.acompletion)),
    "gemini, streamed": _chat("gemini/edge-gemini", _read(litellm.completion)),
    "cohere": _chat("cohere_chat/edge-cohere"),
    "ollama": _chat("ollama_chat/edge-ollama"),
    "bedrock": _chat("bedrock/edge-bedrock"),
    "text": Way(
        litellm.text_completion,
        "text-completion-openai/edge-text",
        {"prompt": "x", "max_tokens": 10, "max_retries": 0},
        "litellm_metadata",
    ),
    "responses": Way(
        litellm.responses,
        "openai/edge-chat",
        {"input": "x", "max_output_tokens": 10, "max_retries": 0},
        "litellm_metadata",
    ),
    "responses by chat": Way(
        litellm.responses,
        "deepseek/edge-deep",
        {"input": "x", "max_output_tokens": 10},
        "litellm_metadata",
    ),
    "messages": Way(
        _run(litellm.anthropic.messages.acreate),
        "anthropic/edge-claude",
        {"messages": MESSAGES, "max_tokens": 10},
        "litellm_metadata",
    ),
    "messages by chat": Way(
        _run(litellm.anthropic.messages.acreate),
        "hosted_vllm/edge-vllm",
        {"messages": MESSAGES, "max_tokens": 10},
        "litellm_metadata",
    ),
    "generate_content": Way(litellm.google_genai.generate_content, "gemini/edge-gemini", _GENERATE, "litellm_metadata"),
    "generate_content, as a body": Way(
        litellm.google_genai.generate_content,
        "gemini/edge-gemini",
        {"contents": CONTENTS, "generationConfig": {"maxOutputTokens": 10}},
        "litellm_metadata",
    ),
    "generate_content by chat": Way(
        litellm.google_genai.generate_content,
        "hosted_vllm/edge-vllm",
        {"contents": CONTENTS, "config": {"maxOutputTokens": 10}},
        "litellm_metadata",
    ),
    "embedding": Way(
        litellm.embedding, "openai/edge-embed", {"input": ["x"], "max_retries": 0}, payer="litellm_metadata"
    ),
}


class Row(NamedTuple):
    """A way of calling, and arguments to add."""

    way: str
    more: dict[str, Any]

    def __str__(self) -> str:
        shown = json.dumps(self.more).replace(LONG, "LONG")
        return f"{self.way}: {shown[:90]}"


BOMB_ROWS = [
    # Limits in another spelling than the one that is read, in addition to it.
    Row("gemini", {"max_output_tokens": MUCH}),
    Row("gemini, awaited", {"max_output_tokens": MUCH}),
    Row("gemini, streamed", {"max_output_tokens": MUCH}),
    Row("gemini", {"maxOutputTokens": MUCH}),
    Row("gemini", {"maxOutputTokens": str(MUCH)}),
    Row("gemini", {"max_output_tokens": str(MUCH)}),
    Row("gemini", {"max_tokens": str(MUCH)}),
    Row("gemini", {"extra_body": {"generationConfig": {"maxOutputTokens": MUCH}}}),
    Row("gemini", {"extra_body": {"generationConfig": {"maxOutputTokens": str(MUCH)}}}),
    Row("gemini", {"extra_body": {"generation_config": {"max_output_tokens": MUCH}}}),
    Row("gemini", {"max_tokens": 100, "candidate_count": 8}),
    Row("gemini", {"max_tokens": 100, "candidateCount": 8}),
    Row("gemini", {"max_tokens": 100, "n": "8"}),
    Row(
        "gemini", {"max_tokens": 100, "extra_body": {"generationConfig": {"maxOutputTokens": 100, "candidateCount": 8}}}
    ),
    Row("openai", {"extra_body": {"max_tokens": MUCH}}),
    Row("openai", {"extra_body": {"max_completion_tokens": MUCH}}),
    Row("openai, awaited", {"extra_body": {"max_tokens": MUCH}}),
    Row("openai, streamed", {"extra_body": {"max_completion_tokens": MUCH}}),
    Row("openai", {"max_tokens": str(MUCH)}),
    Row("openai", {"max_completion_tokens": str(MUCH)}),
    Row("openai", {"max_completion_tokens": float(MUCH)}),
    Row("openai", {"max_tokens": 100, "n": "8"}),
    Row("openai", {"max_tokens": 100, "n": 8.0}),
    Row("openai", {"max_tokens": 100, "extra_body": {"n": 8}}),
    Row("openai", {"max_tokens": 100, "best_of": "8"}),
    Row("azure", {"extra_body": {"max_tokens": MUCH}}),
    Row("azure", {"max_tokens": 100, "extra_body": {"n": 8}}),
    Row("vllm", {"extra_body": {"max_tokens": MUCH}}),
    Row("vllm", {"max_tokens": 100, "extra_body": {"n": "8"}}),
    Row("vllm", {"max_new_tokens": MUCH}),
    Row("vllm", {"max_tokens": 100, "best_of": 8}),
    Row("bedrock", {"maxTokens": MUCH}),
    Row("bedrock", {"max_new_tokens": MUCH}),
    Row("cohere", {"extra_body": {"max_tokens": MUCH}}),
    Row("ollama", {"num_predict": MUCH}),
    Row("ollama", {"num_predict": str(MUCH)}),
    Row("ollama", {"extra_body": {"options": {"num_predict": MUCH}}}),
    Row("text", {"extra_body": {"max_tokens": MUCH}}),
    Row("text", {"max_tokens": 100, "extra_body": {"best_of": 8}}),
    Row("text", {"max_tokens": 100, "best_of": "8"}),
    Row("text", {"max_tokens": 100, "prompt": ["x"] * 8}),
    Row("text", {"max_tokens": 100, "extra_body": {"prompt": ["x"] * 8}}),
    Row("text", {"prompt": [[1] * 8000]}),
    Row("responses", {"extra_body": {"max_output_tokens": MUCH}}),
    Row("responses", {"max_output_tokens": str(MUCH)}),
    Row("responses by chat", {"extra_body": {"max_tokens": MUCH}}),
    Row("messages", {"max_tokens": str(MUCH)}),
    Row("messages by chat", {"extra_body": {"max_tokens": MUCH}}),
    Row("generate_content", {"extra_body": {"generationConfig": {"maxOutputTokens": MUCH}}}),
    Row("generate_content", {"config": {"maxOutputTokens": str(MUCH)}}),
    Row("generate_content", {"config": {"max_output_tokens": 10, "maxOutputTokens": MUCH}}),
    Row("generate_content", {"config": {"maxOutputTokens": 10, "max_output_tokens": MUCH}}),
    Row("generate_content", {"config": {"maxOutputTokens": 100, "candidateCount": "8"}}),
    # Limits that LiteLLM drops: the provider gets none, and writes as much as it likes.
    Row("generate_content by chat", {"config": {"max_output_tokens": 10}}),
    Row("generate_content by chat", {"config": {"max_output_tokens": 10, "maxOutputTokens": MUCH}}),
    # Text outside of the messages.
    Row("anthropic", {"system": LONG}),
    Row("anthropic, streamed", {"system": LONG}),
    Row("anthropic", {"system": [{"type": "text", "text": LONG}]}),
    Row("anthropic", {"extra_body": {"system": LONG}}),
    Row("gemini", {"extra_body": {"systemInstruction": {"parts": [{"text": LONG}]}}}),
    Row("openai", {"prediction": {"type": "content", "content": LONG}}),
    Row("openai", {"extra_body": {"prediction": {"type": "content", "content": LONG}}}),
    Row("openai", {"extra_body": {"instructions": LONG}}),
    Row("openai", {"instructions": LONG}),
    Row("openai", {"extra_body": {"messages": [{"role": "user", "content": LONG}]}}),
    Row("openai", {"extra_body": {"tools": [{**TOOL, "description": LONG}]}}),
    Row("openai", {"functions": [{"name": "f", "description": LONG, "parameters": {}}]}),
    Row(
        "openai", {"response_format": {"type": "json_schema", "json_schema": {"name": "f", "schema": {"title": LONG}}}}
    ),
    Row("openai", {"web_search_options": {"user_location": LONG}}),
    Row("vllm", {"documents": [{"title": "t", "text": LONG}]}),
    Row("vllm", {"chat_template": LONG}),
    Row("vllm", {"chat_template_kwargs": {"system": LONG}}),
    Row("vllm", {"guided_json": {"title": LONG}}),
    Row("vllm", {"extra_body": {"guided_regex": LONG}}),
    Row("vllm", {"something_new": LONG}),
    Row("vllm", {"something_new": [[{"deep": [LONG]}]]}),
    Row("cohere", {"documents": [{"id": "1", "data": {"text": LONG}}]}),
    Row("cohere", {"preamble": LONG}),
    Row("cohere", {"chat_history": [{"role": "USER", "message": LONG}]}),
    Row("ollama", {"system": LONG}),
    Row("ollama", {"template": LONG}),
    Row("ollama", {"format": {"title": LONG}}),
    Row("bedrock", {"system": [{"text": LONG}]}),
    Row("bedrock", {"additional_field": LONG}),
    Row("bedrock", {"promptVariables": {"a": {"text": LONG}}}),
    Row("text", {"suffix": LONG}),
    Row("text", {"extra_body": {"suffix": LONG}}),
    Row("text", {"extra_body": {"prompt": LONG}}),
    Row("responses", {"instructions": LONG}),
    Row("responses", {"extra_body": {"instructions": LONG}}),
    Row("responses", {"extra_body": {"input": LONG}}),
    Row("responses", {"prompt": {"id": "p", "variables": {"a": LONG}}}),
    Row("responses", {"text": {"format": {"type": "json_schema", "name": "f", "schema": {"title": LONG}}}}),
    Row("responses by chat", {"instructions": LONG}),
    Row("messages", {"system": LONG}),
    Row("messages", {"tools": [{"name": "f", "description": LONG, "input_schema": {"type": "object"}}]}),
    Row("messages by chat", {"system": LONG}),
    Row("generate_content", {"systemInstruction": {"parts": [{"text": LONG}]}}),
    Row("generate_content", {"system_instruction": {"parts": [{"text": LONG}]}}),
    Row("generate_content", {"config": {"max_output_tokens": 10, "system_instruction": LONG}}),
    Row("generate_content", {"config": {"max_output_tokens": 10, "response_json_schema": {"title": LONG}}}),
    Row("generate_content", {"extra_body": {"systemInstruction": {"parts": [{"text": LONG}]}}}),
    Row("generate_content by chat", {"systemInstruction": {"parts": [{"text": LONG}]}}),
    Row("embedding", {"extra_body": {"input": [LONG]}}),
    Row("embedding", {"input": ["x", LONG]}),
    Row("embedding", {"input": [[1] * 8000]}),
]
DEAR = "edge-dear"
# Fields that extra_body repeats, and values that LiteLLM does not expect: the provider would answer something other
# than what LiteLLM reads.
ODD_ROWS = [
    *(
        Row(way, {"max_tokens": 300, "extra_body": said})
        for way in ("openai", "openai, awaited", "openai, streamed", "azure", "vllm", "cohere", "ollama")
        for said in (
            {"stream": True},
            {"stream": False},
            {"stream_options": {"include_usage": False}},
            {"stream_options": None},
            {"model": DEAR},
        )
    ),
    *(
        Row("openai, streamed", {"max_tokens": 300, "stream_options": {"include_usage": odd}})
        for odd in (1, "no", "true")
    ),
    *(Row(way, {"max_tokens": 300, "stream": odd}) for way in ("openai", "vllm") for odd in (0, "false", "0")),
    Row("text", {"max_tokens": 300, "extra_body": {"stream": True}}),
    Row("responses", {"max_output_tokens": 300, "extra_body": {"stream": True}}),
    Row("responses", {"max_output_tokens": 300, "extra_body": {"model": DEAR}}),
]


@pytest.mark.parametrize("row", ODD_ROWS, ids=str)
def test_the_provider_is_told_nothing_that_litellm_does_not_know(row: Row, open_edge: Callable[..., Edge]) -> None:
    """The bill is charged to the last token, for the model that LiteLLM prices."""
    edge = open_edge(default_limit=PLENTY)
    outcome = _make(edge, row, "alice")
    assert outcome.requests == 1 and outcome.error is None, outcome
    assert edge.provider.bodies[-1].get("model") != DEAR
    assert outcome.held >= outcome.bill >= 300 * OUTPUT
    assert edge.calm("alice") == outcome.bill, outcome


@pytest.mark.parametrize("odd", [1, "true", "1"])
def test_a_stream_by_any_name_is_one(odd: object, open_edge: Callable[..., Edge]) -> None:
    edge = open_edge(default_limit=PLENTY)
    way = WAYS["vllm"]
    arguments = {**way.innocent(edge.provider, "alice"), "max_tokens": 300, "stream": odd}
    outcome = edge.call(lambda **given: list(way.function(**given)), "alice", **arguments)
    assert outcome.error is None and len(outcome.answer) > 1, outcome
    assert edge.calm("alice") == outcome.bill >= 300 * OUTPUT


@pytest.mark.parametrize("number", [10**400, -(10**400)])
@pytest.mark.parametrize("name", ["max_tokens", "n", "something_new", "max_new_tokens"])
def test_a_number_that_no_float_holds_is_one(name: str, number: int, open_edge: Callable[..., Edge]) -> None:
    """A client's JSON can hold any number. It counts as too much, or as nothing, and is not an error of ours."""
    edge = open_edge(default_limit=PLENTY)
    outcome = _make(edge, Row("openai", {name: number}), "alice")
    assert not isinstance(outcome.error, OverflowError), outcome
    assert outcome.held >= outcome.bill


def test_what_the_gate_held_comes_back_if_it_raises(open_edge: Callable[..., Edge]) -> None:
    edge = open_edge(default_limit=PLENTY)
    kept = _make(edge, Row("openai, streamed", {"additional_drop_params": 5}), "alice")
    assert edge.held("alice") == 0, kept


BOMBS = pytest.mark.parametrize("row", BOMB_ROWS, ids=str)


def _arguments(row: Row, provider: BillingProvider, user: str) -> dict[str, Any]:
    return {**WAYS[row.way].innocent(provider, user), **row.more}


def _make(edge: Edge, row: Row, user: str) -> Outcome:
    return edge.call(WAYS[row.way].function, user, **_arguments(row, edge.provider, user))


@BOMBS
def test_a_bill_never_passes_the_limit(row: Row, edge: Edge) -> None:
    """Only the innocent part has room. However LiteLLM handles the rest, the provider bills at most the limit."""
    outcome = _make(edge, row, "alice")
    assert outcome.bill <= LIMIT, outcome
    assert outcome.requests or outcome.refused or outcome.error, outcome


@BOMBS
def test_what_is_held_covers_the_bill(row: Row, open_edge: Callable[..., Edge]) -> None:
    """With room for everything the call leaves. What is held by then covers its bill, which the ledger shows at the
    end.
    """
    edge = open_edge(default_limit=PLENTY)
    outcome = _make(edge, row, "alice")
    assert outcome.requests and outcome.error is None, outcome
    assert outcome.held >= outcome.bill, outcome
    assert edge.calm("alice") == outcome.bill, outcome


@pytest.mark.parametrize("name", list(WAYS))
def test_an_ordinary_call_fits_into_its_own_estimate(name: str, open_edge: Callable[..., Edge]) -> None:
    """The hold of an ordinary call is a useful upper bound, and a limit of exactly that is enough."""
    edge = open_edge(default_limit=PLENTY)
    row = Row(name, {})
    first = _make(edge, row, "alice")
    assert first.error is None and first.requests == 1, first
    assert first.bill <= first.held <= LIMIT, first
    edge.callback.manager.create_budget(total_budget=first.held / 1e9, user="bob")
    second = _make(edge, row, "bob")
    assert second.error is None and second.requests == 1, second
    assert (edge.calm("alice"), edge.calm("bob")) == (first.bill, second.bill)


_HARMLESS: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "stop": ["END"],
    "seed": 7,
    "timeout": 30,
    "extra_headers": {"x-test": "1"},
    "metadata": {"trace": "a"},
    "drop_params": True,
    "num_retries": 0,
    "cache": {"no-cache": True},
    "extra_body": {"min_tokens": 0, "truncate_prompt_tokens": -1},
}


@pytest.mark.parametrize("name", [name for name in WAYS if name != "embedding" and "generate_content" not in name])
def test_an_argument_that_costs_nothing_takes_no_room(name: str, open_edge: Callable[..., Edge]) -> None:
    """A hold for unknown arguments would refuse ordinary users. These are known."""
    edge = open_edge(default_limit=PLENTY)
    plain = _make(edge, Row(name, {}), "alice")
    passed = 0
    for harmless, value in _HARMLESS.items():
        given = _make(edge, Row(name, {harmless: value}), edge.new_user())
        passed += given.error is None
        # An option may be counted by its bytes. It is not a reason to hold for the unknown.
        assert given.error or given.held <= plain.held + 100 * INPUT, (harmless, plain, given)
    assert passed > len(_HARMLESS) // 2


# A failing example already has few parts. It is not shrunk, because that takes minutes.
_examples = partial(
    examples,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)

# Random arguments: names that LiteLLM, the providers or nobody knows, in any place, with values of any kind.
_LIMITS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "maxOutputTokens",
    "maxTokens",
    "max_new_tokens",
    "num_predict",
    "max_length",
    "n",
    "best_of",
    "candidate_count",
    "candidateCount",
)
_TEXTS = (
    "system",
    "suffix",
    "instructions",
    "documents",
    "prediction",
    "systemInstruction",
    "system_instruction",
    "context",
    "preamble",
    "template",
    "tools",
    "functions",
    "response_format",
    "input",
    "prompt",
    "something_new",
    "chat_template",
    "title",
)
_PLACES = (
    (),
    ("extra_body",),
    ("generationConfig",),
    ("generation_config",),
    ("config",),
    ("options",),
    ("inferenceConfig",),
    ("additionalModelRequestFields",),
    ("extra_body", "generationConfig"),
    ("extra_body", "options"),
    ("optional_params",),
    ("something_new",),
)
_COUNTS = st.sampled_from([1, 8, 300, MUCH, "8", str(MUCH), float(MUCH), f" {MUCH} ", f"{MUCH}.0", None, -1, 0, True])
_STRINGS = st.sampled_from(["x", "y" * 700, "é" * 3000, "z" * 60_000])
_VALUES = st.recursive(
    _STRINGS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["text", "content", "parts", "name", "data", "other"]), inner, max_size=2),
    ),
    max_leaves=3,
)
_ONE = st.one_of(
    st.tuples(st.sampled_from(_PLACES), st.sampled_from(_LIMITS), _COUNTS),
    st.tuples(st.sampled_from(_PLACES), st.sampled_from(_TEXTS), _VALUES),
)
_ANY_WAY = st.sampled_from(sorted(WAYS))


def _placed(arguments: dict[str, Any], added: list[tuple[tuple[str, ...], str, Any]]) -> dict[str, Any]:
    for place, name, value in added:
        inner = arguments
        for step in place:
            below = inner.get(step)
            inner[step] = below if isinstance(below, dict) else {}
            inner = inner[step]
        inner[name] = value
    return arguments


@pytest.mark.parametrize("part", range(3))
def test_random_arguments_never_pass_the_limit(part: int, edge: Edge) -> None:
    """One user makes many calls, each with room for its innocent part. All of them together stay below one limit."""

    @_examples(25)
    @given(st.lists(st.tuples(_ANY_WAY, st.lists(_ONE, min_size=1, max_size=3)), min_size=part + 1, max_size=part + 3))
    def attack(calls: list[tuple[str, list[tuple[tuple[str, ...], str, Any]]]]) -> None:
        user, before, made = edge.new_user(), edge.provider.bill, []
        for name, added in calls:
            way = WAYS[name]
            edge.call(way.function, user, **_placed(way.innocent(edge.provider, user), added))
            made.append((name, str(added)[:500], edge.provider.bill - before))
        assert edge.provider.bill - before <= LIMIT, made

    attack()


def test_random_arguments_are_covered_by_what_is_held(open_edge: Callable[..., Edge]) -> None:
    edge = open_edge(default_limit=PLENTY)

    @_examples(100)
    @given(_ANY_WAY, st.lists(_ONE, min_size=1, max_size=3))
    def attack(name: str, added: list[tuple[tuple[str, ...], str, Any]]) -> None:
        user, way = edge.new_user(), WAYS[name]
        outcome = edge.call(way.function, user, **_placed(way.innocent(edge.provider, user), added))
        assert outcome.held >= outcome.bill, (name, str(added)[:500], outcome)

    attack()


@_examples(50)
@given(name=_ANY_WAY, size=st.integers(1, 2000), tokens=st.integers(1, 200))
def test_ordinary_calls_with_room_are_never_refused(name: str, size: int, tokens: int, edge: Edge) -> None:
    """Room for twice what the provider can bill, and for the overheads of an estimate."""
    user, way = edge.new_user(), WAYS[name]
    arguments = way.innocent(edge.provider, user)
    text = "w" * size
    for field in ("prompt", "input"):
        if field in arguments:
            arguments[field] = text
    if "messages" in arguments:
        arguments["messages"] = [{"role": "user", "content": text}]
    if "contents" in arguments:
        arguments["contents"] = [{"role": "user", "parts": [{"text": text}]}]
    for field in ("max_tokens", "max_output_tokens"):
        if field in arguments:
            arguments[field] = tokens
    if "config" in arguments:
        # When it is served by chat, LiteLLM only knows the second spelling.
        arguments["config"] = dict.fromkeys(arguments["config"], tokens)
    edge.callback.manager.create_budget(
        total_budget=(2 * size * INPUT + tokens * OUTPUT + 500 * INPUT) / 1e9, user=user
    )
    outcome = edge.call(way.function, user, **arguments)
    assert outcome.error is None and outcome.requests == 1, outcome
