"""Move a call to a cheaper model, but only if LiteLLM would reach it exactly as it reaches the called model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import litellm

from litellm_budget_plugin import pricing
from litellm_budget_plugin.hooks.near_limit.output_cap import LIMITS
from litellm_budget_plugin.pricing import Request
from litellm_budget_plugin.pricing.cost_map import ASKS_NETWORK, price_key, route
from litellm_budget_plugin.pricing.input_size import runs_at_caller
from litellm_budget_plugin.pricing.price_sheet import PriceSheet, price_sheet

# Arguments that say where or as whom one model is called, or what it costs. They do not apply to another model.
_OWN = frozenset(
    {
        "api_base",
        "base_url",
        "api_key",
        "api_version",
        "client",
        "organization",
        "deployment_id",
        "engine",
        "model_list",
    }
    | {"headers", "extra_headers", "litellm_credential_name", "base_model", "model_info"}
    # The provider's handling of these is unknown for another model.
    | {"extra_body", "prompt_id", "vector_store_ids", "plugins", "transforms", "previous_response_id"}
)
_OWN_PREFIXES = ("aws_", "azure_", "vertex_", "watsonx_", "gigachat_", "databricks_")
_SENT_BY_OTHERS = ("model_group", "model_info", "user_api_key", "user_api_key_hash")
# The capabilities that a call needs from its model, by LiteLLM's names in the cost map.
_NEEDS = {
    "tools": "supports_function_calling",
    "functions": "supports_function_calling",
    "web_search_options": "supports_web_search",
    "thinking": "supports_reasoning",
    "reasoning_effort": "supports_reasoning",
    "audio": "supports_audio_output",
}
_PARTS = (
    ("image", "supports_vision"),
    ("audio", "supports_audio_input"),
    ("video", "supports_video_input"),
    ("file", "supports_pdf_input"),
    ("document", "supports_pdf_input"),
)
_DEPTH = 8


def can_move(request: Request, cheaper: Mapping[str, str], fixed: frozenset[str]) -> bool:
    """Return whether there is a cheaper model for this call, and nothing in the call ties it to the named model.

    Not moved: embeddings (another model's vectors do not fit), a model given by position, an explicit base, key,
    deployment or price, tools that run at the provider, and everything that comes through a Router or the proxy.
    """
    if request.call_type not in LIMITS or "model" in fixed or _next(request, cheaper) is None:
        return False
    params = request.params
    own = any(params.get(name) is not None for name in _OWN)
    own = own or any(name.startswith(_OWN_PREFIXES) and value is not None for name, value in params.items())
    return not own and not _routed(params) and not _hosted_tools(params) and not price_key(request).custom


def _hosted_tools(params: Mapping[str, Any]) -> bool:
    """Whether a declared tool runs at the provider. LiteLLM does not know which models have it."""
    tools = params.get("tools")
    listed = tools if isinstance(tools, (list, tuple)) else ()
    return any(not isinstance(tool, Mapping) or not runs_at_caller(tool) for tool in listed)


def _routed(params: Mapping[str, Any]) -> bool:
    """Whether a Router or the proxy makes the call. These choose models by themselves."""
    if params.get("proxy_server_request") is not None:
        return True
    for name in ("metadata", "litellm_metadata"):
        metadata = params.get(name)
        if isinstance(metadata, Mapping) and any(mark in metadata for mark in _SENT_BY_OTHERS):
            return True
    return False


def _next(request: Request, cheaper: Mapping[str, str]) -> str | None:
    """Return the model that takes over the request's calls. One rule covers "gpt-4o" and "openai/gpt-4o"."""
    stripped, provider = route(request.model, request.provider)
    names = (request.model, stripped, f"{provider}/{stripped}")
    return next((cheaper[name] for name in names if name in cheaper), None)


def cheaper_requests(request: Request, cheaper: Mapping[str, str]) -> Iterator[Request]:
    """Yield the request for each cheaper model along the chain that can serve it. Models that cannot are skipped."""
    seen = {_identity(request)}
    following = request
    while True:
        model = _next(following, cheaper)
        if model is None:
            return
        following = replace(
            request,
            model=str(litellm.model_alias_map.get(model, model)),
            params={**request.params, "model": model},
        )
        # The settings cannot tell that two names mean the same model.
        if _identity(following) in seen:
            return
        seen.add(_identity(following))
        if _serves(following, request):
            yield following


def _identity(request: Request) -> tuple[str, str | None]:
    return route(request.model, request.provider)


def _serves(cheaper: Request, request: Request) -> bool:
    """Whether the cheaper model has a price and the same provider, and takes everything that the call says."""
    own, other = price_sheet(price_key(request)), price_sheet(price_key(cheaper))
    same = own.provider is not None and own.provider not in ASKS_NETWORK and other.provider == own.provider
    if not same or not other.priced:
        return False
    if request.provider is not None and route(cheaper.model, None)[1] not in (None, request.provider):
        # With an explicit provider, LiteLLM would send the name of another provider's model unchanged.
        return False
    before, after = _entry(own), _entry(other)
    if before.get("mode") != after.get("mode") or any(after.get(need) is not True for need in _needs(request.params)):
        return False
    return _takes(own, other, request.params) and _fits(cheaper, before, after, other)


def _entry(terms: PriceSheet) -> Mapping[str, Any]:
    entry = litellm.model_cost.get(terms.key or "")
    return entry if isinstance(entry, Mapping) else {}


def _takes(own: PriceSheet, other: PriceSheet, params: Mapping[str, Any]) -> bool:
    """Whether the other model takes every OpenAI parameter, with its value, that the call passes and its own model
    takes.
    """
    with suppress(Exception):
        known = litellm.get_supported_openai_params(model=own.model, custom_llm_provider=own.provider) or ()
        taken = litellm.get_supported_openai_params(model=other.model, custom_llm_provider=other.provider) or ()
        given = {name: params[name] for name in known if params.get(name) is not None}
        if all(name in taken for name in given):
            # A reasoning model takes a temperature, but only 1. This raises for what LiteLLM would not send.
            litellm.utils.get_optional_params(model=other.model, custom_llm_provider=other.provider or "", **given)
            return True
    return False


def _fits(cheaper: Request, before: Mapping[str, Any], after: Mapping[str, Any], other: PriceSheet) -> bool:
    """Whether the other model's window and output limit are large enough, as far as LiteLLM's cost map knows them."""
    limits = [cheaper.params.get(name) for name in LIMITS[cheaper.call_type]]
    stated = max([limit for limit in limits if isinstance(limit, int)], default=0)
    if other.max_output is not None and stated > other.max_output:
        return False
    window, wanted = after.get("max_input_tokens"), before.get("max_input_tokens")
    if not isinstance(window, int) or (isinstance(wanted, int) and wanted <= window):
        return True
    unlimited = {name: value for name, value in cheaper.params.items() if name not in LIMITS[cheaper.call_type]}
    return pricing.estimate(replace(cheaper, params=unlimited), output_allowance=0, unbounded_hold=0).tokens <= window


def _needs(params: Mapping[str, Any]) -> set[str]:
    needs = {need for name, need in _NEEDS.items() if params.get(name)}
    response_format = params.get("response_format")
    kind = response_format.get("type") if isinstance(response_format, Mapping) else response_format
    if kind not in (None, "text", "json_object"):
        needs.add("supports_response_schema")
    for name in ("messages", "input"):
        needs |= set(_parts(params.get(name), _DEPTH))
    return needs


def _parts(content: object, depth: int) -> Iterator[str]:
    """Yield what the parts of a call's content need, at any depth of nesting."""
    if isinstance(content, Mapping) and depth:
        kind = content.get("type")
        if isinstance(kind, str):
            yield from (need for word, need in _PARTS if word in kind)
        yield from _parts(content.get("content"), depth - 1)
    elif isinstance(content, (list, tuple)) and depth:
        for part in content:
            yield from _parts(part, depth - 1)
    elif depth:
        # A message of an earlier answer, as LiteLLM's own object.
        yield from _parts(getattr(content, "content", None), depth - 1)
