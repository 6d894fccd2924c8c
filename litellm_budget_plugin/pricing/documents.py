"""OCR: the number of pages times the price of one."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from litellm_budget_plugin.pricing.price_sheet import PriceSheet
from litellm_budget_plugin.pricing.unit_estimate import UnitCost
from litellm_budget_plugin.pricing.values import Estimate, Options, Request

_ANNOTATIONS = ("document_annotation_format", "bbox_annotation_format")
_PLAIN_IMAGES = ("image/png", "image/jpeg", "image/jpg")
_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_COUNT = re.compile(rb"/Count\s+(\d{1,9})")
_OBJECTS = re.compile(rb"/ObjStm.{0,512}?stream\r?\n", re.DOTALL)
_UNPACKED_MOST = 1 << 26


def estimate(request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """Return pages times the price of one, plus the price of their annotation if one is asked for. The pages of a PDF
    inside the request are counted. An image is one page. The pages of a document given by URL or file id cannot be
    counted. A lost answer is charged the known pages, or one, because a document is read even if the answer is lost.
    """
    params = request.params
    pages = _pages(params)
    per_page = sheet.rate("ocr_cost_per_page")
    if any(params.get(name) for name in _ANNOTATIONS):
        # LiteLLM takes the price of a page if there is none for its annotation.
        per_page += sheet.rate("annotation_cost_per_page") or per_page
    # The number of credits for a page is not documented: at least one.
    credit = sheet.rate("ocr_cost_per_credit")
    cost = UnitCost(
        most=(pages or 1) * (per_page + credit),
        floor=(pages or 1) * (per_page + credit),
        known=pages is not None and not credit,
    )
    return cost.estimate(sheet, options)


def _pages(params: Mapping[str, Any]) -> int | None:
    asked = params.get("pages")
    if isinstance(asked, (list, tuple)) and asked:
        return len(asked)
    document = params.get("document")
    with suppress(ValueError):
        return _pages_in(document) if isinstance(document, Mapping) else None
    return None


def _pages_in(document: Mapping[str, Any]) -> int | None:
    for name in ("document_url", "image_url", "file"):
        source = document.get(name)
        if isinstance(source, Mapping):
            source = source.get("url")
        if isinstance(source, (bytes, bytearray)):
            return count_pages(bytes(source))
        if isinstance(source, str) and source.startswith("data:"):
            kind, _, data = source[5:].partition(",")
            if kind.startswith(_PLAIN_IMAGES):
                return 1
            if kind.startswith("application/pdf") and kind.endswith(";base64"):
                return count_pages(base64.b64decode(data))
    return None


def count_pages(pdf: bytes) -> int | None:
    """Return the pages of a PDF, counted by page objects and by page trees, whichever is larger; None if they cannot be
    seen.
    """
    if b"%PDF-" not in pdf[:1024] or b"/Encrypt" in pdf:
        return None
    parts = [pdf]
    left = _UNPACKED_MOST
    for found in _OBJECTS.finditer(pdf):
        unpacked = _unpack(pdf[found.end() : pdf.find(b"endstream", found.end())], left)
        if unpacked is None:
            return None
        left -= len(unpacked)
        parts.append(unpacked)
    objects = sum(len(_PAGE.findall(part)) for part in parts)
    trees = max((int(match) for part in parts for match in _COUNT.findall(part) if b"/Pages" in part), default=0)
    return max(objects, trees) or None


def _unpack(data: bytes, most: int) -> bytes | None:
    unpacker = zlib.decompressobj()
    with suppress(zlib.error):
        found = unpacker.decompress(data, most)
        return found if unpacker.eof else None
    return None
