"""Processes that tests start, race and kill. They import stores and core only.

python -m tests.stores.worker race URL ATTEMPTS     holds of 30 from alice's 1000; prints how many were granted
python -m tests.stores.worker kill PATH DIRECTORY WORKERS KILLS SEED
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
from itertools import count
from pathlib import Path

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import Granted, Reserve, Settle
from litellm_budget_plugin.stores.registry import open_store
from litellm_budget_plugin.stores.sqlite import connecting
from tests.stores.desk import hold_of

SUBJECTS = (Subject("user", "alice"), Subject("project", "p"))
DEFAULTS = (Default("user", "none", 10**15), Default("project", "none", 10**15))
HOUR = 3_600_000_000


def held(hold: str) -> Reserve:
    """A hold of 100 that expires in an hour."""
    return Reserve(hold, "p", SUBJECTS, ("m",), Amounts(100, 1, 10), HOUR, DEFAULTS)


def charged(hold: str) -> Settle:
    """A charge of 7."""
    return Settle(hold, "p", SUBJECTS, ("m",), 7, "m", defaults=DEFAULTS)


def race(url: str, attempts: int) -> None:
    """Wait for a line, open the store and hold `attempts` times."""
    print("ready", flush=True)
    sys.stdin.readline()
    store = open_store(url, timeout=30.0)
    replies = [store.execute(hold_of(f"{os.getpid()}-{number}", usd=30)) for number in range(attempts)]
    print(sum(isinstance(reply, Granted) for reply in replies), flush=True)


def serve(path: str, directory: Path, name: str, line: int) -> None:
    """Hold and settle without end. Attempted and acknowledged ids go to this worker's own files."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    attempted = os.open(directory / f"{name}.attempted", flags)
    acknowledged = os.open(directory / f"{name}.acknowledged", flags)
    # The log is copied into the database at nearly every sync, so that kills also happen during the copy.
    connecting.WAL_BYTES = 100_000
    store = open_store(f"sqlite:///{path}", timeout=30.0)
    for number in count():
        hold = f"{name}-{number}"
        if number % 3:
            store.execute(held(hold))
        os.write(attempted, f"{hold}\n".encode())
        store.execute(charged(hold))
        os.write(acknowledged, f"{hold}\n".encode())
        os.write(line, b".")
        if number % 10 == 9:
            store.sync()


class Gang:
    """Worker processes on one file, killed at random."""

    def __init__(self, path: str, directory: Path, seed: int) -> None:
        self._path, self._directory = path, directory
        self._dice = random.Random(seed)
        self._lines: dict[int, tuple[int, int]] = {}

    def start(self, worker: int, generation: int) -> None:
        """Start a worker, or its successor."""
        mine, theirs = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                serve(self._path, self._directory, f"w{worker}-{generation}", theirs)
            finally:
                os._exit(1)
        os.close(theirs)
        self._lines[worker] = (pid, mine)

    def end(self, worker: int) -> None:
        """Kill a worker after a random number of acknowledgements and a random delay."""
        pid, line = self._lines.pop(worker)
        for _ in range(self._dice.randrange(6)):
            if not select.select([line], [], [], 30.0)[0] or not os.read(line, 1):
                raise SystemExit("a worker does not work")
        for _ in range(self._dice.randrange(20_000)):
            pass
        os.kill(pid, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
            raise SystemExit("a worker ended before it was killed")
        os.close(line)

    def any(self) -> int:
        """One of the workers."""
        return self._dice.choice(sorted(self._lines))


def kill(path: str, directory: Path, workers: int, kills: int, seed: int) -> None:
    """Keep `workers` processes at work on one file until `kills` of them have been killed, the last ones all at once."""
    gang = Gang(path, directory, seed)
    for worker in range(workers):
        gang.start(worker, 0)
    for generation in range(1, kills + 1 - workers):
        worker = gang.any()
        gang.end(worker)
        gang.start(worker, generation)
    for worker in range(workers):
        gang.end(worker)


if __name__ == "__main__":
    if sys.argv[1] == "race":
        race(sys.argv[2], int(sys.argv[3]))
    else:
        kill(sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:7]))
