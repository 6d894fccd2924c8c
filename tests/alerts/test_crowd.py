"""Eight processes cross a threshold together: exactly one alert, or at most one more if its sender is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.alerts.receiver import Receiver
from tests.stores.engines import ENGINES

ROOT = Path(__file__).parents[2]
PROCESSES, CALLS = 8, 10


class Crowd:
    """Processes that make the calls of `tests.alerts.crowd` at the same time."""

    def __init__(self, url: str, receiver: Receiver, size: int, calls: int, deadly: Path | None = None) -> None:
        command = [sys.executable, "-m", "tests.alerts.crowd", str(size), url, receiver.url, str(calls)]
        command += [] if deadly is None else [str(deadly)]
        self._process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._line() == "here"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _tell(self) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def go(self) -> None:
        """Let them make their calls."""
        assert self._tell() == "here"

    def end(self) -> list[int]:
        """Let them end, and return their exit codes."""
        ends = json.loads(self._tell())
        self._process.communicate()
        assert self._process.returncode == 0
        return ends  # type: ignore[no-any-return]


@pytest.mark.parametrize("engine", ["sqlite", "redis", "postgres", "http"])
def test_one_alert_over_all_processes(engine: str, tmp_path: Path, receiver: Receiver) -> None:
    crowd = Crowd(ENGINES[engine](tmp_path), receiver, PROCESSES, CALLS)
    crowd.go()
    receiver.wait_for(1)
    assert crowd.end() == [0] * PROCESSES
    (request,) = receiver.requests
    assert request.json["kind"] == "threshold" and request.json["subject"] == "alice"
    assert request.json["threshold"] == 80 and request.json["limit"] == "1"


@pytest.mark.parametrize("engine", ["sqlite", "redis", "postgres"])
def test_senders_that_are_killed(engine: str, tmp_path: Path, receiver: Receiver) -> None:
    """One is killed before it sends, and one after it has sent. Another process, also a later one, sends the alert."""
    url, deadly = ENGINES[engine](tmp_path), tmp_path / "deadly"
    deadly.mkdir()
    crowd = Crowd(url, receiver, PROCESSES, CALLS, deadly)
    crowd.go()
    receiver.wait_for(2)
    assert crowd.end() == [-signal.SIGKILL] * 2 + [0] * (PROCESSES - 2)
    # A later process without calls finds nothing left to send.
    later = Crowd(url, receiver, 1, 0, deadly)
    later.go()
    assert later.end() == [0]
    assert len(receiver.requests) == 2 and len({request.json["id"] for request in receiver.requests}) == 1


def test_an_alert_survives_that_every_process_is_killed(tmp_path: Path, receiver: Receiver) -> None:
    url, deadly = ENGINES["sqlite"](tmp_path), tmp_path / "deadly"
    deadly.mkdir()
    (deadly / "after").touch()
    alone = Crowd(url, receiver, 1, 80, deadly)
    alone.go()
    assert alone.end() == [-signal.SIGKILL]
    assert receiver.requests == []
    # It makes no calls, so it finds the account by its scan.
    later = Crowd(url, receiver, 1, 0, deadly)
    later.go()
    receiver.wait_for(1)
    assert later.end() == [0]
    assert len(receiver.requests) == 1
