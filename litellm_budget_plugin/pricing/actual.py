"""The actual cost of a call. The order is the same for whole, streamed, dropped, synchronous and asynchronous calls:

1. The provider's own figure in the answer: `usage.cost` (OpenRouter and others; also a breakdown with a total), xAI's
   `cost_in_usd_ticks`, and the response-cost header that LiteLLM reads. Prices that the call or its deployment gives
   replace the provider's figure, as they do in LiteLLM.
2. LiteLLM's figure: the `response_cost` that it gives, or what the call's own Logging object says.
3. LiteLLM's cost functions on the usage, with the call's and the deployment's own prices, all fields (`litellm_cost`).
4. The same functions on the text that was received, marked `estimated`.

A figure that is negative, or not a finite number, is ignored. 0 means "unknown" unless nothing better is found.
LiteLLM's figure is compared with the third where they may differ: where own prices are not in LiteLLM's cost map, or
where the raw usage has tokens that LiteLLM did not count. Then the larger is charged, and one WARNING names the model.
The cost is None if the price is unknown. Answers that are billed in other units than tokens of text cost what LiteLLM's
calculators say, else what a lost answer costs. Nothing here raises or uses the network.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from litellm_budget_plugin.core.money import usd_text
from litellm_budget_plugin.pricing.bound import estimate
from litellm_budget_plugin.pricing.cost_map import PriceKey, are_registered, price_key
from litellm_budget_plugin.pricing.input_size import InputCounter
from litellm_budget_plugin.pricing.litellm_cost import answer_cost, logged_cost, token_cost, with_usage
from litellm_budget_plugin.pricing.price_sheet import price_sheet
from litellm_budget_plugin.pricing.rates import BY_TOKENS, IMAGES
from litellm_budget_plugin.pricing.request_formats import read as read_request
from litellm_budget_plugin.pricing.response_formats import Received, response_format, usage_in
from litellm_budget_plugin.pricing.scan import words_of
from litellm_budget_plugin.pricing.tokens import probable
from litellm_budget_plugin.pricing.usage import TokenUsage, as_mapping, field, nanos, number, parse_raw, stated_cost
from litellm_budget_plugin.pricing.values import Cost, Request

_log = logging.getLogger(__name__)
_warned: set[str] = set()
_TOKENS = BY_TOKENS | {"realtime"}
_READ = (
    ("prompt_tokens",),
    ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
    ("promptTokenCount",),
    ("total_tokens",),
)
_WROTE = ("completion_tokens", "output_tokens", "candidatesTokenCount")
_KINDS = words_of(
    "text_tokens audio_tokens image_tokens video_tokens cached_tokens cache_creation_tokens cache_write_tokens"
)
_BY_UNITS = frozenset({*IMAGES, "speech", "transcription", "rerank", "ocr", "search", "video_generation", "moderation"})
_CALL_TYPES = {"image_variation": "image_generation", "video_generation": "create_video"}


def cost_of_response(
    request: Request, response: Any, response_cost: float | None = None, *, logging_obj: Any = None
) -> Cost:
    """Return the cost of a whole answer: LiteLLM's object of the request's family, or a dictionary in its form.

    `response_cost` is LiteLLM's figure, `logging_obj` is the call's live Logging object. Both may be missing. A cache
    hit costs 0. A call type that pricing does not know costs what the provider or LiteLLM says, or what its usage
    costs, else None.
    """
    hidden = field(response, "_hidden_params")
    usage = field(response, "usage")
    sides = ("input", "output") if field(response, "object") == "response" else ("prompt", "completion")
    read, wrote = (number(field(usage, f"{side}_tokens")) for side in sides)
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
    if figure:
        return Cost(figure, name, read, wrote, estimated=False)
    cost = _computed(request, response, found, logging_obj)
    return cost if cost.usd is not None else Cost(stated, name, read, wrote, estimated=False)


def cost_of_raw(request: Request, original_response: Any) -> Cost:
    """Return the cost of the provider's own answer, as `Logging.post_call` sees it. An unreadable answer counts as
    lost.
    """
    answer = parse_raw(original_response)
    if not isinstance(answer, Mapping) and not hasattr(answer, "__dict__"):
        return cost_of_output(request, "")
    return cost_of_response(request, answer)


def cost_of_chunks(request: Request, chunks: Sequence[Any], *, logging_obj: Any = None) -> Cost:
    """Return the cost of the received part of a stream. Usage in a chunk counts, else the text. No chunks cost only the
    input.

    Chunks are those of LiteLLM's chat streams, the events of the Responses API, of a realtime session, of Anthropic's
    API (also as bytes or text, cut anywhere), or Google's. `logging_obj` is the call's live Logging object, if there is
    one.
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
    # Usage before the end of the stream holds the input. Its output may be only a beginning.
    wrote = probable("".join(received.texts)) if received.texts else 0
    if wrote <= usage.output:
        return _priced(request, name, usage, None, logging_obj)
    # The details describe only the beginning.
    raw = {n: v for n, v in usage.raw.items() if n not in ("completion_tokens_details", "total_tokens")}
    cut = TokenUsage(usage.input, wrote, {**raw, "completion_tokens": wrote})
    return _priced(request, name, cut, None, logging_obj, estimated=True)


def cost_of_output(request: Request, output_text: str) -> Cost:
    """Return the cost of a dropped or cancelled call: the whole input and the output received, by the local tokenizer.
    If a call is billed as a whole (see `Estimate.floor`), it is that floor.
    """
    if request.call_type not in _TOKENS:
        return _computed(request, None, None, None)
    return _from_text(request, request.model, [output_text] if output_text else [])


def _name(request: Request, answer: object) -> str:
    name = field(answer, "model")
    return name if isinstance(name, str) and name else request.model


def _usage(request: Request, answer: object) -> TokenUsage | None:
    with suppress(Exception):
        return response_format(request, answer).usage(answer)
    return None


def _stated(usage: object, hidden: object, logging_obj: object) -> int | None:
    """Return the provider's own figure in nano-dollars."""
    found = stated_cost(usage) if usage is not None else None
    if not found and isinstance(hidden, Mapping) and hidden.get("additional_headers"):
        from litellm.cost_calculator import get_response_cost_from_hidden_params

        with suppress(Exception):
            found = nanos(get_response_cost_from_hidden_params(dict(hidden))) or found
    if found or logging_obj is None:
        return found
    # LiteLLM notes here what a provider states outside of the answer.
    return nanos(field(logging_obj, "_provider_reported_cost")) or found


def _checked(
    request: Request,
    key: PriceKey,
    response: object,
    name: str,
    figure: int,
    counts: tuple[int, int],
    logging_obj: object,
) -> int:
    """Return LiteLLM's figure, or that of its cost functions on the raw usage if that is larger by more than rounding."""
    usage = _uncounted(response, counts, logging_obj)
    if usage is None and (not key.custom or are_registered(key)) and not _tier_unknown(request, response):
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


def _tier_unknown(request: Request, response: object) -> bool:
    """Whether LiteLLM does not see the service tier of a request, and the answer does not state it."""
    asked = request.said("service_tier")
    return asked != request.params.get("service_tier") and not field(response, "service_tier")


def _uncounted(response: object, counts: tuple[int, int], logging_obj: object) -> TokenUsage | None:
    """Return the usage with the tokens that LiteLLM's figure omits; None if it omits none."""
    told = field(field(response, "usage"), "prompt_tokens_details")
    text = None if told is None else number(field(told, "text_tokens"))
    details = as_mapping(told) or {} if text else {}
    if text and sum(number(value) or 0 for name, value in details.items() if name in _KINDS) < counts[0]:
        # LiteLLM bills the details. For an embedding of a picture they contain only its text.
        billed = {n: v for n, v in details.items() if n != "text_tokens" and not n.endswith(("_count", "_seconds"))}
        return TokenUsage(*counts, _plain(*counts, prompt_tokens_details=billed))
    if logging_obj is None:
        return None
    name, raw = _raw_usage(logging_obj)
    if raw is None:
        return None
    # Anthropic counts cached input separately. LiteLLM and the others include it.
    read = next((sum(found) for names in _READ if any(found := [number(field(raw, n)) or 0 for n in names])), 0)
    wrote = max(number(field(raw, n)) or 0 for n in _WROTE)
    return None if read <= counts[0] and wrote <= counts[1] else usage_in({name: raw})


def _plain(read: int, wrote: int, **details: Any) -> dict[str, Any]:
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote, **details}


def _raw_usage(logging_obj: object) -> tuple[str, object]:
    """Return (its name, the usage) from the provider's own answer, found without reading all of it."""
    raw = field(field(logging_obj, "model_call_details"), "original_response")
    if not isinstance(raw, str):
        return "usage", field(raw, "usage")
    for name in ("usage", "usageMetadata"):
        start = raw.rfind(f'"{name}":')
        if start >= 0:
            with suppress(ValueError, RecursionError):
                found, end = json.JSONDecoder().raw_decode(raw, raw.index("{", start))
                # The rest must end the answer itself, because the arguments of a tool call can have a field of this
                # name, too.
                json.loads("{" + raw[end:].lstrip().removeprefix(","))
                return name, found
    return "usage", None


def _computed(request: Request, answer: object, usage: TokenUsage | None, logging_obj: Any) -> Cost:
    usage, name = usage or _usage(request, answer), _name(request, answer)
    if request.call_type in _BY_UNITS:
        read, wrote = (usage.input, usage.output) if usage else (0, 0)
        usd, estimated = _unit_cost(request, name, answer)
        return Cost(usd, name, read, wrote, estimated)
    if usage is not None:
        return _priced(request, name, usage, answer, logging_obj)
    if request.call_type not in _TOKENS:
        return Cost(None, name, 0, 0, estimated=False)
    texts: list[str] = []
    with suppress(Exception):
        texts = response_format(request, answer).texts(answer)
    return _from_text(request, name, texts)


def _priced(
    request: Request, name: str, usage: TokenUsage, answer: object, logging_obj: Any, *, estimated: bool = False
) -> Cost:
    key = price_key(request)
    asked = {
        "answer": answer,
        "answered": name,
        "service_tier": request.said("service_tier"),
        "call_type": response_format(request).call_type,
        "milliseconds": field(answer, "_response_ms"),
    }
    # The call's own Logging object knows its region. It may have lost own prices, but it knows the duration.
    said = None if key.custom or _tier_unknown(request, answer) else _logged(logging_obj, answer, usage, name)
    usd = said or token_cost(key, usage.raw, **asked)
    if usd is None and key.custom:
        usd = _logged(logging_obj, answer, usage, name)
    return Cost(usd, name, usage.input, usage.output, estimated)


def _logged(logging_obj: Any, answer: object, usage: TokenUsage, name: str) -> int | None:
    return None if logging_obj is None else logged_cost(logging_obj, with_usage(answer, usage.raw, name))


def _from_text(request: Request, name: str, texts: Sequence[str]) -> Cost:
    # The joined text is counted once: if each chunk were counted, a token cut in two would count twice.
    read, wrote = _input_tokens(request), probable("".join(texts)) if texts else 0
    return _priced(request, name, TokenUsage(read, wrote, _plain(read, wrote)), None, None, estimated=True)


def _input_tokens(request: Request) -> int:
    """Return the input tokens as probably billed: text by the local tokenizer, the rest as in the floor of an estimate."""
    if request.call_type == "realtime":
        return 0
    sheet = price_sheet(price_key(request))
    rough, counted = (InputCounter(sheet.key or sheet.model, sheet.provider, exact=exact) for exact in (False, True))
    for measure in (rough, counted):
        read_request(request, measure)
    # The difference of the two is what counting takes off the bytes; the floor holds the same bytes at four a token.
    return max(rough.floor_tokens - -(-rough.loose // 4) + (rough.loose - (rough.text - counted.text)), 0)


def _unit_cost(request: Request, name: str, answer: object) -> tuple[int | None, bool]:
    """Return (nano-dollars, whether they are an estimate) of an answer of these families. `name` is the model that the
    answer names. If the answer is None, or LiteLLM cannot price it, return the cost of a request that was served and
    whose answer is lost. Never raises.
    """
    if request.call_type == "moderation":
        return 0, False
    with suppress(Exception):
        found = None if answer is None else _by_litellm(request, name, answer)
        if found:
            return found, False
    lost = estimate(request, output_allowance=0, unbounded_hold=0)
    return lost.floor if lost.priced else None, lost.floor > 0


def _by_litellm(request: Request, name: str, answer: object) -> int | None:
    params = request.params
    asked: dict[str, Any] = {}
    if request.call_type == "speech":
        text = params.get("input")
        if not isinstance(text, str):
            return None
        asked = {"prompt": text, "usage": {"prompt_tokens": probable(text)}}
    # Values in the answer take precedence over those in the request.
    for option in ("size", "quality"):
        chosen: Any = None if field(answer, option) else params.get(option)
        asked[option] = chosen if isinstance(chosen, str) and chosen != "auto" else None
    options: dict[str, Any] = {
        option: value for option, value in params.items() if isinstance(value, (str, int, float))
    }
    if request.call_type == "search":
        options["query"] = params.get("query")
    return answer_cost(
        price_key(request),
        _litellm_object(request, dict(answer)) if isinstance(answer, Mapping) else answer,
        call_type=_CALL_TYPES.get(request.call_type, request.call_type),
        answered=name,
        optional_params=options,
        **asked,
    )


def _litellm_object(request: Request, answer: dict[str, Any]) -> Any:
    """Return the answer as LiteLLM's own class. Its calculator prices only that class."""
    import litellm

    call_type = request.call_type
    if call_type in IMAGES:
        return litellm.ImageResponse(**answer)
    if call_type == "rerank":
        from litellm.types.rerank import RerankResponse

        return RerankResponse(**answer)
    if call_type == "ocr":
        from litellm.llms.base_llm.ocr.transformation import OCRResponse

        return OCRResponse(**{"pages": [], "model": request.model, **answer})
    if call_type == "video_generation":
        from litellm.types.videos.main import VideoObject

        return VideoObject(**{"id": "", "object": "video", "status": "", **answer})
    return _transcription(answer) if call_type == "transcription" else answer


def _transcription(answer: dict[str, Any]) -> Any:
    import litellm
    from litellm.types.utils import TranscriptionUsageTokensObject

    made: Any = litellm.TranscriptionResponse(text=answer.get("text"))
    usage = answer.get("usage")
    if isinstance(usage, Mapping) and usage.get("type") == "tokens":
        made.usage = TranscriptionUsageTokensObject(**usage)
    for value in (answer.get("duration"), field(usage, "seconds")):
        with suppress(TypeError, ValueError):
            if value is not None and 0 < float(value) < 10**9:
                made.duration = float(value)
                break
    return made
