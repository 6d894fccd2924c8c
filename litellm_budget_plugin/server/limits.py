"""Limits that keep one client from harming the others: the size of bodies, their time to arrive, and the rate of requests."""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

ANONYMOUS_BODY = 4096
"""Bytes of a body that may be read before a valid key was seen: enough for the log-in."""
_BURST_SECONDS = 2.0
_MOST_BUCKETS = 10_000


class BodyRefused(Exception):
    """A body that is too large or too slow. `status` is the HTTP status for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class BodyLimits:
    """ASGI middleware: refuses a request's body of more than `most` bytes, or without a valid key of more than ANONYMOUS_BODY,
    and a body that does not arrive within `seconds`.
    """

    def __init__(self, app: App, most: int, seconds: float) -> None:
        self._app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        until, received, ended = anyio.current_time() + self._seconds, 0, False
        declared = dict(scope["headers"]).get(b"content-length", b"")
        # uvicorn refuses a length that is not a number.
        length = int(declared) if declared.isdigit() and len(declared) <= 15 else sys.maxsize if declared else 0

        async def bounded() -> Message:
            nonlocal received, ended
            if ended:
                return await receive()
            most = self._most if scope["state"].get("admitted") else ANONYMOUS_BODY
            if length <= most:
                with anyio.move_on_after(until - anyio.current_time()):
                    message = await receive()
                    received += len(message.get("body", b""))
                    ended = not message.get("more_body", False)
                    if received <= most:
                        return message
                if received <= most:
                    raise BodyRefused(408, f"the request's body did not arrive within {self._seconds:g} s")
            raise BodyRefused(413, f"a request's body may have at most {most} bytes")

        await self._app(scope, bounded, send)


class Buckets:
    """Rate limits by name: each name may ask `rate` times a second, with a burst of some seconds' worth or of `burst`. A rate
    of 0 is no limit.
    """

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._rate = rate
        self._most = rate * _BURST_SECONDS if burst is None else burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str, count: int = 1) -> float:
        """Return the seconds after which `who` may ask again; 0.0 if the request is allowed. A request with a larger `count`
        than what is left is allowed, and delays the next ones.
        """
        if not self._rate:
            return 0.0
        now = time.monotonic()
        left, at = self._left.pop(who, (self._most, now))
        left = min(self._most, left + (now - at) * self._rate)
        wait = 0.0
        if left >= 1.0:
            left -= count
        else:
            wait = (1.0 - left) / self._rate
        self._left[who] = (left, now)
        if len(self._left) > _MOST_BUCKETS:
            self._left.popitem(last=False)
        return wait
