"""Prometheus metrics, where `prometheus-client` is installed (extra `metrics`). Nothing here imports it before it is needed.

What happens in this process is told by `manager.observing`; a server tells its own through `metrics.server.ServerMetrics`.
Both show the families of `metrics.families`, in dollars and seconds.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from litellm_budget_plugin.metrics.process import ProcessMetrics

_logger = logging.getLogger("litellm_budget_plugin")
_choosing = threading.Lock()
_chosen: CollectorRegistry | None = None


def use_registry(registry: CollectorRegistry) -> None:
    """Have the ledgers that are opened from now on show their metrics in `registry` instead of prometheus_client's own."""
    global _chosen
    with _choosing:
        _chosen = registry


def process_metrics() -> ProcessMetrics | None:
    """The metrics of this process in the chosen registry; None where prometheus-client cannot be imported, and where they
    cannot be shown: budgets hold without them.
    """
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return None
    from litellm_budget_plugin.metrics.process import ProcessMetrics

    with _choosing:
        try:
            return ProcessMetrics.in_registry(_chosen or REGISTRY)
        except (OSError, ValueError) as error:
            _logger.error("metrics cannot be shown: %s", error)
            return None
