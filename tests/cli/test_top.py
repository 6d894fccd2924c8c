"""litellm-budget top: its output, its quick end even on a slow ledger, and a terminal that is restored."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Settle
from litellm_budget_plugin.stores.protocol import Store, ask
from tests.cli.conftest import Command

Opened = Callable[[Command], Store]
PROGRAM = "from litellm_budget_plugin.cli import main\nmain()\n"
SLOW = (
    "import time\nfrom litellm_budget_plugin.cli import top\n"
    "def slow(ledger, scope, seen):\n    seen(12345)\n    time.sleep(60)\n    yield\n"
    "top.standings = slow\n"
)
AWAY = (
    "from litellm_budget_plugin.cli import top\nfrom litellm_budget_plugin.errors import BudgetStoreUnavailable\n"
    "def away(*_):\n    raise BudgetStoreUnavailable('the store is away')\n"
    "top.standings = away\n"
)


@pytest.fixture
def ledger(on_file: Command, opened: Opened) -> Command:
    """Alice has used 20 %, Bob 90 %, and Carol has no limit."""
    for name, limit in (("alice", "$10"), ("bob", "$2.20"), ("carol", "unlimited")):
        on_file.run("set", name, limit)
    for name in ("alice", "bob", "carol"):
        ask(opened(on_file), Settle(name, "p", (Subject("user", name),), ("m",), 2 * 10**9, "m"))
    return on_file


class Terminal:
    """A command on its own terminal."""

    def __init__(self, directory: Path, program: str, *arguments: str) -> None:
        self._mine, self._theirs = pty.openpty()
        self.before = termios.tcgetattr(self._theirs)
        code = f"import sys\nsys.argv = ['litellm-budget', *sys.argv[1:]]\n{program}"
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40", "PYTHONUTF8": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=directory, stdin=self._theirs, stdout=self._theirs, stderr=self._theirs, env=environment, start_new_session=True,
        )  # fmt: skip
        self.seen = ""

    def until(self, text: str, seconds: float = 30.0) -> None:
        """Read until the text appears."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end and self.process.poll() is None, self.seen
            if select.select([self._mine], [], [], 0.1)[0]:
                self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(self._mine, 65536).decode(errors="replace"))

    def press(self, keys: bytes) -> None:
        os.write(self._mine, keys)

    def end(self, seconds: float = 10.0) -> int:
        """Return its exit code. Its remaining output is read meanwhile."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError):
                if select.select([self._mine], [], [], 0.05)[0]:
                    self.seen += os.read(self._mine, 65536).decode(errors="replace")
        assert self.process.poll() is not None, "it goes on"
        assert termios.tcgetattr(self._theirs) == self.before, "the terminal is not as it was"
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._mine)
        os.close(self._theirs)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def start(program: str, *arguments: str) -> Terminal:
        made.append(Terminal(tmp_path, program, *arguments))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_it_shows_what_changes_until_q(ledger: Command, terminal: Callable[..., Terminal]) -> None:
    shown = terminal(PROGRAM, "top", "--interval", "0.1")
    shown.until("user:carol")
    assert (
        shown.seen.index("user:bob") < shown.seen.index("user:alice")
        and "3 subjects" in shown.seen
        and "█" in shown.seen
    )
    assert termios.tcgetattr(shown._theirs) != shown.before
    ledger.run("set", "dora", "$1")
    shown.until("user:dora")
    shown.press(b"xq")
    assert shown.end() == 0 and "Traceback" not in shown.seen


@pytest.mark.parametrize(
    ("program", "text"),
    [(SLOW + PROGRAM, "12,345 subjects so far"), (AWAY + PROGRAM, "the store is away")],
    ids=["slow", "away"],
)
@pytest.mark.parametrize("ends", ["q", "interrupt"])
def test_it_ends_at_once_whatever_the_ledger_does(
    program: str, text: str, ends: str, ledger: Command, terminal: Callable[..., Terminal]
) -> None:
    shown = terminal(program, "top")
    shown.until(text)
    begun = time.monotonic()
    if ends == "q":
        shown.press(b"q")
    else:
        os.kill(shown.process.pid, signal.SIGINT)
    assert shown.end() == (0 if ends == "q" else 1)
    assert time.monotonic() - begun < 8 and "Traceback" not in shown.seen


def test_elsewhere_one_reading_is_printed(on: Command, opened: Opened) -> None:
    on.run("set", "bob", "$2.20")
    on.run("set", "alice", "$10")
    for name in ("alice", "bob"):
        ask(opened(on), Settle(name, "p", (Subject("user", name), Subject("team", "t")), ("m",), 2 * 10**9, "m"))
    rows: list[dict[str, Any]] = on.rows("top")
    assert [row["subject"] for row in rows] == ["user:bob", "user:alice"]
    assert [row["subject"] for row in on.rows("top", "--rows", "1", "--scope", "user")] == ["user:bob"]
    assert on.run("top", "--scope", "run").stderr == "no subjects\n"
    lines = on.run("top", "--once").stdout.splitlines()
    assert len(lines) == 3 and "\x1b" not in "".join(lines)
