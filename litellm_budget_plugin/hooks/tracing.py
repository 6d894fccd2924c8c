"""Attributes of a call on the OpenTelemetry span that LiteLLM would write to, too.

Nothing is imported, because an application that traces has imported OpenTelemetry itself. No attribute names a user,
because users are people.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin.core.money import usd_float

_logger = logging.getLogger("litellm_budget_plugin")
_PREFIX = "litellm_budget."
_COST = "gen_ai.usage.cost"
"""The name for the cost of a call, in US dollars, in OpenTelemetry's instrumentations of models."""


def span_for(params: Mapping[str, Any]) -> Any:
    """Return the span of a call with these arguments: the span that the LiteLLM proxy made for its request, else the
    current one.

    None if there is none that records.
    """
    trace: Any = sys.modules.get("opentelemetry.trace")
    # Another thread may be importing it right now: LiteLLM does so in its first call.
    if not hasattr(trace, "Span") or not hasattr(trace, "get_current_span"):
        return None
    try:
        span = _span_of_request(trace, params) or trace.get_current_span()
        return span if span.is_recording() else None
    except Exception:
        _logger.exception("a span could not be found")
        return None


def _span_of_request(trace: Any, params: Mapping[str, Any]) -> Any:
    for name in ("metadata", "litellm_metadata"):
        metadata = params.get(name)
        given = metadata.get("litellm_parent_otel_span") if isinstance(metadata, Mapping) else None
        if isinstance(given, trace.Span):
            return given
    return None


def held(span: Any, project: str, hold: str, nanos: int) -> None:
    """Record that the attempt holds `nanos` nano-dollars."""
    _decided(span, project, hold, "granted", nanos, "", "")


def unheld(span: Any, project: str, hold: str, scope: str, reason: str) -> None:
    """Record that the attempt goes out without a hold, for the given reason."""
    _decided(span, project, hold, "unheld", 0, scope, reason)


def refused(span: Any, project: str, hold: str, scope: str, reason: str) -> None:
    """Record that the attempt was refused, with the scope and the reason of the refusal."""
    _decided(span, project, hold, "refused", 0, scope, reason)


def _decided(span: Any, project: str, hold: str, outcome: str, nanos: int, scope: str, reason: str) -> None:
    if span is None:
        return
    # All of them each time, because a span can have several calls and shows the last.
    _write(
        span,
        {
            "project": project,
            "hold": hold,
            "outcome": outcome,
            "reserved_usd": usd_float(nanos),
            "scope": scope,
            "reason": reason,
        },
    )


def settled(span: Any, nanos: int) -> None:
    """Record that the attempt has cost `nanos` nano-dollars."""
    if span is not None:
        _write(span, {"cost_usd": usd_float(nanos)})
        _write(span, {_COST: usd_float(nanos)}, prefix="")


def _write(span: Any, attributes: Mapping[str, str | float], prefix: str = _PREFIX) -> None:
    try:
        if span.is_recording():
            span.set_attributes({prefix + name: value for name, value in attributes.items()})
    except Exception:
        # The span is not ours: whatever it raises must not affect the call's money.
        _logger.exception("a span could not be written to")
