"""Rates of one cost-map entry, as integers in atto-dollars (1e-18 USD), rounded up.

Source: litellm/litellm_core_utils/llm_cost_calc/utils.py, `generic_cost_per_token` and what it calls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

ATTOS_PER_NANO = 10**9
_ATTOS_PER_USD = Decimal(10**18)
# A field that names a service tier applies to that tier alone; every other field may apply to any call.
_SERVICES = ("priority", "flex", "balanced", "ultrafast", "decisions")
_SERVICE = {"fast": "priority"}
_ABOVE = re.compile(r"_above_(\d+)(k?)_tokens")
_PLAIN_INPUT = ("input_cost_per_token", "input_cost_per_character")


def _side(name: str) -> str | None:
    """Which side of a call a field of an entry prices. A field that LiteLLM adds tomorrow counts by its name."""
    base = _ABOVE.sub("", name)
    # A character has at least one byte, as a token has: the count of bytes bounds a price per character too.
    if not base.startswith("input_cost_per_character") and not (
        "cost" in base and "token" in base and "1k" not in base
    ):
        return None
    # Databricks counts in units of its own beside dollars, and nobody calls in batches here.
    if "batch" in base or "dbu" in base:
        return None
    if base.startswith("output") or "reasoning" in base:
        return "audio_output" if "audio" in base or "video" in base else "output"
    if "audio" in name or "image" in name or "video" in name:
        return "media"
    if "creation" in name or "write" in name:
        return "hour" if "hr" in name else "written"
    return "text"


def attos(value: object) -> int | None:
    """A price in USD as atto-dollars, rounded up; None for anything but a finite number from 0 on."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return None
    try:
        amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        return None
    if not amount.is_finite() or amount < 0 or amount > 10**9:
        return None
    return int((amount * _ATTOS_PER_USD).to_integral_value(rounding=ROUND_CEILING))


def scaled(amount: int, factor: Fraction) -> int:
    """Amount times factor, rounded up."""
    return -(-amount * factor.numerator // factor.denominator)


def round_half_even(amount: int) -> int:
    """Atto-dollars as nano-dollars, half to even, as every charge is rounded."""
    whole, rest = divmod(amount, ATTOS_PER_NANO)
    return whole + (rest * 2 > ATTOS_PER_NANO or (rest * 2 == ATTOS_PER_NANO and whole % 2))


@dataclass(frozen=True, slots=True)
class Tier:
    """Dearest rates of a call whose prompt may reach `above` tokens. Atto-dollars a token."""

    above: int
    text: int
    written: int
    """Input that may be written to a cache."""
    hour: int
    """Input that may be written to a one-hour cache."""
    media: int
    output: int
    audio_output: int
    plain: int
    """Input as normally billed, for the floor."""


@dataclass(slots=True)
class RateTable:
    """Rates by side and threshold, gathered from the fields of one entry."""

    sides: dict[str, dict[int, int]] = field(default_factory=dict)

    def note(self, side: str, above: int, rate: int) -> None:
        """Keep the dearer of two rates of one side and threshold."""
        rates = self.sides.setdefault(side, {})
        rates[above] = max(rates.get(above, 0), rate)

    def upto(self, side: str, above: int) -> int:
        """The dearest rate of a side among the thresholds that a prompt of `above` tokens has passed."""
        return max((rate for start, rate in self.sides.get(side, {}).items() if start <= above), default=0)

    def standing(self, side: str, above: int) -> int:
        """The rate of the last threshold passed."""
        rates = self.sides.get(side, {})
        return rates[max(start for start in rates if start <= above)] if rates and min(rates) <= above else 0

    def tiers(self, factor: Fraction) -> tuple[Tier, ...]:
        """One Tier for each threshold, lowest first; each is at least as dear as the one before."""
        starts = sorted({0, *(start for rates in self.sides.values() for start in rates)})
        return tuple(self._tier(start, factor) for start in starts)

    def _tier(self, above: int, factor: Fraction) -> Tier:
        text, output = self.upto("text", above), self.upto("output", above)
        written = max(text, self.upto("written", above))
        return Tier(
            above=above,
            text=scaled(text, factor),
            written=scaled(written, factor),
            hour=scaled(max(written, self.upto("hour", above)), factor),
            media=scaled(max(text, self.upto("media", above)), factor),
            output=scaled(output, factor),
            audio_output=scaled(max(output, self.upto("audio_output", above)), factor),
            plain=scaled(self.standing("plain", above), factor),
        )


def _note_field(table: RateTable, name: str, value: object, service: str, start: int = 0) -> None:
    side, rate = _side(name), attos(value)
    named = next((other for other in _SERVICES if other in name), None)
    if side is None or rate is None or (named and named != service):
        return
    match = _ABOVE.search(name)
    above = start + (int(match[1]) * (1000 if match[2] else 1) if match else 0)
    table.note(side, above, rate)
    if name.startswith(_PLAIN_INPUT) and not named:
        table.note("plain", above, rate)


def read_rates(entry: Mapping[str, Any], service_tier: str | None) -> RateTable:
    """Every token rate of an entry that may apply under this service tier ("auto" may be served as priority)."""
    wanted = (service_tier or "").lower()
    # The provider may serve the standard tier instead, so the standard rates always stay in.
    service = "priority" if wanted == "auto" else _SERVICE.get(wanted, wanted)
    table = RateTable()
    for name, value in entry.items():
        _note_field(table, name, value, service)
    tiered = entry.get("tiered_pricing")
    for tier in tiered if isinstance(tiered, list) else ():
        if isinstance(tier, Mapping):
            bounds = tier.get("range")
            start = int(bounds[0]) if isinstance(bounds, (list, tuple)) and bounds else 0
            for name, value in tier.items():
                _note_field(table, name, value, service, start)
    off_peak = entry.get("off_peak_pricing")
    for name, value in off_peak.items() if isinstance(off_peak, Mapping) else ():
        _note_field(table, name, value, service)
    return table
