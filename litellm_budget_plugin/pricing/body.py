"""The body that LiteLLM is about to send, compared with what was held for."""

from __future__ import annotations

import json
from typing import Any

from litellm_budget_plugin.pricing.arguments import is_free
from litellm_budget_plugin.pricing.scan import Scan, scan
from litellm_budget_plugin.pricing.values import Covered

# Names of the versions, models and options of an API that stand beside the text.
_OPTIONS = 512


def scan_body(body: object) -> Scan:
    """What a body holds, in any provider's format: a dictionary, its JSON as text or bytes, or anything."""
    return scan(_parsed(body), skip=is_free)


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
