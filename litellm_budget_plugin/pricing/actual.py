"""What a call did cost: LiteLLM's figure where it can be trusted, else from usage, else from what was received."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from litellm_budget_plugin.core.money import charge_nanos
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.pricing import chat, served
from litellm_budget_plugin.pricing.bound import estimate
from litellm_budget_plugin.pricing.cost_map import price_key
from litellm_budget_plugin.pricing.dialects import dialect_of
from litellm_budget_plugin.pricing.measure import Measure
from litellm_budget_plugin.pricing.pricer import price
from litellm_budget_plugin.pricing.terms import terms_of
from litellm_budget_plugin.pricing.tokens import probable
from litellm_budget_plugin.pricing.units import BY_TOKENS
from litellm_budget_plugin.pricing.usage import Counted, Received, field, parse_raw
from litellm_budget_plugin.pricing.values import Cost, Request


def _nanos(usd: object) -> int | None:
    if isinstance(usd, bool) or not isinstance(usd, (int, float)):
        return None
    try:
        return charge_nanos(usd)
    except BudgetInputError:
        return None


def _name(request: Request, answer: object) -> str:
    name = field(answer, "model")
    return name if isinstance(name, str) and name else request.model


def _hidden(answer: object, name: str) -> Any:
    return field(field(answer, "_hidden_params"), name)


def _by_tokens(request: Request) -> bool:
    return request.call_type in BY_TOKENS or request.call_type == "realtime"


def _input_tokens(request: Request) -> int:
    """The input as probably billed: text by the local tokenizer, the rest as in the floor of an estimate."""
    if request.call_type == "realtime":
        return 0
    floor = estimate(request, output_allowance=0, unbounded_hold=0).floor_tokens
    terms = terms_of(price_key(request))
    rough, counted = (Measure(terms.key or terms.model, terms.provider, exact=exact) for exact in (False, True))
    for measure in (rough, counted):
        chat.read(request, measure)
    # The difference of the two is what counting takes off the bytes; the floor holds the same bytes at four a token.
    return max(floor - -(-rough.loose // 4) + (rough.loose - (rough.text - counted.text)), 0)


def _counted(read: int, wrote: int) -> Counted:
    raw = {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
    return Counted(read, wrote, raw)


def _settle(request: Request, name: str, counted: Counted, answer: object, *, estimated: bool) -> Cost:
    return Cost(price(request, name, counted, answer), name, counted.input, counted.output, estimated)


def _usage(request: Request, answer: object) -> Counted | None:
    with suppress(Exception):
        return dialect_of(request, answer).usage(answer)
    return None


def _from_text(request: Request, name: str, texts: Sequence[str]) -> Cost:
    # One count of the joined text: chunk by chunk, a token cut in two would count twice.
    wrote = probable("".join(texts)) if texts else 0
    return _settle(request, name, _counted(_input_tokens(request), wrote), None, estimated=True)


def cost_of_response(request: Request, response: Any, response_cost: float | None = None) -> Cost:
    """The cost of a whole answer: LiteLLM's object of the request's family, or a dictionary in its form.

    A positive `response_cost` is LiteLLM's word and is taken. None or 0 may mean that it did not know: then usage and
    the cost map decide, and without usage what was asked for and received. A cache hit costs 0. Never raises.
    """
    usage = _usage(request, response)
    read, wrote = (usage.input, usage.output) if usage else (0, 0)
    name = _name(request, response)
    if _hidden(response, "cache_hit") is True:
        return Cost(0, name, read, wrote, estimated=False)
    said = _nanos(response_cost) or _nanos(_hidden(response, "response_cost"))
    if said:
        return Cost(said, name, read, wrote, estimated=False)
    return _computed(request, response)


def _computed(request: Request, answer: object) -> Cost:
    usage, name = _usage(request, answer), _name(request, answer)
    if not _by_tokens(request):
        return served.cost(request, name, answer, usage)
    if usage is not None:
        return _settle(request, name, usage, answer, estimated=False)
    texts: list[str] = []
    with suppress(Exception):
        texts = dialect_of(request, answer).texts(answer)
    return _from_text(request, name, texts)


def cost_of_output(request: Request, output_text: str) -> Cost:
    """The cost of a dropped or cancelled call: the whole input and the output received, by the local tokenizer. Where a
    call is billed as a whole (see `Estimate.floor`), that.
    """
    if not _by_tokens(request):
        return served.cost(request, request.model, None, None)
    return _from_text(request, request.model, [output_text] if output_text else [])


def cost_of_chunks(request: Request, chunks: Sequence[Any]) -> Cost:
    """The cost of a stream as far as it came. Usage in a chunk counts, else the text; no chunks is the input alone.

    Chunks are those of LiteLLM's chat streams, the events of the Responses API, of a realtime session, of Anthropic's API
    (also as bytes or text, cut anywhere), or Google's.
    """
    if not _by_tokens(request):
        return _computed(request, next((chunk for chunk in reversed(chunks) if field(chunk, "usage")), None))
    received = Received()
    with suppress(Exception):
        received = dialect_of(request, chunks[0] if chunks else None).receive(chunks)
    name, usage = received.model or request.model, received.usage
    if usage is None:
        return _from_text(request, name, received.texts)
    if received.finished:
        return _settle(request, name, usage, received.answer, estimated=False)
    # Usage before the end of the stream holds the input; its output may be a beginning only.
    wrote = probable("".join(received.texts)) if received.texts else 0
    raw = {**usage.raw, "completion_tokens": max(wrote, usage.output)}
    if wrote > usage.output:
        # The details are those of the beginning.
        raw.pop("completion_tokens_details", None)
    raw["total_tokens"] = usage.input + raw["completion_tokens"]
    cut = Counted(usage.input, raw["completion_tokens"], raw)
    return _settle(request, name, cut, None, estimated=wrote > usage.output)


def cost_of_raw(request: Request, original_response: Any) -> Cost:
    """The cost of the provider's own answer, as `Logging.post_call` sees it; unreadable means as if it were lost."""
    answer = parse_raw(original_response)
    if not isinstance(answer, Mapping) and not hasattr(answer, "__dict__"):
        return cost_of_output(request, "")
    return _computed(request, answer)
