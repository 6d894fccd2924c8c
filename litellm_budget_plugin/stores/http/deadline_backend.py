"""Connections that end every wait at the deadline of their request, even if the data arrives slowly.

httpcore's own time-outs are for each single read: a server that sends one byte a second would never time out.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any

import certifi
import httpcore

from litellm_budget_plugin.stores.net.background_connect import BackgroundConnect, ConnectAbandoned

_until = threading.local()


def set_deadline(deadline: float) -> None:
    """Set the deadline (time.monotonic) of this thread's request."""
    _until.deadline = deadline


def _left() -> float:
    left: float = _until.deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time limit has passed")
    return left


class _Wire(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002  # the deadline rules
        return self._stream.read(max_bytes, _left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, _left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        return _Wire(self._stream.start_tls(ssl_context, server_hostname, _left()))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class DeadlineBackend(httpcore.NetworkBackend):
    """A backend that opens connections within the deadline, which also bounds the resolution of the host's name."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Open a connection. Raises httpcore's errors."""
        seconds = _left()

        def dial() -> httpcore.NetworkStream:
            return self._backend.connect_tcp(host, port, seconds, local_address, socket_options)

        try:
            return _Wire(BackgroundConnect(dial, _hang_up).result(_until.deadline))
        except ConnectAbandoned as left:
            if isinstance(left.__cause__, TimeoutError):
                raise httpcore.ConnectTimeout("the connection could not be opened in time") from None
            raise left.__cause__ or left from None


def _hang_up(stream: httpcore.NetworkStream | None) -> None:
    if stream is not None:
        stream.close()


def trusted(ca: str | None) -> ssl.SSLContext:
    """The certificates against which a server's is checked: the system's and certifi's, or only those in the file `ca`."""
    if ca is not None:
        return ssl.create_default_context(cafile=ca)
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
