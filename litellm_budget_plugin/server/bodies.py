"""Read and write JSON bodies. The event loop handles small texts only, because work on a large one would delay every command."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import chain
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.server.failures import Problem
from litellm_budget_plugin.server.ledger import ServedLedger
from litellm_budget_plugin.server.site import Site

T = TypeVar("T")

_SMALL = 8 * 1024
"""Bytes of a body that the event loop parses itself. A usual command has 500."""
_MOST_VALUES = 400_000
"""The most values in a body. json.loads does not let other threads run: 4 MiB of "[],[],..." would take 0.2 s."""


async def understood(request: Request, understand: Callable[[bytes, dict[str, Any]], T]) -> T:
    """Return the result of `understand`, called with a request's body as bytes and as a JSON object; on a thread if the body is
    large. Raises Problem, BudgetInputError and what `understand` raises.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # This also protects from pages of other sites: a browser lets them send this type only after a CORS preflight.
        raise Problem(415, "the body must be application/json")
    raw = await request.body()
    Site.of(request).door.count_body(request, len(raw))
    if len(raw) <= _SMALL:
        return _understood(raw, understand)
    return await run_in_threadpool(_understood, raw, understand)


def _understood(raw: bytes, understand: Callable[[bytes, dict[str, Any]], T]) -> T:
    if len(raw) > _MOST_VALUES and sum(map(raw.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise Problem(413, f"a request's body may have at most {_MOST_VALUES} values")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is not JSON: {error!s:.200}") from None
    if not isinstance(body, dict):
        raise BudgetInputError("the body must be an object")
    return understand(raw, body)


def as_json(content: object) -> Response:
    """Return a successful response. For a long one, call this on a thread."""
    return Response(json.dumps(content, separators=(",", ":")), media_type="application/json")


async def streamed(
    ledger: ServedLedger, pieces: Iterator[str], kind: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a long response. A thread makes each piece when the client takes it. An error in the first piece is raised; an
    error in a later one aborts the response, so that the client does not take it as complete.
    """
    first = await ledger.run(next, pieces, "")
    rest = chain([first], pieces)

    async def text() -> AsyncIterator[str]:
        while (piece := await ledger.run(next, rest, None)) is not None:
            yield piece

    return StreamingResponse(text(), media_type=kind, headers=headers)
