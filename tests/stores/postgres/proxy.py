"""A proxy on a Unix socket, which loses a server's answer when it is told to."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from contextlib import suppress

_NAME = ".s.PGSQL.5432"


class Proxy:
    """Stands in front of the server whose socket is in a folder; its own is in `folder`."""

    def __init__(self, server_folder: str) -> None:
        self._server = f"{server_folder}/{_NAME}"
        self.folder = tempfile.mkdtemp(prefix="ledger-proxy-")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(f"{self.folder}/{_NAME}")
        self._listening.listen(50)
        self._lose = self._lost = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answers(self, count: int) -> None:
        """Forward the next `count` requests, wait for their answers, and close their connections instead of giving them."""
        with self._lock:
            self._lose = count

    @property
    def lost(self) -> int:
        """How many answers were lost."""
        return self._lost

    def close(self) -> None:
        """Accept nobody any more."""
        self._listening.close()
        os.unlink(f"{self.folder}/{_NAME}")
        os.rmdir(self.folder)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                cut = threading.Event()
                threading.Thread(target=self._forward, args=(client, server, cut), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client, cut), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                with self._lock:
                    # Only what executes something: not the packets with which a connection begins.
                    if self._lose and (b"reserve_v1" in data or b"settle_v1" in data):
                        self._lose -= 1
                        cut.set()
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if cut.is_set():
                    self._lost += 1
                    break
                client.sendall(data)
        for side in (client, server):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()
