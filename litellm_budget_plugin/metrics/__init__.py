"""Prometheus metrics, if `prometheus-client` is installed (extra `metrics`). This module imports it only when it is needed.

`manager.observing` reports the events of this process; a server reports its own through `metrics.server.ServerMetrics`.
Both show the families of `metrics.families`, in dollars and seconds.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from litellm_budget_plugin.metrics.process import ProcessMetrics
    from litellm_budget_plugin.metrics.server import ServerMetrics

_logger = logging.getLogger("litellm_budget_plugin")
_choosing = threading.Lock()
_chosen: CollectorRegistry | None = None


def use_registry(registry: CollectorRegistry) -> None:
    """Show the metrics of ledgers that are opened from now on in `registry` instead of prometheus_client's own registry."""
    global _chosen
    with _choosing:
        _chosen = registry


def server_metrics() -> ServerMetrics | None:
    """Return the metrics of a server's worker, in their own registry; None if prometheus-client cannot be imported."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        return None
    from litellm_budget_plugin.metrics.server import ServerMetrics

    return ServerMetrics()


def of_project(exposition: bytes, project: str) -> bytes:
    """Return an exposition without the lines of other projects."""
    escaped = project.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    own, any_project = f'project="{escaped}"'.encode(), b'project="'
    lines = exposition.split(b"\n")
    return b"\n".join(line for line in lines if line.startswith(b"#") or any_project not in line or own in line)


def process_metrics() -> ProcessMetrics | None:
    """Return the metrics of this process in the chosen registry; None if prometheus-client cannot be imported, or if they cannot be
    shown, because budgets must work without them.
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
