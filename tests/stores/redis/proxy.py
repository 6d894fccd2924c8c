"""A proxy in front of a server, which loses the server's answers when it is told to."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class Proxy:
    """Listens on `port`, and forwards to a server's port on this machine."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._lock = threading.Lock()
        self._lose = 0
        self.trickles = False
        self.lost = self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answers(self, count: int) -> None:
        """Forward the next `count` scripts, wait for their answers, and close their connections instead of giving them."""
        with self._lock:
            self._lose = count

    def trickle(self) -> None:
        """From now on, begin an answer that does not end, a little at a time."""
        self.trickles = True

    def close(self) -> None:
        """Accept nobody any more."""
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.accepted += 1
                server = socket.create_connection(("127.0.0.1", self._server_port))
                cut = threading.Event()
                threading.Thread(target=self._forward, args=(client, server, cut), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client, cut), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                with self._lock:
                    if self._lose and b"EVAL" in data:
                        self._lose -= 1
                        cut.set()
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                while self.trickles:
                    client.sendall(b"*1\r\n")
                    time.sleep(0.02)
                if cut.is_set():
                    self.lost += 1
                    break
                client.sendall(data)
        for side in (client, server):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()
