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
    from litellm_budget_plugin.metrics.server import ServerMetrics

_logger = logging.getLogger("litellm_budget_plugin")
_choosing = threading.Lock()
_chosen: CollectorRegistry | None = None


def use_registry(registry: CollectorRegistry) -> None:
    """Have the ledgers that are opened from now on show their metrics in `registry` instead of prometheus_client's own."""
    global _chosen
    with _choosing:
        _chosen = registry


def server_metrics() -> ServerMetrics | None:
    """The metrics of a server's worker, in a registry of its own; None where prometheus-client cannot be imported."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        return None
    from litellm_budget_plugin.metrics.server import ServerMetrics

    return ServerMetrics()


def of_project(exposition: bytes, project: str) -> bytes:
    """The lines of an exposition that are not of another project."""
    escaped = project.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    own, any_project = f'project="{escaped}"'.encode(), b'project="'
    lines = exposition.split(b"\n")
    return b"\n".join(line for line in lines if line.startswith(b"#") or any_project not in line or own in line)


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
