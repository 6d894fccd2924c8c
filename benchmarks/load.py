"""HTTP load from one process over several connections. Each sends its next request after the answer to the last one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple


class Load(NamedTuple):
    """The result of a load. `seconds` are the latencies of its requests."""

    answered: int
    elapsed: float
    seconds: list[float]

    def percentile(self, part: float) -> float:
        """Return the latency that this part (0 to 1) of the requests did not exceed."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if found:
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(body) >= length and self._answer is not None:
                self._buffer = body[length:]
                if not head.startswith(b"HTTP/1.1 200"):
                    self._answer.set_exception(RuntimeError(head.decode()))
                else:
                    self._answer.set_result(None)

    async def ask(self, request: bytes) -> None:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)  # type: ignore[attr-defined]
        await self._answer


def request(method: str, path: str, key: str, body: bytes = b"") -> bytes:
    """Return the bytes of an HTTP request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def closed(port: int, make: Callable[[], bytes], connections: int, count: int) -> Load:
    """Send `count` requests, as fast as they are answered."""
    return asyncio.run(_run(port, make, connections, count, 0.0))


def paced(port: int, make: Callable[[], bytes], connections: int, count: int, rate: float) -> Load:
    """Send `count` requests, `rate` per second, measuring latencies from the time when each was due."""
    return asyncio.run(_run(port, make, connections, count, rate))


async def _run(port: int, make: Callable[[], bytes], connections: int, count: int, rate: float) -> Load:
    loop, left, seconds = asyncio.get_running_loop(), count, list[float]()
    opened = [(await loop.create_connection(_Connection, "127.0.0.1", port))[1] for _ in range(connections)]
    began, sent = time.perf_counter(), 0

    async def work(connection: _Connection) -> None:
        nonlocal left, sent
        while left > 0:
            left -= 1
            due = began + sent / rate if rate else time.perf_counter()
            sent += 1
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            await connection.ask(make())
            # Measured from when it was due, because the wait for a free connection counts as well.
            seconds.append(time.perf_counter() - due)

    await asyncio.gather(*(work(connection) for connection in opened))
    return Load(len(seconds), time.perf_counter() - began, seconds)
