"""/healthz and /readyz: whether the process lives, and whether its store answers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from litellm_budget_plugin.core.commands import Read
from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.server.site import Site
from litellm_budget_plugin.stores.protocol import ask

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process lives")
async def healthz() -> Response:
    """Always 200."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", summary="The store answers", responses={503: {"description": "It does not."}})
async def readyz(request: Request) -> Response:
    """200 if a question to the store was answered just now, else 503."""
    ledger = Site.of(request).ledger
    try:
        await ledger.run(ask, ledger.store, Read("litellm-budget:ready", "probe", ""))
    except BudgetError:
        return JSONResponse({"status": "unavailable"}, 503)
    return JSONResponse({"status": "ok"})
