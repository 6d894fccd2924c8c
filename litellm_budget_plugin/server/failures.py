"""Errors as HTTP responses: a status, and an object with `error`, a word for programs, and `message`, a text for people."""

from __future__ import annotations

import logging
import math

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from litellm_budget_plugin.errors import BudgetError, BudgetInputError, BudgetStoreUnavailable
from litellm_budget_plugin.server.limits import BodyRefused

_logger = logging.getLogger("litellm_budget_plugin.server")

_WORDS = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_media_type",
    422: "bad_input",
    429: "too_many",
    500: "internal",
    503: "unavailable",
}


class Problem(Exception):
    """A request that is not served. `retry_after` is in seconds. `allow` lists the allowed methods, for status 405."""

    def __init__(self, status: int, message: str, retry_after: float | None = None, allow: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after
        self.allow = allow


def problem_of(error: Exception) -> Problem:
    """Return the problem that tells the client about an error. An error that was not raised on purpose is logged, and its text
    is not sent.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, BodyRefused):
        return Problem(error.status, error.message)
    if isinstance(error, BudgetInputError):
        return Problem(422, str(error))
    if isinstance(error, BudgetStoreUnavailable):
        _logger.error("the store does not answer: %s", error)
        # The message may contain the store's address, which belongs in this server's log only.
        return Problem(503, "the ledger's store did not answer in time; send the request again", retry_after=1.0)
    if isinstance(error, BudgetError):
        _logger.error("the store cannot serve: %s", error)
        return Problem(
            503, "the ledger's store cannot serve until it is repaired; see the server's log", retry_after=5.0
        )
    _logger.error("a request failed", exc_info=error)
    return Problem(500, "the server failed at this; see its log")


def word_of(status: int) -> str:
    """Return the word for programs."""
    return _WORDS.get(status, "error")


def headers_of(problem: Problem) -> dict[str, str]:
    """Return the headers that go with a problem."""
    headers = {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if problem.allow is not None:
        headers["Allow"] = problem.allow
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
    if problem.status in (408, 413):
        # The rest of the body is not read.
        headers["Connection"] = "close"
    return headers


def as_json(request: Request, error: Exception) -> Response:  # noqa: ARG001  # Starlette's form of a handler
    """Return the response for a program."""
    problem = problem_of(error)
    body = {"error": word_of(problem.status), "message": problem.message}
    return JSONResponse(body, problem.status, headers_of(problem))
