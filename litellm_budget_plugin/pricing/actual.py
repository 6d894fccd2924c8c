"""What a call did cost. One order, for whole, streamed, dropped, synchronous and asynchronous calls alike:

1. The provider's own figure in the answer: `usage.cost` (OpenRouter and the like; also a breakdown with its total), xAI's
   `cost_in_usd_ticks`, and the response-cost header that LiteLLM reads. Prices that the call or its deployment gives take the
   place of the provider's figure, as they do in LiteLLM.
2. LiteLLM's figure: the `response_cost` that it gives, or what the call's own Logging object says.
3. LiteLLM's cost functions on the usage, with the call's and the deployment's own prices, all fields (`litellm_cost`).
4. The same functions on the text that was received, marked `estimated`.

A figure that is no finite number from 0 on is never believed, and 0 means "not known" until nothing better is. LiteLLM's figure
is compared with the third where they may differ: where own prices are not in LiteLLM's cost map, or where the raw usage has
tokens that LiteLLM did not count. Then the larger is charged, and one WARNING names the model. None is the answer where nobody
knows the price. Nothing here raises or touches the network.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from litellm_budget_plugin.core.money import usd_text
from litellm_budget_plugin.pricing import per_unit_cost
from litellm_budget_plugin.pricing.bound import estimate
from litellm_budget_plugin.pricing.cost_map import PriceKey, are_registered, price_key
from litellm_budget_plugin.pricing.input_size import InputCounter
from litellm_budget_plugin.pricing.litellm_cost import logged_cost, token_cost, with_usage
from litellm_budget_plugin.pricing.request_formats import read
from litellm_budget_plugin.pricing.response_formats import Received, response_format
from litellm_budget_plugin.pricing.terms import terms_of
from litellm_budget_plugin.pricing.tokens import probable
from litellm_budget_plugin.pricing.units import BY_TOKENS
from litellm_budget_plugin.pricing.usage import TokenUsage, field, nanos, number, parse_raw, stated_cost
from litellm_budget_plugin.pricing.values import Cost, Request

_log = logging.getLogger(__name__)
_warned: set[str] = set()
_TOKENS = BY_TOKENS | {"realtime"}
_DETAILS = ("text_tokens", "audio_tokens", "image_tokens", "video_tokens", "cached_tokens", "cache_creation_tokens")


def cost_of_response(
    request: Request, response: Any, response_cost: float | None = None, *, logging_obj: Any = None
) -> Cost:
    """The cost of a whole answer: LiteLLM's object of the request's family, or a dictionary in its form.

    `response_cost` is LiteLLM's figure, `logging_obj` the call's live Logging object; both may be missing. A cache hit costs 0.
    A call type that pricing does not know costs what the provider or LiteLLM says, else None.
    """
    hidden = field(response, "_hidden_params")
    usage = field(response, "usage")
    read, wrote = number(field(usage, "prompt_tokens")), number(field(usage, "completion_tokens"))
    found = None
    if read is None or wrote is None:
        found = _usage(request, response)
        read, wrote = (found.input, found.output) if found else (0, 0)
    name = _name(request, response)
    if field(hidden, "cache_hit") is True:
        return Cost(0, name, read, wrote, estimated=False)
    key = price_key(request)
    stated = None if key.custom else _stated(usage, hidden, logging_obj)
    figure = (
        stated or nanos(response_cost) or nanos(field(hidden, "response_cost")) or logged_cost(logging_obj, response)
    )
    if figure and not stated and request.call_type in _TOKENS:
        figure = _checked(request, key, response, name, figure, (read, wrote), logging_obj)
    if not figure and _is_known(request):
        cost = _computed(request, response, found)
        return cost if cost.usd is not None else Cost(stated, cost.model, read, wrote, estimated=False)
    return Cost(figure or stated, name, read, wrote, estimated=False)


def cost_of_raw(request: Request, original_response: Any) -> Cost:
    """The cost of the provider's own answer, as `Logging.post_call` sees it; unreadable means as if it were lost."""
    answer = parse_raw(original_response)
    if not isinstance(answer, Mapping) and not hasattr(answer, "__dict__"):
        return cost_of_output(request, "")
    return cost_of_response(request, answer)


def cost_of_chunks(request: Request, chunks: Sequence[Any], *, logging_obj: Any = None) -> Cost:
    """The cost of a stream as far as it came. Usage in a chunk counts, else the text; no chunks is the input alone.

    Chunks are those of LiteLLM's chat streams, the events of the Responses API, of a realtime session, of Anthropic's API
    (also as bytes or text, cut anywhere), or Google's. `logging_obj` is the call's live Logging object, if there is one.
    """
    if request.call_type not in _TOKENS:
        return cost_of_response(request, next((c for c in reversed(chunks) if field(c, "usage")), None))
    received = Received()
    with suppress(Exception):
        received = response_format(request, chunks[0] if chunks else None).receive(chunks)
    name, usage = received.model or request.model, received.usage
    if usage is None:
        return _from_text(request, name, received.texts)
    if usage.cost and not price_key(request).custom:
        return Cost(usage.cost, name, usage.input, usage.output, estimated=False)
    if received.finished:
        return _priced(request, name, usage, received.answer, logging_obj)
    # Usage before the end of the stream holds the input; its output may be a beginning only.
    wrote = probable("".join(received.texts)) if received.texts else 0
    if wrote <= usage.output:
        return _priced(request, name, usage, None, logging_obj)
    # The details are those of the beginning.
    raw = {n: v for n, v in usage.raw.items() if n not in ("completion_tokens_details", "total_tokens")}
    cut = TokenUsage(usage.input, wrote, {**raw, "completion_tokens": wrote})
    return _priced(request, name, cut, None, logging_obj, estimated=True)


def cost_of_output(request: Request, output_text: str) -> Cost:
    """The cost of a dropped or cancelled call: the whole input and the output received, by the local tokenizer. Where a
    call is billed as a whole (see `Estimate.floor`), that.
    """
    if request.call_type not in _TOKENS:
        return _computed(request, None, None)
    return _from_text(request, request.model, [output_text] if output_text else [])


def _is_known(request: Request) -> bool:
    return request.call_type in _TOKENS or request.call_type in per_unit_cost.FAMILIES


def _name(request: Request, answer: object) -> str:
    name = field(answer, "model")
    return name if isinstance(name, str) and name else request.model


def _usage(request: Request, answer: object) -> TokenUsage | None:
    with suppress(Exception):
        return response_format(request, answer).usage(answer)
    return None


def _stated(usage: object, hidden: object, logging_obj: object) -> int | None:
    """The provider's own figure in nano-dollars."""
    found = stated_cost(usage) if usage is not None else None
    if not found and isinstance(hidden, Mapping) and hidden.get("additional_headers"):
        from litellm.cost_calculator import get_response_cost_from_hidden_params

        with suppress(Exception):
            found = nanos(get_response_cost_from_hidden_params(dict(hidden))) or found
    # Where LiteLLM notes what a provider said outside of the answer.
    return found or nanos(field(logging_obj, "_provider_reported_cost")) or found


def _checked(
    request: Request,
    key: PriceKey,
    response: object,
    name: str,
    figure: int,
    counts: tuple[int, int],
    logging_obj: object,
) -> int:
    """LiteLLM's figure, or that of its cost functions on the raw usage where that is larger by more than rounding."""
    usage = _uncounted(response, counts, logging_obj)
    if usage is None and (not key.custom or are_registered(key)):
        return figure
    usage = usage or _usage(request, response)
    found = None if usage is None else _priced(request, name, usage, response, None).usd
    if found is None or found <= figure + 1 + figure // 1_000_000:
        return figure
    if name not in _warned:
        _warned.add(name)
        _log.warning(
            "LiteLLM prices an answer of %s at $%s, its usage and prices come to $%s: the larger is charged",
            name,
            usd_text(figure),
            usd_text(found),
        )
    return found


def _uncounted(response: object, counts: tuple[int, int], logging_obj: object) -> TokenUsage | None:
    """The usage with the tokens that LiteLLM's figure leaves out; None where it leaves out none."""
    usage = field(response, "usage")
    details = field(usage, "prompt_tokens_details")
    text = number(field(details, "text_tokens")) if details is not None else None
    if text and text + sum(number(field(details, name)) or 0 for name in _DETAILS[1:]) < counts[0]:
        # LiteLLM bills what the details say, and for an embedding of a picture they say nothing but its text.
        billed = {name: field(details, name) for name in _DETAILS[1:] if field(details, name)}
        return TokenUsage(*counts, _plain(*counts, prompt_tokens_details=billed))
    raw = _raw_counts(logging_obj)
    if raw is not None and (raw[0] > counts[0] or raw[1] > counts[1]):
        return TokenUsage(*raw, _plain(*raw))
    return None


def _plain(read: int, wrote: int, **details: Any) -> dict[str, Any]:
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote, **details}


def _raw_counts(logging_obj: object) -> tuple[int, int] | None:
    """(input, output) of the provider's own answer, in OpenAI's form, without reading all of it."""
    if logging_obj is None:
        return None
    raw = field(field(logging_obj, "model_call_details"), "original_response")
    usage: object = None
    if isinstance(raw, str):
        start = raw.rfind('"usage":')
        if start >= 0:
            with suppress(ValueError, RecursionError):
                usage, _ = json.JSONDecoder().raw_decode(raw, raw.index("{", start))
    else:
        usage = field(raw, "usage")
    read = number(field(usage, "prompt_tokens"))
    return None if read is None else (read, number(field(usage, "completion_tokens")) or 0)


def _computed(request: Request, answer: object, usage: TokenUsage | None) -> Cost:
    usage, name = usage or _usage(request, answer), _name(request, answer)
    if request.call_type not in _TOKENS:
        read, wrote = (usage.input, usage.output) if usage else (0, 0)
        usd, estimated = per_unit_cost.cost(request, name, answer) if _is_known(request) else (None, False)
        return Cost(usd, name, read, wrote, estimated)
    if usage is not None:
        return _priced(request, name, usage, answer, None)
    texts: list[str] = []
    with suppress(Exception):
        texts = response_format(request, answer).texts(answer)
    return _from_text(request, name, texts)


def _priced(
    request: Request, name: str, usage: TokenUsage, answer: object, logging_obj: Any, *, estimated: bool = False
) -> Cost:
    key = price_key(request)
    usd = None if key.custom else logged_cost(logging_obj, with_usage(answer, usage.raw, name))
    usd = usd or token_cost(
        key,
        usage.raw,
        answer=answer,
        answered=name,
        service_tier=request.params.get("service_tier"),
        call_type=response_format(request).call_type,
        milliseconds=field(answer, "_response_ms"),
    )
    return Cost(usd, name, usage.input, usage.output, estimated)


def _from_text(request: Request, name: str, texts: Sequence[str]) -> Cost:
    # One count of the joined text: chunk by chunk, a token cut in two would count twice.
    read, wrote = _input_tokens(request), probable("".join(texts)) if texts else 0
    return _priced(request, name, TokenUsage(read, wrote, _plain(read, wrote)), None, None, estimated=True)


def _input_tokens(request: Request) -> int:
    """The input as probably billed: text by the local tokenizer, the rest as in the floor of an estimate."""
    if request.call_type == "realtime":
        return 0
    floor = estimate(request, output_allowance=0, unbounded_hold=0).floor_tokens
    terms = terms_of(price_key(request))
    rough, counted = (InputCounter(terms.key or terms.model, terms.provider, exact=exact) for exact in (False, True))
    for counter in (rough, counted):
        read(request, counter)
    # The difference of the two is what counting takes off the bytes; the floor holds the same bytes at four a token.
    return max(floor - -(-rough.loose // 4) + (rough.loose - (rough.text - counted.text)), 0)
