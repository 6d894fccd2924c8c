"""A proxy on a port, in front of an HTTP server on another one."""

from __future__ import annotations

import socket

from tests.stores.proxy import Proxy


class HttpProxy(Proxy):
    """Listens on `port`, and forwards to a server's port on this machine."""

    def __init__(self, server_port: int) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = listening.getsockname()[1]
        # httpcore sends head and body separately.
        super().__init__(
            listening, lambda: socket.create_connection(("127.0.0.1", server_port)), lambda data: b"POST /v1/" in data
        )

    @property
    def url(self) -> str:
        """The endpoint behind it."""
        return f"http://127.0.0.1:{self.port}"
