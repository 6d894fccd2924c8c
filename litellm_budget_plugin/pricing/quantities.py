"""The estimate of a call that is billed in other units than tokens of text: images, seconds, characters, queries, pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from litellm_budget_plugin.pricing.rates import ATTOS_PER_NANO
from litellm_budget_plugin.pricing.terms import Terms
from litellm_budget_plugin.pricing.values import Estimate, Options

MOST = 10**4
"""No count above this is believed: it is a mistake, or not a count."""


@dataclass(slots=True)
class Bill:
    """What one call may be billed, in atto-dollars."""

    most: int = 0
    floor: int = 0
    known: bool = True
    """There is a quantity to multiply with."""
    certain: bool = True
    """No answer can be billed a larger quantity."""
    tokens: int = 0
    floor_tokens: int = 0

    def estimate(self, terms: Terms, options: Options, *, priced: bool | None = None) -> Estimate:
        """The estimate; what cannot be known is held as UNBOUNDED_HOLD, unless every price is 0."""
        priced = terms.priced if priced is None else priced
        if not priced:
            return Estimate(0, 0, self.tokens, self.floor_tokens, priced=False, bounded=False, loose=False)
        usd = -(-(self.most + terms.fixed) // ATTOS_PER_NANO)
        free = terms.zero and not self.most
        if not self.known and not free:
            usd = max(usd, options.unbounded_hold)
        floor = min(-(-self.floor // ATTOS_PER_NANO), usd)
        bounded = free or (self.known and self.certain)
        return Estimate(usd, floor, self.tokens, self.floor_tokens, priced=True, bounded=bounded, loose=False)


def count(params: Mapping[str, Any], *names: str) -> int | None:
    """The largest of these arguments that is a count; None where there is none."""
    found = [value for name in names for value in _numbers(params.get(name)) if 0 < value <= MOST]
    return max((int(-(-value // 1)) for value in found), default=None)


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value
    elif isinstance(value, str) and len(value) <= 10:
        try:
            yield float(value.strip().removesuffix("s"))
        except ValueError:
            return


def nested(params: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The arguments, and the dictionaries in them that LiteLLM passes on to the provider."""
    yield params
    for name in ("extra_body", "parameters", "extra_query"):
        inner = params.get(name)
        if isinstance(inner, Mapping):
            yield inner
