"""litellm-budget copy: its output, its exit codes, and that it needs neither LiteLLM nor a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import PutBudget
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import open_store
from tests.stores.desk import account_of, charge_of

COMMAND = (sys.executable, "-m", "litellm_budget_plugin")


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Store]:
    """A ledger of two projects."""
    with closing(open_store(f"sqlite:///{tmp_path}/old.db")) as store:
        store.execute(charge_of("h", usd=2_000_000))
        store.execute(PutBudget("c", "größe", Subject("user", "alice"), limit=5))
        yield store


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONUTF8": "1", **environment},
    )


def test_it_copies_and_says_what(source: Store, tmp_path: Path) -> None:
    done = run(tmp_path, "copy", "sqlite:///old.db", "sqlite:///new.db")
    assert done.returncode == 0, done.stderr
    rows = (("größe", 2, 0, 0), ("p", 3, 1, 0.002))
    assert done.stdout == "".join(
        f"{project}: verified {number} rows (1 accounts, 0 open holds, 1 marks, {totals} totals), {number} of them written "
        f"now; the accounts sum to ${spent:.6f} spent, $0.000000 held\n"
        for project, number, totals, spent in rows
    )
    assert "p: copying, 1 rows" in done.stderr
    with closing(open_store(f"sqlite:///{tmp_path}/new.db")) as target:
        assert account_of(target).spent == 2_000_000
    again = run(tmp_path, "copy", "sqlite:///old.db", "sqlite:///new.db", "--project", "p")
    assert again.returncode == 0 and ", 0 of them written now" in again.stdout and "größe" not in again.stdout


def test_a_url_may_stand_in_a_variable(source: Store, tmp_path: Path) -> None:
    done = run(tmp_path, "copy", "env:OLD", "env:NEW", OLD="sqlite:///old.db", NEW="sqlite:///new.db")
    assert done.returncode == 0 and (tmp_path / "new.db").exists()


def test_what_fails_is_said_without_a_traceback(source: Store, tmp_path: Path) -> None:
    """The exit code is 1. With --replace, the rows of an earlier copy are updated."""
    arguments = ("copy", "sqlite:///old.db", "sqlite:///new.db")
    run(tmp_path, *arguments)
    source.execute(charge_of("h2"))
    done = run(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "Error: project 'p': the target holds 2 rows that differ in the source"
    )
    assert "Traceback" not in done.stderr
    assert run(tmp_path, *arguments, "--replace").returncode == 0
    lacking = run(tmp_path, *arguments, "--project", "x")
    assert (lacking.returncode, lacking.stderr) == (1, "Error: the source has no project 'x'; it has 'größe', 'p'\n")
    (tmp_path / "other.db").write_text("no database at all, but long enough to be one")
    broken = run(tmp_path, "copy", "sqlite:///old.db", "sqlite:///other.db")
    assert broken.returncode == 1 and "it is not a SQLite database" in broken.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'SOURCE'"),
        (("sqlite:///old.db", "memory://"), "ends with it"),
        (("sqlite:///old.db", "nosql://x"), "no store is called nosql://"),
        (("sqlite:///old.db", "env:NO_SUCH"), "'NO_SUCH' is not set"),
        (("sqlite:///old.db", "sqlite:///old.db"), "are the same"),
        (("sqlite:///old.db", "sqlite:///new.db", "--force"), "No such option"),
    ],
)
def test_bad_arguments_exit_with_2(source: Store, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(tmp_path, "copy", *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "new.db").exists() and not (tmp_path / "older.db").exists()


def test_a_source_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    done = run(tmp_path, "copy", "sqlite:///older.db", "sqlite:///new.db")
    assert done.returncode == 1 and "older.db; a service creates its own" in " ".join(done.stderr.split())
    assert not (tmp_path / "new.db").exists() and not (tmp_path / "older.db").exists()


def test_on_a_terminal_it_moves(source: Store, tmp_path: Path) -> None:
    """Standard error is the terminal; the lines of the result are not disturbed."""
    mine, theirs = pty.openpty()
    done = subprocess.run(
        [*COMMAND, "copy", "sqlite:///old.db", "sqlite:///new.db"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=60,
        check=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    seen = os.read(mine, 65536)
    os.close(mine)
    assert b"verifying" in seen and b"\x1b[" in seen
    assert len(done.stdout.splitlines()) == 2


def test_it_starts_without_litellm(source: Store, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['litellm'] = None\n"
        "from litellm_budget_plugin.cli import main\n"
        "sys.argv = ['litellm-budget', 'copy', 'sqlite:///old.db', 'sqlite:///new.db']\n"
        "main()\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)
