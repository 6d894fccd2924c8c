"""In which units each family of calls is billed, and whether an entry of the cost map names a price in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin.pricing.rates import attos

BOTH_SIDES = ("input_cost_per_token", "output_cost_per_token")
SECONDS = ("cost_per_second", "input_cost_per_second", "output_cost_per_second")
IMAGES = ("image_generation", "image_edit", "image_variation")
# LiteLLM returns the cost of these before it applies margins and discounts.
UNDISCOUNTED = frozenset((*IMAGES, "video_generation"))
BY_TOKENS = frozenset({"completion", "text_completion", "embedding", "responses", "messages", "generate_content"})
_TOKENS = (
    *BOTH_SIDES,
    *SECONDS,
    "tiered_pricing",
    "input_cost_per_character",
    "output_cost_per_character",
    "input_cost_per_query",
)
_IMAGE = (
    "input_cost_per_image",
    "output_cost_per_image",
    "input_cost_per_pixel",
    "output_cost_per_pixel",
    "output_cost_per_image_token",
)
VIDEO = ("output_cost_per_video_per_second", "output_cost_per_second")
# By the source of each: litellm/cost_calculator.py, `cost_per_token` and `completion_cost`.
_FIELDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(IMAGES, _IMAGE),
    "speech": ("input_cost_per_character", "input_cost_per_token", "output_cost_per_image"),
    "transcription": (*SECONDS[1:], "input_cost_per_token", "input_cost_per_audio_token"),
    "rerank": ("input_cost_per_query", "input_cost_per_token"),
    "ocr": ("ocr_cost_per_page", "ocr_cost_per_credit", "annotation_cost_per_page"),
    "search": ("input_cost_per_query", "tiered_pricing"),
    "video_generation": VIDEO,
    "realtime": (*BOTH_SIDES, "input_cost_per_second", "input_cost_per_text_message"),
}


def is_priced(entry: Mapping[str, Any], call_type: str) -> bool:
    """Whether an entry names a price in a unit of this family; 0 is one, None and negative numbers are not."""
    values = [entry[name] for name in _FIELDS.get(call_type, _TOKENS) if entry.get(name) is not None]
    # openrouter/auto and the like carry -1 for "depends": that is no price.
    return bool(values) and all(isinstance(value, list) or attos(value) is not None for value in values)
