"""The self-hosted endpoint (`litellm-budget serve`, one worker) on loopback: commands a second for each second of the server's
processor time, against the same server's /healthz, which asks nothing; latency at half of its load; and how its memory grows.
Every request carries a key. The load comes from another process on the same machine.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from socket import socket

from benchmarks import load
from benchmarks.report import Row, duration
from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import Reserve, Settle
from litellm_budget_plugin.server.keys import create_key
from litellm_budget_plugin.stores.registry import open_store

CONNECTIONS = 16
COUNT = 10_000
GROWTH = 200_000
USERS = 100
AIM = 0.5
AIM_MIB = 20
MISSED = (
    "FastAPI and uvicorn take some 90 us of processor time for a request, reading, checking and answering a command another 60, "
    "and SQLite itself 75 to 100. The p99 is the second's sync and the shortening of SQLite's log."
)
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Server:
    """`litellm-budget serve` with its own file."""

    def __init__(self) -> None:
        url = f"sqlite:///{Path.cwd()}/served.db"
        store = open_store(url)
        self.key = create_key(store, "benchmark")[1]
        store.close()
        with socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        command = [sys.executable, "-m", "litellm_budget_plugin", "serve", url, "--port", str(self.port), "--rate", "0"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz")
                return
            except OSError:
                time.sleep(0.05)

    def processor_seconds(self) -> float:
        """Return the processor time in seconds that the server has used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def mebibytes(self) -> float:
        """Return the server's resident memory in MiB."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait()


class Commands:
    """Requests that reserve and settle in turn, for one user after the other."""

    def __init__(self, key: str, name: str) -> None:
        self._key, self._name, self._numbers = key, name, itertools.count()

    def __call__(self) -> bytes:
        number = next(self._numbers)
        subjects = (Subject("user", f"user-{number // 2 % USERS:03}"), Subject("project", "benchmark"))
        hold, defaults = f"{self._name}-{number // 2}", (Default("user", "1d", 10**15),)
        command = (
            Settle(hold, "benchmark", subjects, ("gpt-4o",), 1000, "gpt-4o", 100, 50, defaults=defaults)
            if number % 2
            else Reserve(hold, "benchmark", subjects, ("gpt-4o",), Amounts(2000, 1, 200), 120_000_000, defaults)
        )
        return load.request("POST", "/v1/command", self._key, wire.dumps(command).encode())


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    server = Server()
    try:
        return _rows(server)
    finally:
        server.stop()


def _rows(server: Server) -> list[Row]:
    port, commands = server.port, Commands(server.key, "a")
    empty = load.request("GET", "/healthz", server.key)
    load.closed(port, commands, CONNECTIONS, COUNT // 2)
    rates: dict[str, list[float]] = {"command": [], "empty": []}
    fastest = 0.0
    for _ in range(3):
        for what, make in (("command", commands), ("empty", lambda: empty)):
            before = server.processor_seconds()
            found = load.closed(port, make, CONNECTIONS, COUNT)
            rates[what].append(found.answered / (server.processor_seconds() - before))
            fastest = max(fastest, found.answered / found.elapsed if what == "command" else 0.0)
    command, bare = (sorted(rates[what])[1] for what in ("command", "empty"))
    half = load.paced(port, commands, CONNECTIONS, COUNT, fastest / 2)
    alone = load.closed(port, commands, 1, COUNT // 5)
    before = server.mebibytes()
    load.closed(port, commands, CONNECTIONS, GROWTH)
    grown = server.mebibytes() - before
    return [
        Row("commands for each second of the server's processor", f"{command:,.0f}", f"{bare:,.0f} GET /healthz",
            f"{command / bare:.2f}x", f">= {AIM}x", command / bare >= AIM),
        Row(f"p99 at half load ({fastest / 2:,.0f} commands a second)", duration(half.percentile(0.99)),
            f"{duration(alone.percentile(0.5))} median, one connection", f"{half.percentile(0.99) / alone.percentile(0.5):.1f}x"),
        Row(f"memory after {GROWTH:,} commands more", f"{grown:+.1f} MiB", f"{before:.0f} MiB after warming up", "-",
            f"< {AIM_MIB} MiB", grown < AIM_MIB),
    ]  # fmt: skip


if __name__ == "__main__":
    print(json.dumps([row.cells() for row in run()], indent=1))
