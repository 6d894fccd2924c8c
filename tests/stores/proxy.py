"""A proxy in front of a server, which loses the server's answers on request. Each engine's tests choose its address."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Proxy:
    """A proxy from `listening` to the connections that `connect` opens. `executes` distinguishes packets with commands
    from packets that begin a connection.
    """

    def __init__(
        self, listening: socket.socket, connect: Callable[[], socket.socket], executes: Callable[[bytes], bool]
    ) -> None:
        self._listening, self._connect, self._executes = listening, connect, executes
        self._lock = threading.Lock()
        self._lose = 0
        self._trickled = b""
        self._ended = threading.Event()
        self.lost = self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answers(self, count: int) -> None:
        """Forward the next `count` commands, wait for their answers, and close their connections instead of returning the answers."""
        with self._lock:
            self._lose = count

    def trickle(self, part: bytes) -> None:
        """From now on, send this part of an answer repeatedly instead of any answer."""
        self._trickled = part

    def close(self) -> None:
        """Accept no more connections."""
        self._ended.set()
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.accepted += 1
                server = self._connect()
                cut = threading.Event()
                threading.Thread(target=self._forward, args=(client, server, cut), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client, cut), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                with self._lock:
                    if self._lose and self._executes(data):
                        self._lose -= 1
                        cut.set()
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                while self._trickled and not self._ended.wait(0.02):
                    client.sendall(self._trickled)
                if cut.is_set():
                    self.lost += 1
                    break
                client.sendall(data)
        for side in (client, server):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()
