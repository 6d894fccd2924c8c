"""JSON in and out. The event loop reads and writes small texts only: work on a large one would keep every command waiting."""

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
"""Bytes of a body that the loop reads by itself: a usual command has 500."""
_MOST_VALUES = 400_000
"""Values in a body. json.loads does not let other threads run: 4 MiB of "[],[],..." would take 0.2 s."""


async def understood(request: Request, understand: Callable[[bytes, dict[str, Any]], T]) -> T:
    """The result of `understand`, called with a request's body as bytes and as a JSON object; on a thread if the body is large.
    Raises Problem, BudgetInputError and what `understand` raises.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also: a page of another site cannot send this type without being asked for permission first.
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
    """A good answer. For a long one, call it on a thread."""
    return Response(json.dumps(content, separators=(",", ":")), media_type="application/json")


async def streamed(
    ledger: ServedLedger, pieces: Iterator[str], kind: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A long answer. A thread makes one piece after the other as the client takes them. An error of the first piece is answered as
    such; an error of a later one breaks the answer off, so that the client does not take it for whole.
    """
    first = await ledger.run(next, pieces, "")
    rest = chain([first], pieces)

    async def text() -> AsyncIterator[str]:
        while (piece := await ledger.run(next, rest, None)) is not None:
            yield piece

    return StreamingResponse(text(), media_type=kind, headers=headers)
