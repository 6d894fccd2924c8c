"""The estimate of a call that is billed in other units than tokens of text: what all have in common, and the small families."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from litellm_budget_plugin.pricing.price_sheet import PriceSheet
from litellm_budget_plugin.pricing.rates import ATTOS_PER_NANO, VIDEO
from litellm_budget_plugin.pricing.scan import Scan, count_of
from litellm_budget_plugin.pricing.values import Estimate, Options, Request

MOST = 10**4
"""No count is larger than this: what says so is a mistake."""


@dataclass(slots=True)
class UnitCost:
    """What one call may be billed, in atto-dollars."""

    most: int = 0
    floor: int = 0
    known: bool = True
    """There is a quantity to multiply with."""
    certain: bool = True
    """No answer can be billed a larger quantity."""
    tokens: int = 0
    floor_tokens: int = 0
    copies: int = 1
    """How many pieces `most` is for."""
    seconds: int = 0
    """How long each of them is; 0 where that is not billed."""
    per_byte: int = 0
    """The dearest price of a byte of text that is sent."""

    def estimate(self, sheet: PriceSheet, options: Options) -> Estimate:
        """The estimate; what cannot be known is held as UNBOUNDED_HOLD, unless every price is 0."""
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
        """Any argument that looks like more pieces or seconds may be one, and any text may be billed."""
        most = -(-self.most * max(unknown.copies, self.copies) // self.copies)
        if self.seconds:
            most = -(-most * max(unknown.seconds, self.seconds) // self.seconds)
        return most + unknown.size * self.per_byte


def count(params: Mapping[str, Any], *names: str) -> int | None:
    """The largest of these arguments that is a count; None where there is none."""
    return max(count_of(params.get(name), MOST) for name in names) or None


def count_nested(params: Mapping[str, Any], *names: str) -> int | None:
    """The largest such count, in the dictionaries of `nested` as well; None where there is none."""
    return max((found for part in nested(params) if (found := count(part, *names))), default=None)


def nested(params: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The arguments, and the dictionaries in them that LiteLLM passes on to the provider."""
    yield params
    for name in ("extra_body", "parameters", "extra_query"):
        inner = params.get(name)
        if isinstance(inner, Mapping):
            yield inner


_SECONDS = ("seconds", "duration", "duration_seconds", "durationSeconds")
_COPIES = ("n", "sampleCount", "sample_count", "video_count")
# Longest default of a documented model (Runway, 10 seconds; Veo 8, Sora 4), and the shortest.
_GENEROUS, _LEAST = 10, 4


def estimate_video(request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """Seconds times the dearest rate of any resolution. Without seconds the provider decides: then ten are reckoned, and
    not less than UNBOUNDED_HOLD is held. A video is made whether or not its maker waits: a lost answer is charged in full,
    at the lowest rate.
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
    """OpenAI's moderation costs nothing, whatever is moderated, and LiteLLM charges nothing for any other's."""
    return Estimate(0, 0, 0, 0, priced=True, bounded=True, loose=False)


def estimate_realtime(_request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """A session may last for hours, and nothing of it is visible at its start: UNBOUNDED_HOLD. A lost one costs nothing."""
    return UnitCost(known=False).estimate(sheet, options)
