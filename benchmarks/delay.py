"""A simulated network between a client and a server on this machine. It delays the data that the client sends."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from multiprocessing import get_context
from typing import Any

_SPAWNING = get_context("spawn")


class DelayingProxy:
    """A proxy that listens on the Unix socket `path`, and forwards to the socket `server` after `seconds`. It runs in its own process, so
    that it does not share an interpreter with the measured code.
    """

    def __init__(self, path: str, server: str, seconds: float) -> None:
        self._questions = _SPAWNING.Value("q", 0)
        ready = _SPAWNING.Event()
        self._process = _SPAWNING.Process(
            target=_serve, args=(path, server, seconds, self._questions, ready), daemon=True
        )
        self._process.start()
        ready.wait()

    @property
    def questions(self) -> int:
        """The number of times that a client has sent data."""
        return int(self._questions.value)

    def close(self) -> None:
        """Stop the proxy, which cuts every connection."""
        self._process.kill()
        self._process.join()


def _serve(path: str, server: str, seconds: float, questions: Any, ready: Any) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(64)
    ready.set()
    while True:
        client, _ = listening.accept()
        upstream = socket.socket(socket.AF_UNIX)
        upstream.connect(server)
        threading.Thread(target=_forward, args=(client, upstream, seconds, questions), daemon=True).start()
        threading.Thread(target=_forward, args=(upstream, client, 0.0, None), daemon=True).start()


def _forward(source: socket.socket, target: socket.socket, seconds: float, questions: Any) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 20):
            if seconds:
                time.sleep(seconds)
            if questions is not None:
                with questions.get_lock():
                    questions.value += 1
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
