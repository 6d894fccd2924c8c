"""The body that LiteLLM is about to send, compared with what was held for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin.pricing.arguments import is_free
from litellm_budget_plugin.pricing.scan import Scan, scan
from litellm_budget_plugin.pricing.values import Covered

# Names of the versions, models and options of an API that stand beside the text.
_OPTIONS = 512


# Where a format has one place for its limits: elsewhere, or under another name, the provider obeys none.
_LIMITS_IN = {
    "generationConfig": ("maxOutputTokens", "max_output_tokens"),
    "generation_config": ("maxOutputTokens", "max_output_tokens"),
    "inferenceConfig": ("maxTokens",),
}


_OF_PROVIDER = {"ollama": {"options": ("num_predict",)}, "ollama_chat": {"options": ("num_predict",)}}


def scan_body(given: object, provider: str | None) -> tuple[Scan, bool]:
    """What a body holds, in any provider's format: a dictionary, its JSON as text or bytes, or anything; and whether it is a
    request that limits its output.
    """
    body: Any = _parsed(given)
    sent = scan(body, skip=is_free)
    limited = bool(sent.limit or sent.thinking or not sent.readable or not sent.text)
    for place, names in _OF_PROVIDER.get(provider or "", _LIMITS_IN).items() if isinstance(body, Mapping) else ():
        inside = body.get(place)
        if isinstance(inside, Mapping) or provider in _OF_PROVIDER:
            limited = isinstance(inside, Mapping) and any(inside.get(name) is not None for name in names)
    return sent, limited


def _parsed(body: object) -> Any:
    if isinstance(body, (bytes, bytearray)):
        body = bytes(body).decode("utf-8", "surrogateescape")
    if isinstance(body, str) and body.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return body
    return body


def covers(held: Covered, sent: Scan) -> bool:
    """Whether an estimate that counted this much covers the body."""
    if sent.text > held.text + _OPTIONS or sent.media > held.media or (sent.caches and not held.caches):
        return False
    if held.stated and sent.unlimited:
        return False
    # Where a limit is sent, a budget of tokens to think with lies inside it.
    limit = sent.limit or sent.thinking or held.limit
    return not held.choices or limit * sent.copies <= held.limit * held.choices
