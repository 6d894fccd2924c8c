"""What a failed request may have cost, read from the exception that ended it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from enum import Enum

import httpx
import openai


class Outcome(Enum):
    """FREE: the provider refused the request or never got it. LOST: it may have been served, and billed. UNKNOWN: nothing
    in the exception tells; it came from this side of the connection.
    """

    FREE = "free"
    LOST = "lost"
    UNKNOWN = "unknown"


_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    ConnectionRefusedError,
)
_CUT_OFF = (httpx.TransportError, asyncio.TimeoutError, asyncio.CancelledError, TimeoutError, ConnectionError)


def outcome_of(error: BaseException) -> Outcome:
    """Whether a request that ended with `error` may have been served.

    LiteLLM's exception wraps the provider library's, and that the transport's. The chain is read from the outside in, up to
    the first link that decides; LiteLLM's own classes decide only where nothing below them does, for it gives the same
    ones to HTTP errors and to lost connections. An HTTP error status means that nothing was billed.
    """
    outcome = Outcome.UNKNOWN
    for link in _chain(error):
        own = type(link).__module__.startswith("litellm")
        if isinstance(link, httpx.HTTPStatusError) or (isinstance(link, openai.APIStatusError) and not own):
            return Outcome.FREE
        if isinstance(link, _NEVER_SENT):
            return Outcome.FREE
        if isinstance(link, _CUT_OFF):
            return Outcome.LOST
        if isinstance(link, openai.APITimeoutError if own else openai.APIConnectionError):
            outcome = Outcome.LOST
    return outcome


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
