"""litellm-budget journal: shows the waiting charges, and delivers each once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from litellm_budget_plugin.manager.journal import Journal
from litellm_budget_plugin.stores.registry import open_store
from tests.cli.test_copy import run
from tests.stores.desk import calls_of, charge_of

URL = "sqlite:///ledger.db"


def _journal(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "litellm_budget_journal"), f"sqlite:///{tmp_path}/ledger.db")


def _calls(tmp_path: Path) -> int:
    with closing(open_store(f"sqlite:///{tmp_path}/ledger.db")) as store:
        return calls_of(store)


def test_an_empty_one_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "journal", URL)
    assert (done.returncode, done.stdout) == (0, f"nothing is waiting in {tmp_path}/litellm_budget_journal\n")


def test_it_shows_and_delivers_what_a_dead_process_left(tmp_path: Path) -> None:
    left = _journal(tmp_path)
    left.keep([charge_of("a"), charge_of("b")])
    lives = run(tmp_path, "journal", URL, "--deliver")
    assert ": 2 waiting, since 20" in lives.stdout and "(its process is running)" in lives.stdout
    assert _calls(tmp_path) == 0
    left.close()
    gone = run(tmp_path, "journal", URL)
    assert "(its process has ended)" in gone.stdout
    for _ in range(2):
        done = run(tmp_path, "journal", URL, "--deliver")
        assert done.returncode == 0 and "nothing is waiting" in done.stdout, done.stderr
        assert _calls(tmp_path) == 2


def test_what_was_set_aside_is_delivered_only_when_asked_for(tmp_path: Path) -> None:
    left = _journal(tmp_path)
    left.keep([charge_of("old"), charge_of("damaged")])
    left.close()
    [path] = (tmp_path / "litellm_budget_journal").iterdir()
    path.write_bytes(path.read_bytes().replace(b'"hold":"damaged"', b'"hold":"d"'))
    path.rename(f"{path}.aside")
    shown = run(tmp_path, "journal", URL, "--deliver")
    assert ": 1 waiting, since 20" in shown.stdout and ", 1 damaged (set aside)" in shown.stdout
    # --deliver opened the ledger, and charged nothing.
    assert _calls(tmp_path) == 0
    for _ in range(2):
        done = run(tmp_path, "journal", URL, "--aside")
        assert done.returncode == 0 and ": 0 waiting, 1 damaged (set aside)" in done.stdout, done.stderr
        assert _calls(tmp_path) == 1


def test_an_unknown_store_is_a_usage_error(tmp_path: Path) -> None:
    assert run(tmp_path, "journal", "env:NOWHERE").returncode == 2


def test_a_service_without_a_directory_is_a_usage_error(tmp_path: Path) -> None:
    done = run(tmp_path, "journal", URL, "--directory", "off")
    assert done.returncode == 2 and "name a directory" in done.stderr and "Traceback" not in done.stderr


def test_what_cannot_be_read_is_no_empty_journal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    left = _journal(tmp_path)
    left.keep([charge_of("a")])
    [path] = (tmp_path / "litellm_budget_journal").iterdir()
    Path(f"{path}.aside").mkdir()
    for arguments in ((), ("--directory", "file")):
        done = run(tmp_path, "journal", URL, *arguments)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert "irectory" in done.stderr and "Traceback" not in done.stderr
    left.close()


def test_a_store_that_does_not_answer_leaves_everything_where_it_was(tmp_path: Path) -> None:
    """The message says so, and does not mention refused calls."""
    left = _journal(tmp_path)
    left.keep([charge_of("a"), charge_of("b")])
    left.close()
    assert _calls(tmp_path) == 0
    program = (
        "import sys\n"
        "from litellm_budget_plugin.cli import ledgers, main\n"
        "ledgers._TIMEOUT = 0.2\n"
        f"sys.argv = ['litellm-budget', 'journal', '{URL}', '--deliver']\n"
        "main()\n"
    )
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1 and "kept it locked" in done.stderr.splitlines()[-1]
    assert "calls are refused" not in done.stderr and "Traceback" not in done.stderr
    assert ": 2 waiting" in run(tmp_path, "journal", URL).stdout
    assert "nothing is waiting" in run(tmp_path, "journal", URL, "--deliver").stdout and _calls(tmp_path) == 2
