"""The values that go into and come out of pricing. Money is in nano-dollars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from litellm_budget_plugin.pricing.scan import Scan

if TYPE_CHECKING:
    from litellm_budget_plugin.pricing.cost_map import PriceKey


@dataclass(frozen=True, slots=True)
class Request:
    """One call as the gate knows it."""

    call_type: str
    """The family, which is the same for async functions: "completion", "text_completion", "embedding", "responses",
    "messages" (anthropic_messages), "generate_content" (and its stream), "image_generation", "image_edit",
    "image_variation", "speech", "transcription", "rerank", "ocr", "search", "video_generation", "moderation" or
    "realtime".
    """
    model: str
    """The model as passed to LiteLLM: "gpt-4o", "openai/gpt-4o", "azure/my-deployment". For a search it may be empty,
    "tavily" or "tavily/search": its `search_provider` counts.
    """
    provider: str | None
    """The `custom_llm_provider` argument, if any."""
    params: Mapping[str, Any]
    """Every keyword argument of the call, by the names of LiteLLM's public function. Never changed and never consumed."""
    key: PriceKey | None = field(default=None, init=False, repr=False, compare=False)
    """The key that `cost_map.price_key` has made of this request."""

    def said(self, name: str) -> Any:
        """Return an argument as it is sent: a value in `extra_body` replaces it."""
        body = self.params.get("extra_body")
        return body[name] if isinstance(body, Mapping) and name in body else self.params.get(name)


class Options(NamedTuple):
    """Options of an estimate."""

    output_allowance: int
    """Output tokens of a call that states no limit."""
    unbounded_hold: int
    """Nano-dollars for a call whose greatest cost cannot be computed."""
    exact: bool = False
    """Whether to count the text if a local tokenizer can, instead of bounding it by its bytes."""
    unknown: Scan | None = None
    """The arguments that a family billed by other units does not know."""


class Covered(NamedTuple):
    """The quantities that an estimate has counted, to compare with the body that is sent."""

    text: int
    """UTF-8 bytes of text, and room for what templates add."""
    limit: int
    """Output tokens of one choice; without a stated limit, the largest that LiteLLM may set by itself."""
    choices: int
    media: int
    caches: bool
    stated: bool
    """Whether the request states a limit that reaches the provider."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The most that one call may cost, and its cost if only its input is billed."""

    usd: int
    """Nano-dollars, rounded up. If `bounded`, no answer within the stated limits costs more."""
    floor: int
    """Nano-dollars, never above `usd`: the cost of a call whose answer is lost. If tokens are billed, it is the input
    side as probably billed. Images, speech, searches, reranking, pages, transcripts and videos are billed as a whole
    once the request is served. For them it is the whole, at the lowest price that the request allows.
    """
    tokens: int
    """The upper bound of tokens, input and output."""
    floor_tokens: int
    """Input tokens as probably billed."""
    priced: bool
    """Whether a price is known. Zero is one if LiteLLM's entry or the caller says 0."""
    bounded: bool
    """Whether the bound is shown to hold for this request."""
    loose: bool
    """Whether `exact=True` would give a tighter bound."""
    covered: Covered | None = None
    """The counted quantities; None if no text is billed."""
    assumed: int = 0
    """Output tokens of one choice that were counted for a request that states no limit; 0 if it states one, or if none
    is possible.
    """


@dataclass(frozen=True, slots=True)
class Cost:
    """The actual cost of one call."""

    usd: int | None
    """Nano-dollars; None if the price is unknown."""
    model: str
    """The response's model name, the key of BudgetManager's `model_cost`."""
    input_tokens: int
    output_tokens: int
    estimated: bool
    """Whether it was counted from text here, because the provider reported no usage."""
