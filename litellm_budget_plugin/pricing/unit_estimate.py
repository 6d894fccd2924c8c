"""The estimate of calls that are billed in other units than tokens of text: common parts, and the small families."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from litellm_budget_plugin.pricing.price_sheet import PriceSheet
from litellm_budget_plugin.pricing.rates import ATTOS_PER_NANO, VIDEO
from litellm_budget_plugin.pricing.scan import Scan, count_of
from litellm_budget_plugin.pricing.values import Estimate, Options, Request

MOST = 10**4
"""No real count is larger than this. A larger one is a mistake."""


@dataclass(slots=True)
class UnitCost:
    """The amounts that one call may be billed, in atto-dollars."""

    most: int = 0
    floor: int = 0
    known: bool = True
    """Whether there is a quantity to multiply with."""
    certain: bool = True
    """Whether no answer can be billed a larger quantity."""
    tokens: int = 0
    floor_tokens: int = 0
    copies: int = 1
    """The number of pieces that `most` is for."""
    seconds: int = 0
    """The length of each of them; 0 if length is not billed."""
    per_byte: int = 0
    """The highest price of a byte of text that is sent."""

    def estimate(self, sheet: PriceSheet, options: Options) -> Estimate:
        """Return the estimate. If the quantity cannot be known, it is at least UNBOUNDED_HOLD, unless every price is 0."""
        if not sheet.priced:
            return Estimate(0, 0, self.tokens, self.floor_tokens, priced=False, bounded=False, loose=False)
        most = self.most
        if options.unknown is not None:
            most = self._with_unknown(options.unknown)
        usd = -(-(most + sheet.fixed) // ATTOS_PER_NANO)
        free = sheet.zero and not self.most
        if not self.known and not free:
            usd = max(usd, options.unbounded_hold)
        floor = min(-(-self.floor // ATTOS_PER_NANO), usd)
        bounded = free or (self.known and self.certain and options.unknown is None)
        return Estimate(usd, floor, self.tokens, self.floor_tokens, priced=True, bounded=bounded, loose=False)

    def _with_unknown(self, unknown: Scan) -> int:
        """Return `most` with the unknown arguments. Any that looks like more pieces or seconds may be one, and any text
        may be billed.
        """
        most = -(-self.most * max(unknown.copies, self.copies) // self.copies)
        if self.seconds:
            most = -(-most * max(unknown.seconds, self.seconds) // self.seconds)
        return most + unknown.size * self.per_byte


def count(params: Mapping[str, Any], *names: str) -> int | None:
    """Return the largest of these arguments that is a count; None if there is none."""
    return max(count_of(params.get(name), MOST) for name in names) or None


def count_nested(params: Mapping[str, Any], *names: str) -> int | None:
    """Return the largest such count, also from the dictionaries of `nested`; None if there is none."""
    return max((found for part in nested(params) if (found := count(part, *names))), default=None)


def nested(params: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the arguments, and the dictionaries in them that LiteLLM passes on to the provider."""
    yield params
    for name in ("extra_body", "parameters", "extra_query"):
        inner = params.get(name)
        if isinstance(inner, Mapping):
            yield inner


_SECONDS = ("seconds", "duration", "duration_seconds", "durationSeconds")
_COPIES = ("n", "sampleCount", "sample_count", "video_count")
# The longest default of a documented model (Runway, 10 seconds; Veo 8, Sora 4), and the shortest.
_GENEROUS, _LEAST = 10, 4


def estimate_video(request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """Return seconds times the highest rate of any resolution. Without seconds the provider decides. Then ten are
    assumed, and at least UNBOUNDED_HOLD is held. A lost answer is charged in full, at the lowest rate, because a video
    is made even if the answer is lost.
    """
    stated, copies = count_nested(request.params, *_SECONDS), count_nested(request.params, *_COPIES) or 1
    rates = [rate for name in sheet.prices if name.startswith(VIDEO) and (rate := sheet.rate(name))]
    image = sheet.per_image if request.params.get("input_reference") else 0
    cost = UnitCost(
        most=(stated or _GENEROUS) * copies * max(rates, default=0) + image,
        floor=(stated or _LEAST) * copies * min(rates, default=0),
        known=stated is not None,
        copies=copies,
        seconds=stated or _GENEROUS,
    )
    return cost.estimate(sheet, options)


def estimate_moderation(_request: Request, _sheet: PriceSheet, _options: Options) -> Estimate:
    """Return zero: OpenAI's moderation costs nothing, whatever is moderated, and LiteLLM charges nothing for any other
    provider's.
    """
    return Estimate(0, 0, 0, 0, priced=True, bounded=True, loose=False)


def estimate_realtime(_request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """Return UNBOUNDED_HOLD: a session may last for hours, and its start shows nothing of it. A lost session costs
    nothing.
    """
    return UnitCost(known=False).estimate(sheet, options)
