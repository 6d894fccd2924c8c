"""/healthz and /readyz: whether the process lives, and whether its store answers. /metrics: the server's metrics for
Prometheus.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.metrics import of_project
from litellm_budget_plugin.server import schemas
from litellm_budget_plugin.server.failures import Problem
from litellm_budget_plugin.server.site import Site

if TYPE_CHECKING:
    from litellm_budget_plugin.metrics.server import ServerMetrics

_logger = logging.getLogger("litellm_budget_plugin.server")
_FORESEEN_SECONDS = 3600.0
_MOST_PROJECTS = 100

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process is alive")
async def healthz() -> Response:
    """Always 200."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", summary="The store answers", responses=schemas.READY)
async def readyz(request: Request) -> Response:
    """Return 200 if the store has just answered a query, else 503."""
    try:
        await Site.of(request).ledger.probe()
    except BudgetError:
        return JSONResponse({"status": "unavailable"}, 503)
    return JSONResponse({"status": "ok"})


@router.get("/metrics", summary="Prometheus metrics", responses=schemas.METRICS)
async def metrics(request: Request) -> Response:
    """Return the metrics of the key's project; on a server without keys or with --open-metrics, of all projects."""
    site = Site.of(request)
    project = None
    if not site.ledger.options.open_metrics:
        project = (await site.door.caller(request)).project
    shown = site.ledger.metrics
    if shown is None:
        raise Problem(404, "prometheus-client is not installed here: pip install 'litellm-budget-plugin[metrics]'")
    await _foresee(site, shown, project)
    text, content_type = await run_in_threadpool(shown.exposition, request.headers.get("accept"))
    if project is not None:
        text = await run_in_threadpool(of_project, text, project)
    return Response(text, media_type=content_type)


async def _foresee(site: Site, shown: ServerMetrics, project: str | None) -> None:
    """Publish when the budgets run out, of a project or of the first _MOST_PROJECTS, in forecasts that are at most an hour old."""
    now = time.monotonic()

    def projects() -> list[str]:
        return [project] if project is not None else site.ledger.store.projects()[:_MOST_PROJECTS]

    def forecast(name: str) -> None:
        found = site.ledger.budgets(name).forecast("project")
        shown.show_run_out(name, math.inf if found is None else found.runs_out_at.timestamp())

    try:
        for name in await site.ledger.run(projects):
            if now - site.foreseen.get(name, -_FORESEEN_SECONDS) >= _FORESEEN_SECONDS:
                await site.ledger.run(forecast, name)
                site.foreseen[name] = now
    except BudgetError as error:
        # The other metrics are served without the forecast.
        _logger.warning("no forecast for /metrics: %s", error)
