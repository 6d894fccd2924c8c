"""The body that LiteLLM is about to send decides. What was held for covers ordinary requests."""

from __future__ import annotations

import json
from typing import Any

import litellm
import pytest
from litellm.litellm_core_utils.litellm_logging import Logging

from litellm_budget_plugin.pricing import Estimate, Request, estimate, estimate_sent

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
FUNCTION = {
    "name": "get_weather",
    "description": "Tell the weather of a place.",
    "parameters": {
        "type": "object",
        "properties": {
            "place": {"type": "string", "description": "A town, such as Oslo.", "maxLength": 100000},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "n": {"type": "integer", "minimum": 1, "maximum": 99},
        },
        "required": ["place"],
    },
}
TOOL = {"type": "function", "function": FUNCTION}
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "sure": {"type": "boolean"}},
    "required": ["answer"],
}
CALLED = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"place": "Oslo", "n": 70000}'},
}
SAID = {"role": "user", "content": "What is the weather in Oslo, and what does it mean for a walk of two hours?"}
REQUESTS: dict[str, dict[str, Any]] = {
    "text": {"messages": [SAID]},
    "no limit": {"messages": [SAID], "max_tokens": None},
    "long": {"messages": [{"role": "user", "content": "Blåbærsyltetøy! " * 2000}]},
    "turns": {
        "messages": [
            {"role": "system", "content": "You are terse."},
            SAID,
            {"role": "assistant", "content": "Rain."},
            {"role": "user", "content": "And tomorrow?"},
        ]
    },
    "assistant first": {"messages": [{"role": "assistant", "content": "Hello."}, SAID, SAID]},
    "options": {
        "messages": [SAID], "temperature": 0.25, "top_p": 0.5, "stop": ["\n\n"], "user": "somebody@example.com" * 20, "seed": 17
    },
    "tools": {"messages": [SAID], "tools": [TOOL], "tool_choice": "auto"},
    "results": {
        "messages": [
            SAID,
            {"role": "assistant", "content": None, "tool_calls": [CALLED]},
            {"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "Rain, 8 degrees."},
        ],
        "tools": [TOOL],
    },
    "json": {"messages": [SAID], "response_format": {"type": "json_object"}},
    "schema": {
        "messages": [SAID],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}},
    },
    "image": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]}
        ]
    },
    "stream": {"messages": [SAID], "stream": True},
    "stream with usage": {"messages": [SAID], "stream": True, "stream_options": {"include_usage": True}},
    "reasoning": {"messages": [SAID], "reasoning_effort": "low"},
    "cached": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}]
    },
}  # fmt: skip
MODELS = [
    "openai/gpt-4o",
    "openai/gpt-4",
    "azure/gpt-4o",
    "anthropic/claude-sonnet-4-5",
    "anthropic/claude-3-haiku-20240307",
    "gemini/gemini-2.5-flash",
    "gemini/gemini-2.0-flash",
    "bedrock/anthropic.claude-3-haiku-20240307-v1:0",
    "bedrock/amazon.nova-lite-v1:0",
    "bedrock/invoke/anthropic.claude-3-haiku-20240307-v1:0",
    "bedrock/meta.llama3-8b-instruct-v1:0",
    "cohere_chat/command-r",
    "cohere/command-r-08-2024",
    "mistral/mistral-small-latest",
    "ollama/llama3",
    "ollama_chat/llama3",
    "groq/llama-3.1-8b-instant",
    "deepseek/deepseek-chat",
    "xai/grok-3",
    "openrouter/openai/gpt-4o",
    "hosted_vllm/llama",
    "databricks/databricks-claude-sonnet-4",
    "fireworks_ai/accounts/fireworks/models/llama-v3p1-8b-instruct",
    "perplexity/sonar",
]


class _Sent(BaseException):
    """Raised when the body is known, so that nothing leaves."""


@pytest.fixture
def sent_by(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call LiteLLM and return what it was about to send."""
    bodies: list[Any] = []

    def pre_call(self: Any, input: Any, api_key: Any, model: Any = None, additional_args: Any = None) -> None:
        bodies.append((additional_args or {}).get("complete_input_dict"))
        raise _Sent

    monkeypatch.setattr(Logging, "pre_call", pre_call)
    monkeypatch.setattr(litellm, "drop_params", True)
    monkeypatch.setattr(litellm, "modify_params", True)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "CLOUDFLARE_ACCOUNT_ID"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_REGION_NAME", "us-east-1")

    def call(function: Any, **params: Any) -> Any:
        bodies.clear()
        with pytest.raises(_Sent):
            function(**params, api_key="none")
        return bodies[0]

    return call


def _held(request: Request, *, exact: bool = False, allowance: int = 100) -> Estimate:
    return estimate(request, output_allowance=allowance, unbounded_hold=0, exact=exact)


def _after(request: Request, body: Any, held: Estimate, allowance: int = 100) -> Estimate:
    return estimate_sent(request, body, held, output_allowance=allowance, unbounded_hold=0)


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("model", MODELS)
def test_ordinary_requests_are_covered_by_what_was_held_for(model: str, kind: str, sent_by: Any) -> None:
    params = {"model": model, "max_tokens": 300, **REQUESTS[kind]}
    if model.startswith("azure/"):
        params |= {"api_base": "https://example.invalid", "api_version": "2024-10-21"}
    elif model.startswith(("hosted_vllm/", "databricks/", "ollama")):
        params["api_base"] = "https://example.invalid"
    request = Request("completion", model, None, params)
    body = sent_by(litellm.completion, **{name: value for name, value in params.items() if value is not None})
    for exact in (False, True):
        held = _held(request, exact=exact)
        assert _after(request, body, held) is held, body
        if not isinstance(body, str):
            assert _after(request, json.dumps(body, default=repr), held) is held
