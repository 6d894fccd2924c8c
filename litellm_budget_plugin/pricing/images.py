"""Images that are generated, edited or varied. They are priced by size and quality, by pixel, or by token."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from litellm_budget_plugin.pricing.cost_map import providers
from litellm_budget_plugin.pricing.price_sheet import PriceSheet
from litellm_budget_plugin.pricing.rates import attos, dearest_of, is_priced, scaled
from litellm_budget_plugin.pricing.tokens import byte_length
from litellm_budget_plugin.pricing.unit_estimate import UnitCost, count, count_nested, nested
from litellm_budget_plugin.pricing.values import Estimate, Options, Request

# LiteLLM builds such names in `default_image_cost_calculator`, and in the calculators of Bedrock ("50-steps") and fal.
_NAME = re.compile(
    r"^(?:(?P<provider>[^/]+)/)?(?:(?P<quality>[a-z]+)/)?(?P<width>\d+)-x-(?P<height>\d+)/(?:(?:\d+|max)-steps/)?(?P<model>.+)$"
)
_SIZE = re.compile(r"^\s*(\d{1,6})\s*(?:-x-|x|X|\*)\s*(\d{1,6})\s*$")
_index: tuple[object, int, dict[str, tuple[ImagePrice, ...]]] | None = None


@dataclass(frozen=True, slots=True)
class ImagePrice:
    """The entry of the cost map that prices one size and quality of a model's images: "hd/1024-x-1792/dall-e-3"."""

    key: str
    provider: str | None
    quality: str | None
    size: tuple[int, int]


def parse_size(size: object) -> tuple[int, int] | None:
    """Return width and height of "1024x1024" or "1024-x-1024"; None for "auto", ratios and the like."""
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
    """Return every entry for a size of this model. `model` may itself be the name of such an entry."""
    split = _split(model)
    name = split[0] if split else model
    listed = _variants()
    names = dict.fromkeys((name, name.removeprefix(f"{provider}/"), f"{provider}/{name}", name.rpartition("/")[2]))
    found = (variant for candidate in names for variant in listed.get(candidate, ()))
    return tuple(variant for variant in found if variant.provider in (None, provider))


def chosen(
    variants: tuple[ImagePrice, ...], size: tuple[int, int] | None, quality: str | None
) -> tuple[ImagePrice, ...]:
    """Return the entries that may price a request for this size and quality; all of them if it names none."""
    sized = tuple(variant for variant in variants if variant.size == size) or variants
    return tuple(variant for variant in sized if variant.quality == quality) or sized


_COPIES = ("n", "num_images", "numberOfImages", "number_of_images", "sampleCount", "sample_count")
# The largest size of models that are priced by the pixel in any size: four megapixels.
_LARGEST = (2048, 2048)
_MEGAPIXEL = 1_048_576
# Providers whose image models LiteLLM bills by tokens if an entry has a price for them.
_BY_TOKENS = frozenset({"gemini", "vertex_ai", "vertex_ai_beta", "azure_ai"})
# OpenAI, "Image generation", cost and latency: tokens by quality of a square, portrait and landscape image.
_DOCUMENTED = re.compile(r"gpt-image-1(?:-mini|\.5)?(?:-\d{4}-\d\d-\d\d)?$")
_SIZES = ((1024, 1024), (1024, 1536), (1536, 1024))
_OPENAI = {"low": (272, 408, 400), "medium": (1056, 1584, 1568), "high": (4160, 6240, 6208)}
# Same page: a partial image takes 100 tokens. An input image takes 65 and 129 for each of at most 8 tiles. High
# fidelity adds up to 6,240.
_PARTIAL = 100
_INPUT_IMAGE = 65 + 8 * 129 + 6240
# The tokens of OpenAI's later models for 3840x2160 in high quality, and of Google's for 4K.
_UNKNOWN_OPENAI = 14_000
_UNKNOWN = 2520
_BESIDE = 4096
"""Text and thoughts in addition to an image, if a model writes any."""
_LEAST = 272


def estimate(request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """Return the number of images times the highest price for the requested size and quality, or for any if they are
    not stated. A lost answer is charged in full at the lowest price, because images are made even if the answer is
    lost.
    """
    images = _Images(request, sheet)
    if images.openai and images.prices_tokens:
        cost = images.by_tokens()
    else:
        cost = images.by_piece()
        if images.prices_tokens:
            cost = _either(cost, images.by_tokens())
    return cost.estimate(replace(sheet, priced=sheet.priced or images.variants_priced), options)


def _either(first: UnitCost, second: UnitCost) -> UnitCost:
    """Combine both prices: LiteLLM takes the tokens if the answer reports any, else the pieces. The higher one is the
    bound.
    """
    floor = min((cost.floor for cost in (first, second) if cost.floor), default=0)
    dearer = second if second.most >= first.most else first
    certain = first.certain and second.certain
    return replace(dearer, floor=floor, certain=certain, tokens=second.tokens, floor_tokens=second.floor_tokens)


class _Images:
    """One request for images, read once."""

    def __init__(self, request: Request, sheet: PriceSheet) -> None:
        params = request.params
        parts = list(nested(params))
        self.sheet = sheet
        self.params = params
        self.copies = count_nested(params, *_COPIES) or 1
        # If two places differ, it is unknown which one the provider obeys. Then any size or quality may be made.
        sizes = {size for part in parts if (size := _size(part)) is not None}
        self.size = sizes.pop() if len(sizes) == 1 else None
        qualities = {quality.lower() for part in parts if isinstance(quality := part.get("quality"), str)}
        self.quality = qualities.pop() if len(qualities) == 1 and qualities != {"auto"} else None
        name = f"{sheet.provider}/{sheet.base}"
        self.variants = image_prices(sheet.base, sheet.provider)
        self.variants_priced = any(is_priced(_entry(variant), request.call_type) for variant in self.variants)
        self.openai = "gpt-image" in name.lower() and sheet.provider in ("openai", "azure")
        self.prices_tokens = sheet.priced and (self.openai or sheet.provider in _BY_TOKENS) and _prices_tokens(sheet)

    def by_piece(self) -> UnitCost:
        """Return images times the price of one."""
        # fal.ai takes the nearest size that it has a price for. The request does not show it.
        size = None if self.sheet.provider == "fal_ai" else self.size
        picked = chosen(self.variants, size, self.quality)
        prices = [self._price(_entry(variant), variant.size) for variant in picked]
        own = self.sheet.prices
        named = _split(self.sheet.key or "")
        sized = named[1].size if named else self.size
        # LiteLLM uses the model's own entry if there is none for the size and quality.
        met = any(variant.size == size and variant.quality in (None, self.quality) for variant in picked)
        if own and not met:
            prices.append(self._price(own, sized))
        open_size = bool(attos(own.get("output_cost_per_pixel")) and sized is None) and not self.variants
        floor = min((price for price in prices if price), default=0)
        most = self.copies * max(prices, default=0)
        return UnitCost(most, self.copies * floor, certain=not open_size, copies=self.copies)

    def _price(self, entry: Mapping[str, Any], size: tuple[int, int] | None) -> int:
        width, height = size or _LARGEST
        pixels = width * height
        if self.sheet.provider == "fal_ai":
            pixels = -(-pixels // _MEGAPIXEL) * _MEGAPIXEL
        by_pixel = dearest_of(entry, "input_cost_per_pixel", "output_cost_per_pixel")
        return scaled(max([by_pixel * pixels, *self._each(entry)]), self.sheet.factor)

    def _each(self, entry: Mapping[str, Any]) -> Iterator[int]:
        resolution = self.params.get("resolution")
        stated = attos(entry.get(f"output_cost_per_image_{resolution}")) if resolution is not None else None
        yield dearest_of(entry, "input_cost_per_image")
        if stated is not None:
            yield stated
            return
        for name in entry:
            if name.startswith("output_cost_per_image") and "token" not in name:
                yield dearest_of(entry, name)

    def by_tokens(self) -> UnitCost:
        """Return the cost of the prompt, of the images in it, and of the tokens of each image that is made."""
        sheet, tier = self.sheet, self.sheet.tiers[-1]
        prompt = self.params.get("prompt")
        text = (byte_length(prompt) if isinstance(prompt, str) else 0) + _BESIDE // 16
        given = _given(self.params)
        each, least, certain = self._tokens_each()
        partial = count(self.params, "partial_images") or 0
        made = self.copies * (each + partial * _PARTIAL)
        writes = bool(sheet.rate("output_cost_per_token"))
        beside = _BESIDE * self.copies if writes else 0
        per_image = max(tier.output, sheet.rate("output_cost_per_image_token"))
        most = text * tier.text + given * _INPUT_IMAGE * tier.media + made * per_image + given * sheet.per_image
        most += beside * sheet.rate("output_cost_per_token", "output_cost_per_reasoning_token")
        floor_tokens = text // 4
        return UnitCost(
            most=most + (sheet.per_search if sheet.provider in ("gemini", "vertex_ai") else 0),
            floor=floor_tokens * tier.plain + self.copies * least * sheet.rate("output_cost_per_image_token"),
            certain=certain and not writes,
            copies=self.copies,
            per_byte=tier.text,
            tokens=text + given * _INPUT_IMAGE + made + beside,
            floor_tokens=floor_tokens,
        )

    def _tokens_each(self) -> tuple[int, int, bool]:
        """Return (most, least, whether it is documented) of one image, in tokens."""
        if not self.openai:
            return (_UNKNOWN_OPENAI if "gpt-image" in self.sheet.base else _UNKNOWN), _LEAST, False
        rows = [_OPENAI[self.quality]] if self.quality in _OPENAI else list(_OPENAI.values())
        if not _DOCUMENTED.search(self.sheet.base):
            return max(_UNKNOWN_OPENAI, *rows[0]), _LEAST, False
        column = _SIZES.index(self.size) if self.size in _SIZES else None
        found = [row[column] for row in rows] if column is not None else [tokens for row in rows for tokens in row]
        return max(found), min(found), self.size is None or column is not None


def _entry(variant: ImagePrice) -> Mapping[str, Any]:
    import litellm

    entry = litellm.model_cost.get(variant.key)
    return entry if isinstance(entry, Mapping) else {}


def _prices_tokens(sheet: PriceSheet) -> bool:
    return dearest_of(sheet.prices, "output_cost_per_image_token", "output_cost_per_token") > 0


def _size(params: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = params.get("width"), params.get("height")
    if isinstance(width, int) and isinstance(height, int) and 0 < width < 10**6 and 0 < height < 10**6:
        return width, height
    return parse_size(params.get("size")) or parse_size(params.get("image_size"))


def _given(params: Mapping[str, Any]) -> int:
    images = params.get("image")
    found = len(images) if isinstance(images, (list, tuple)) else int(images is not None)
    return found + (params.get("mask") is not None)
