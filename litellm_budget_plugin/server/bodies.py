"""JSON in and out."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.server.failures import Problem


async def json_body(request: Request) -> dict[str, Any]:
    """The object that a request brings. Raises Problem and BudgetInputError."""
    return (await raw_and_json_body(request))[1]


async def raw_and_json_body(request: Request) -> tuple[bytes, dict[str, Any]]:
    """The same, and the bytes that say it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also: a page of another site cannot send this type without being asked for permission first.
        raise Problem(415, "the body must be application/json")
    try:
        raw = await request.body()
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is not JSON: {error!s:.200}") from None
    if not isinstance(body, dict):
        raise BudgetInputError("the body must be an object")
    return raw, body


def as_json(content: object) -> Response:
    """A good answer."""
    return Response(json.dumps(content, separators=(",", ":")), media_type="application/json")
