"""`litellm-budget serve` in its own process, on a port that stays the same when the process is killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from litellm_budget_plugin.server.keys import Access, create_key, revoke_key
from litellm_budget_plugin.stores.registry import open_store
from tests.stores.processes import die_with_the_parent

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """A server on the ledger `store_url`. `options` are those of the command. Its log is in `log`, a file in `directory`."""

    def __init__(self, directory: Path, *options: str, store_url: str | None = None) -> None:
        self.directory, self.options, self.port = directory, options, free_port()
        self.store_url = store_url or f"sqlite:///{directory}/served.db"
        self.log = directory / f"server-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def base(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    def url(self, key: str = "") -> str:
        """Return the URL of a store for clients with this key."""
        return f"http://:{key}@127.0.0.1:{self.port}" if key else self.base

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        command = [sys.executable, "-m", "litellm_budget_plugin", "serve", self.store_url, "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--rate", "0", *self.options], cwd=self.directory, stderr=log, preexec_fn=die_with_the_parent,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"{self.base}/readyz", timeout=PATIENCE):
                    return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(self.log.read_text()) from error
                time.sleep(0.02)

    @property
    def pid(self) -> int:
        """The number of the (first) process."""
        assert self._process
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process without letting it clean up."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        """End the process in order. Return its exit status."""
        assert self._process
        self._process.terminate()
        return self._process.wait(PATIENCE)

    def create_key(self, project: str, access: Access = "read-write") -> str:
        """Make a key in the ledger, without the server."""
        store = open_store(self.store_url, timeout=PATIENCE)
        try:
            return create_key(store, project, access)[1]
        finally:
            store.close()

    def revoke(self, key: str) -> None:
        """Revoke a key in the ledger, without the server."""
        store = open_store(self.store_url, timeout=PATIENCE)
        try:
            revoke_key(store, key)
        finally:
            store.close()
