"""A proxy on a Unix socket, in front of a PostgreSQL server on another one."""

from __future__ import annotations

import os
import socket
import tempfile

from tests.stores.proxy import Proxy

_NAME = ".s.PGSQL.5432"


class PostgresProxy(Proxy):
    """A proxy to the server whose socket is in a folder; its own socket is in `folder`."""

    def __init__(self, server_folder: str) -> None:
        self.folder = tempfile.mkdtemp(prefix="ledger-proxy-")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(f"{self.folder}/{_NAME}")
        listening.listen(50)

        def connect() -> socket.socket:
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{server_folder}/{_NAME}")
            return server

        super().__init__(listening, connect, lambda data: b"INTO " in data or b"COMMIT" in data)

    def close(self) -> None:
        super().close()
        os.unlink(f"{self.folder}/{_NAME}")
        os.rmdir(self.folder)
