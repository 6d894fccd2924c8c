"""What a call did cost: LiteLLM's figure where it can be trusted, else from usage, else from the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from litellm_budget_plugin.core.money import charge_nanos
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.pricing import chat
from litellm_budget_plugin.pricing.bound import estimate
from litellm_budget_plugin.pricing.entries import select
from litellm_budget_plugin.pricing.measure import Measure
from litellm_budget_plugin.pricing.pricer import price
from litellm_budget_plugin.pricing.terms import terms_of
from litellm_budget_plugin.pricing.tokens import probable
from litellm_budget_plugin.pricing.usage import (
    Counted,
    answer_text,
    chunks_usage,
    field,
    is_finished,
    parse_raw,
    read_usage,
)
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


def _input_tokens(request: Request) -> int:
    """The input as probably billed: text by the local tokenizer, the rest as in the floor of an estimate."""
    floor = estimate(request, output_allowance=0, unbounded_hold=0).floor_tokens
    terms = terms_of(select(request))
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


def cost_of_response(request: Request, response: Any, response_cost: float | None = None) -> Cost:
    """The cost of a whole answer: an object of LiteLLM's, or a dictionary with "usage".

    A positive `response_cost` is LiteLLM's word and is taken. None or 0 may mean that it did not know: then usage and
    the cost map decide, and without usage the text. A cache hit costs 0. Never raises.
    """
    name = _name(request, response)
    usage = read_usage(response)
    read, wrote = (usage.input, usage.output) if usage else (0, 0)
    if _hidden(response, "cache_hit") is True:
        return Cost(0, name, read, wrote, estimated=False)
    said = _nanos(response_cost) or _nanos(_hidden(response, "response_cost"))
    if said:
        return Cost(said, name, read, wrote, estimated=False)
    if usage is not None:
        return _settle(request, name, usage, response, estimated=False)
    wrote = sum(map(probable, answer_text(response)))
    return _settle(request, name, _counted(_input_tokens(request), wrote), None, estimated=True)


def cost_of_output(request: Request, output_text: str) -> Cost:
    """The cost of a dropped or cancelled call: the whole input and the output received, by the local tokenizer."""
    counted = _counted(_input_tokens(request), probable(output_text) if output_text else 0)
    return _settle(request, request.model, counted, None, estimated=True)


def cost_of_chunks(request: Request, chunks: Sequence[Any]) -> Cost:
    """The cost of a stream as far as it came. Usage in a chunk counts, else the text; no chunks is the input alone."""
    names = (_name(request, chunk) for chunk in chunks)
    name = next((found for found in names if found != request.model), request.model)
    usage = chunks_usage(chunks)
    if usage is not None and is_finished(chunks):
        return _settle(request, name, usage, None, estimated=False)
    texts: list[str] = []
    for chunk in chunks:
        texts.extend(answer_text(chunk, "delta"))
    # One count of the joined text: chunk by chunk, a token cut in two would count twice.
    wrote = probable("".join(texts)) if texts else 0
    if usage is None:
        return _settle(request, name, _counted(_input_tokens(request), wrote), None, estimated=True)
    # Usage before the end of the stream holds the input; its output may be a beginning only.
    raw = {**usage.raw, "completion_tokens": max(wrote, usage.output)}
    raw["total_tokens"] = usage.input + raw["completion_tokens"]
    cut = Counted(usage.input, raw["completion_tokens"], raw)
    return _settle(request, name, cut, None, estimated=wrote > usage.output)


def cost_of_raw(request: Request, original_response: Any) -> Cost:
    """The cost of the provider's own answer, as `Logging.post_call` sees it; unreadable means the input alone."""
    answer = parse_raw(original_response)
    usage = None
    with suppress(Exception):
        usage = read_usage(answer)
    if usage is not None:
        return _settle(request, _name(request, answer), usage, None, estimated=False)
    wrote = sum(map(probable, answer_text(answer)))
    name = _name(request, answer) if isinstance(answer, Mapping) else request.model
    return _settle(request, name, _counted(_input_tokens(request), wrote), None, estimated=True)
