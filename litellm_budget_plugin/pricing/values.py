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
    """What the gate knows of one call."""

    call_type: str
    """The family, with the async names already folded in: "completion", "text_completion", "embedding", "responses",
    "messages" (anthropic_messages), "generate_content" (and its stream), "image_generation", "image_edit",
    "image_variation", "speech", "transcription", "rerank", "ocr", "search", "video_generation", "moderation" or "realtime".
    """
    model: str
    """As passed to LiteLLM: "gpt-4o", "openai/gpt-4o", "azure/my-deployment". A search may leave it empty, or give
    "tavily" or "tavily/search": its `search_provider` counts."""
    provider: str | None
    """The `custom_llm_provider` argument, if any."""
    params: Mapping[str, Any]
    """Every keyword argument of the call, by the names of LiteLLM's public function. Never changed and never consumed."""
    key: PriceKey | None = field(default=None, init=False, repr=False, compare=False)
    """What `cost_map.price_key` has made of this request."""

    def said(self, name: str) -> Any:
        """An argument as it is sent: what stands in `extra_body` takes its place."""
        body = self.params.get("extra_body")
        return body[name] if isinstance(body, Mapping) and name in body else self.params.get(name)


class Options(NamedTuple):
    """How an estimate is to be made."""

    output_allowance: int
    """Output tokens of a call that states no limit."""
    unbounded_hold: int
    """Nano-dollars for a call whose most cannot be computed."""
    exact: bool = False
    """Count the text where a local tokenizer can, instead of bounding it by its bytes."""
    unknown: Scan | None = None
    """The arguments that a family billed by other units does not know."""


class Covered(NamedTuple):
    """What an estimate has counted, to compare with the body that is sent."""

    text: int
    """UTF-8 bytes of text, and room for what templates add."""
    limit: int
    """Output tokens of one choice; without a stated limit, the largest that LiteLLM may set by itself."""
    choices: int
    media: int
    caches: bool
    stated: bool
    """The request states a limit that reaches the provider."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The most that one call may cost, and what it costs if only its input is billed."""

    usd: int
    """Nano-dollars, rounded up: no answer within the stated limits costs more, if `bounded`."""
    floor: int
    """Nano-dollars, never above `usd`: what a call costs whose answer is lost on its way. Where tokens are billed, the
    input side as probably billed. Images, speech, searches, reranking, pages, transcripts and videos are billed as a whole
    once the request is served, so there it is the whole, by the cheapest that the request allows."""
    tokens: int
    """The upper bound of tokens, input and output."""
    floor_tokens: int
    """Input tokens as probably billed."""
    priced: bool
    """A price is known; zero counts when LiteLLM's entry or the caller says 0."""
    bounded: bool
    """The bound is shown to hold for this request."""
    loose: bool
    """`exact=True` would give a tighter bound."""
    covered: Covered | None = None
    """What was counted; None where no text is billed."""
    assumed: int = 0
    """Output tokens of one choice that were counted for a request which states no limit; 0 where it states one, or none can be."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call did cost."""

    usd: int | None
    """Nano-dollars; None when the price is unknown."""
    model: str
    """The response's model name, the key of BudgetManager's `model_cost`."""
    input_tokens: int
    output_tokens: int
    estimated: bool
    """Counted from text here, because the provider reported no usage."""
