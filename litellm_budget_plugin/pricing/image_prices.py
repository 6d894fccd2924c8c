"""Entries of the cost map that price one size and quality of a model's images: "hd/1024-x-1792/dall-e-3"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litellm_budget_plugin.pricing.cost_map import providers

# LiteLLM builds such names in `default_image_cost_calculator`, and in the calculators of Bedrock ("50-steps") and fal.
_NAME = re.compile(
    r"^(?:(?P<provider>[^/]+)/)?(?:(?P<quality>[a-z]+)/)?(?P<width>\d+)-x-(?P<height>\d+)/(?:(?:\d+|max)-steps/)?(?P<model>.+)$"
)
_SIZE = re.compile(r"^\s*(\d{1,6})\s*(?:-x-|x|X|\*)\s*(\d{1,6})\s*$")
_index: tuple[object, int, dict[str, tuple[ImagePrice, ...]]] | None = None


@dataclass(frozen=True, slots=True)
class ImagePrice:
    """The entry of one size and quality."""

    key: str
    provider: str | None
    quality: str | None
    size: tuple[int, int]


def parse_size(size: object) -> tuple[int, int] | None:
    """Width and height of "1024x1024" or "1024-x-1024"; None for "auto", ratios and the like."""
    found = _SIZE.match(size) if isinstance(size, str) else None
    return (int(found[1]), int(found[2])) if found else None


def _split(key: str) -> tuple[str, ImagePrice] | None:
    found = _NAME.match(key)
    if found is None:
        return None
    provider, quality = found["provider"], found["quality"]
    if provider and not quality and provider not in providers():
        provider, quality = None, provider
    return found["model"], ImagePrice(key, provider, quality, (int(found["width"]), int(found["height"])))


def _variants() -> dict[str, tuple[ImagePrice, ...]]:
    global _index
    import litellm

    cost_map: Mapping[str, Any] = litellm.model_cost
    if _index is None or _index[0] is not cost_map or _index[1] != len(cost_map):
        found: dict[str, list[ImagePrice]] = {}
        for key in list(cost_map):
            split = _split(key) if "-x-" in key else None
            if split:
                found.setdefault(split[0], []).append(split[1])
        _index = (cost_map, len(cost_map), {model: tuple(listed) for model, listed in found.items()})
    return _index[2]


def image_prices(model: str, provider: str | None) -> tuple[ImagePrice, ...]:
    """Every entry for a size of this model. `model` may itself be the name of such an entry."""
    split = _split(model)
    name = split[0] if split else model
    listed = _variants()
    names = dict.fromkeys((name, name.removeprefix(f"{provider}/"), f"{provider}/{name}", name.rpartition("/")[2]))
    found = (variant for candidate in names for variant in listed.get(candidate, ()))
    return tuple(variant for variant in found if variant.provider in (None, provider))


def chosen(
    variants: tuple[ImagePrice, ...], size: tuple[int, int] | None, quality: str | None
) -> tuple[ImagePrice, ...]:
    """Those that a request for this size and quality may be priced by; all, where it does not say."""
    sized = tuple(variant for variant in variants if variant.size == size) or variants
    return tuple(variant for variant in sized if variant.quality == quality) or sized
