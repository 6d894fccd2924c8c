"""An earlier version of the package, measured in the same run. It runs in its own process, from a git worktree:

git worktree add --detach ../0.1.0 017f537
BENCHMARK_EARLIER=../0.1.0 python -m benchmarks postgres
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import sys
from benchmarks import traffic
from benchmarks.rounds import each
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.stores.registry import open_store

store, held = open_store(sys.argv[1], timeout=30.0), []

def reserve(_):
    held.append(new_id())
    traffic.reserve(store, held[-1], "alice")

def settle(_):
    traffic.settle(store, held.pop(), "alice")

print("ready", flush=True)
for line in sys.stdin:
    what, count = line.split()
    print(each({"reserve": reserve, "settle": settle}[what], range(int(count))), flush=True)
"""


def worktree() -> Path | None:
    """Return the directory of the earlier version; None if none is given."""
    given = os.environ.get("BENCHMARK_EARLIER")
    return Path(given).resolve() if given else None


class Earlier:
    """A store of the earlier version, opened in its own process."""

    def __init__(self, directory: Path, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, url],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(directory)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._said() == "ready"

    def each(self, what: str, count: int) -> float:
        """Return the median seconds of `count` commands "reserve" or "settle" of one user."""
        assert self._process.stdin
        self._process.stdin.write(f"{what} {count}\n")
        self._process.stdin.flush()
        return float(self._said())

    def _said(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
