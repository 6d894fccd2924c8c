"""/healthz and /readyz: whether the process lives, and whether its store answers. /metrics: what it has done, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.metrics import of_project
from litellm_budget_plugin.server import schemas
from litellm_budget_plugin.server.failures import Problem
from litellm_budget_plugin.server.site import Site

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process lives")
async def healthz() -> Response:
    """Always 200."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", summary="The store answers", responses=schemas.READY)
async def readyz(request: Request) -> Response:
    """200 if a question to the store was answered just now, else 503."""
    try:
        await Site.of(request).ledger.probe()
    except BudgetError:
        return JSONResponse({"status": "unavailable"}, 503)
    return JSONResponse({"status": "ok"})


@router.get("/metrics", summary="Prometheus metrics", responses=schemas.METRICS)
async def metrics(request: Request) -> Response:
    """Those of the key's project; on a server without keys or with --open-metrics, of all projects."""
    site = Site.of(request)
    project = None
    if not site.ledger.options.open_metrics:
        project = (await site.door.caller(request)).project
    shown = site.ledger.metrics
    if shown is None:
        raise Problem(404, "prometheus-client is not installed here: pip install 'litellm-budget-plugin[metrics]'")
    text, content_type = await run_in_threadpool(shown.exposition, request.headers.get("accept"))
    if project is not None:
        text = await run_in_threadpool(of_project, text, project)
    return Response(text, media_type=content_type)
