"""The commands for budgets: their output on a terminal and in a pipe, their exit codes, and their effects on the ledger."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from litellm_budget_plugin.cli.app import app
from litellm_budget_plugin.core.accounts import Amounts, Subject
from litellm_budget_plugin.core.commands import Reserve, SetLimits, Settle
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.stores.protocol import Store, ask
from litellm_budget_plugin.stores.registry import open_store
from tests.cli.conftest import Command
from tests.cli.shells import Done, in_pipe, on_terminal

PROJECT = Subject("project", "p")
DOLLAR = 10**9


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a callback, for a ledger in a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITELLM_BUDGET_STORE_URL", "sqlite:///ledger.db")
    monkeypatch.setenv("LITELLM_BUDGET_PROJECT", "p")


def _fill(opened: Store) -> None:
    """Charge and hold for Alice: she has spent $2 of $10, in the team search and in the run 42."""
    alice = Subject("user", "alice")
    ask(opened, SetLimits("limits", "p", alice, parse_limits("$10 per month"), ()))
    subjects = (alice, Subject("team", "search"), Subject("run", "42"), PROJECT)
    for subject in subjects[1:3]:
        ask(opened, SetLimits(subject.id, "p", subject, parse_limits("$100"), ()))
    ask(opened, Settle("call", "p", subjects, ("m",), 2 * DOLLAR, "m"))


@pytest.fixture
def store(on: Command) -> Iterator[Store]:
    """A filled ledger on each engine."""
    with closing(open_store(on.url)) as opened:
        _fill(opened)
        yield opened


@pytest.fixture
def in_file(settings: None, tmp_path: Path) -> Iterator[Store]:
    """A filled ledger in a file."""
    with closing(open_store(f"sqlite:///{tmp_path}/ledger.db")) as opened:
        _fill(opened)
        yield opened


def run(directory: Path, *arguments: str) -> Done:
    """Run a command in this process."""
    done = CliRunner().invoke(app, arguments, prog_name="litellm-budget")
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return Done(done.exit_code, done.stdout, done.stderr)


def _rows(directory: Path, *arguments: str, code: int = 0) -> list[dict[str, object]]:
    done = run(directory, *arguments, "--json")
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# Each command with its output, which is the same on a terminal and in a pipe.
COMMANDS = [
    (("status",), "nobody is near a limit"),
    (("users",), "user:alice"),
    (("teams",), "team:search"),
    (("runs",), "run:42"),
    (("show", "alice"), "$10 per month"),
    (("set", "alice", "$20 per month", "100 calls/hour"), "100 calls per hour"),
    (("clear", "alice"), "user:alice"),
    (("raise", "alice", "$5", "--until", "2099-01-01"), "$13"),
    (("reset", "alice"), "$10"),
    (("block", "alice"), "yes"),
    (("unblock", "alice"), "no"),
    (("top-up", "alice", "$3", "--id", "invoice"), "$3"),
    (("refund", "earlier"), "earlier"),
    (("usage", "--by", "model"), "$2"),
    (("sweep",), "forgotten"),
    (("top", "--once"), "user:alice"),
    (("export", "-"), '"$10 per month@UTC"'),
    (("import", "in.jsonl"), "$4 per day@UTC"),
    (("check", "limits.toml"), "1 limit in 1 table"),
    (("completion", "bash"), "_litellm_budget_completion"),
    (("copy", "sqlite:///ledger.db", "sqlite:///new.db"), "verified"),
    (("journal", "sqlite:///ledger.db"), "nothing is waiting"),
    (("keys", "create", "sqlite:///ledger.db", "--project", "p"), "read-write for project 'p'"),
    (("keys", "list", "sqlite:///ledger.db"), "no keys"),
]


@pytest.mark.parametrize(("arguments", "said"), COMMANDS, ids=[arguments[0] for arguments, _ in COMMANDS])
def test_each_command_on_a_terminal_and_in_a_pipe(
    in_file: Store, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    run(tmp_path, "top-up", "carol", "$1", "--id", "earlier")
    (tmp_path / "in.jsonl").write_text('{"subject": "carol", "limits": ["$4 per day"]}')
    (tmp_path / "limits.toml").write_text('[user]\nlimits = "$1 per day"\n')
    code, seen, _ = on_terminal(tmp_path, *arguments)
    assert code == 0 and said in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen), seen
    (tmp_path / "in.jsonl").write_text('{"subject": "carol", "limits": ["$4 per day", "5 calls"]}')
    (tmp_path / "new.db").unlink(missing_ok=True)
    piped = in_pipe(tmp_path, *arguments)
    assert piped.returncode == 0 and said in piped.stdout + piped.stderr, piped
    assert "\x1b" not in piped.stdout + piped.stderr and "█" not in piped.stdout and "░" not in piped.stdout
    if arguments[0] not in ("completion", "export"):
        for row in _rows(tmp_path, *arguments):
            assert isinstance(row, dict)
    # Neither reading nor changing opens a journal.
    assert not (tmp_path / "litellm_budget_journal").exists()


@pytest.mark.parametrize("start", [on_terminal, in_pipe])
def test_a_key_is_revoked(start: Callable[..., Done], in_file: Store, tmp_path: Path) -> None:
    [made] = _rows(tmp_path, "keys", "create", "sqlite:///ledger.db", "--project", "p")
    done = start(tmp_path, "keys", "revoke", "sqlite:///ledger.db", str(made["id"]))
    assert done.returncode == 0 and f"revoked {made['id']}" in done.stdout and str(made["key"]) not in done.stdout
    assert _rows(tmp_path, "keys", "list", "sqlite:///ledger.db") == []


def test_a_terminal_shows_bars_and_colours(in_file: Store, tmp_path: Path) -> None:
    run(tmp_path, "set", "alice", "$2.40")
    code, seen, _ = on_terminal(tmp_path, "status")
    assert code == 1 and "██████████░░ 83%" in seen.replace("\x1b[0m", "") and "\x1b[33m" in seen, seen


@pytest.mark.parametrize(
    ("limit", "code"), [("$10", 0), ("$2.51", 0), ("$2.50", 1), ("$2.01", 1), ("$2", 2), ("$1", 2)]
)
def test_status_says_by_its_code_how_near_somebody_is(in_file: Store, tmp_path: Path, limit: str, code: int) -> None:
    run(tmp_path, "set", "alice", limit)
    assert [row["subject"] for row in _rows(tmp_path, "status", code=code)] == ["user:alice"] * (code > 0)


def test_held_money_counts(store: Store, tmp_path: Path) -> None:
    ask(store, Reserve("hold", "p", (Subject("user", "alice"),), ("m",), Amounts(8 * DOLLAR), 60_000_000))
    [row] = _rows(tmp_path, "status", code=2)
    assert (row["spent"], row["held"], row["left"], row["used"]) == ("2", "8", "0", 1.0)


def test_a_store_that_does_not_answer(settings: None, tmp_path: Path) -> None:
    """The exit code is 2 for status, 1 for the others; nothing listens at the address."""
    for command, code in (("status", 2), ("users", 1)):
        done = run(tmp_path, command, "--store", "redis://127.0.0.1:1/0")
        assert done.returncode == code and done.stderr.startswith("Error: ") and "Traceback" not in done.stderr


def test_what_is_changed_is_said_as_it_is_in_force(store: Store, tmp_path: Path) -> None:
    month, hour = _rows(tmp_path, "set", "alice", "$20/month", "100 calls/hour")  # the most used budget comes first
    assert (month["budget"], month["spent"], month["left"]) == ("$20 per month", "2", "18")
    assert (hour["budget"], hour["left"]) == ("100 calls per hour", 100)
    assert _rows(tmp_path, "raise", "alice", "$5", "--until", "2099-01-01T00:00Z")[0]["left"] == "23"
    assert _rows(tmp_path, "reset", "alice")[1]["left"] == "25"
    assert all(row["blocked"] for row in _rows(tmp_path, "block", "alice"))
    assert not any(row["blocked"] for row in _rows(tmp_path, "unblock", "alice"))
    [row] = _rows(tmp_path, "clear", "alice")
    assert row["left"] is None


def test_a_raise_says_how_much_and_until_when(in_file: Store, tmp_path: Path) -> None:
    [row] = _rows(tmp_path, "show", "alice")[:1]
    assert (row["limit"], row["raised"], row["raised_until"]) == ("10", None, None)
    done = run(tmp_path, "raise", "alice", "5", "--until", "2099-12-24")  # an amount without a sign is in dollars
    assert "raised_until" in done.stdout and "$5 " in done.stdout and "2099-12-24 00:00 UTC" in done.stdout
    for [row] in (
        _rows(tmp_path, "raise", "alice", "$5", "--until", "2099-12-24"),
        _rows(tmp_path, "show", "alice")[:1],
    ):
        assert (row["limit"], row["left"], row["raised"]) == ("15", "13", "5")
        assert row["raised_until"] == "2099-12-24T00:00:00+00:00"
    assert "raised" not in run(tmp_path, "raise", "alice", "0", "--until", "5d").stdout
    assert "raised" not in run(tmp_path, "users").stdout


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/Los_Angeles"])
def test_a_time_to_come_is_named_in_words(
    in_file: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_TIMEZONE", zone)

    def until(text: str) -> datetime:
        [row] = _rows(tmp_path, "raise", "alice", "$5", "--until", text)
        return datetime.fromisoformat(str(row["raised_until"])).astimezone(ZoneInfo(zone))

    before = datetime.now(ZoneInfo(zone))
    for hours, text in ((12, "12h"), (120, "5d")):
        assert (
            timedelta(0)
            <= until(text) - before.astimezone(timezone.utc) - timedelta(hours=hours)
            < timedelta(minutes=5)
        )
    for text in ("tomorrow", "Monday", "tuesday", "wednesday", "thursday", "FRIDAY", "saturday", "sunday"):
        found = until(text)
        assert (found.hour, found.minute) == (0, 0) and 0 < (found.date() - before.date()).days <= 8
        assert text == "tomorrow" or found.strftime("%A").lower() == text.lower()


def test_a_day_of_show_is_called_day(in_file: Store, tmp_path: Path) -> None:
    assert "key" not in (row := _rows(tmp_path, "show", "alice")[-1]) and len(str(row["day"])) == 10


def test_a_top_up_counts_once_and_is_taken_back_once(store: Store, tmp_path: Path) -> None:
    for _ in range(2):
        assert _rows(tmp_path, "top-up", "alice", "$3", "--id", "i1")[-1] == {"balance": "3"}
    assert _rows(tmp_path, "top-up", "alice", "0.000000001", "--id", "i2")[-1] == {"balance": "3.000000001"}
    for _ in range(2):
        [refunded] = _rows(tmp_path, "refund", "i1")
        assert refunded == {"refunded": "i1", "subject": "user:alice", "amount": "3", "balance": "0.000000001"}
    assert {"balance": "0.000000001"} in _rows(tmp_path, "show", "alice")


def test_limits_of_the_environment_count(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_TEAM_LIMITS", "$2.50 per day")
    run(tmp_path, "clear", "team:search")
    [row] = _rows(tmp_path, "show", "team:search")[:1]
    assert row["budget"] == "$2.50 per day"


def test_the_options_say_which_ledger(in_file: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This also holds if the settings are those of an endpoint."""
    assert _rows(tmp_path, "users", "--project", "other") == []
    monkeypatch.setenv("LITELLM_BUDGET_STORE_URL", "https://budgets.invalid")
    monkeypatch.setenv("LITELLM_BUDGET_API_KEY", "secret")
    monkeypatch.setenv("LEDGER", f"sqlite:///{tmp_path}/ledger.db")
    assert [row["subject"] for row in _rows(tmp_path, "users", "--store", "env:LEDGER")] == ["user:alice"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("set", "alice", "ten"), "'ten' is not a budget"),
        (("set", "alice"), "Missing argument 'SENTENCE...'"),
        (("set", "team:", "$1"), "team"),
        (("raise", "alice", "$5", "--until", "soon"), "--until: a time must be written like"),
        (("raise", "alice", "5 calls", "--until", "2099-01-01"), "an amount of US dollars"),
        (("top-up", "alice", "$5"), "Missing option '--id'"),
        (("top-up", "alice", "five", "--id", "x"), "an amount of US dollars like '$5' is expected, got 'five'"),
        (("raise", "alice", "$5 per day", "--until", "2099-01-01"), "an amount of US dollars like '$5' is expected"),
        (("raise", "alice", "$5", "--until", "2020-02-03"), "--until: 2020-02-03T00:00:00Z has passed"),
        (("raise", "alice", "$5", "--until", "0h"), "has passed"),
        (("refund", "nobody"), "no top-up 'nobody'"),
        (("usage", "--by", "hour"), "each at most once, got 'hour'"),
        (("usage", "--by", "user,team"), "no totals by user and team"),
        (("usage", "--days", "3", "--since", "2026-01-01"), "exclude each other"),
        (("usage", "--since", "2026-01-02", "--until", "2026-01-01"), "--since is after --until"),
        (("usage", "--format", "focus", "--by", "day"), "is by one of"),
        (("usage", "--provider", "OpenAI"), "--provider needs"),
        (("usage", "--since", "yesterday"), "a day is written like 2026-11-30, got 'yesterday'"),
        (("usage", "--by", "team", "--subject", "alice"), "a user has no totals by team"),
        (("usage", "--format", "csv", "--json"), "give one"),
        (("users", "--store", "memory://"), "memory:// ends with its process"),
        (("users", "--store", "nosql://x"), "no store is called nosql://"),
        (("users", "--store", "env:NO_SUCH"), "'NO_SUCH' is not set"),
        (("import", "in.jsonl", "--create", "--dry-run"), "exclude each other"),
        (("users", "--project", ""), "PROJECT: it must have 1 to 256"),
    ],
)
def test_a_mistake_is_said_without_a_traceback(
    in_file: Store, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = _rows(tmp_path, "show", "alice")
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "other.db").exists() and _rows(tmp_path, "show", "alice") == before


def test_who_is_blocked_and_was_never_charged_is_said(store: Store, tmp_path: Path) -> None:
    ask(
        store, Settle("nobody's", "p", (Subject("team", "counted"),), ("m",), DOLLAR, "m")
    )  # without a limit: no account
    for subject in ("alice", "team:search", "team:counted", "project", "run:42"):
        assert run(tmp_path, "block", subject).stderr == ""
    for subject, said in (
        ("Alice", "; did you mean 'alice'?"),
        ("team:serch", "; did you mean 'search'?"),
        ("zzz", ""),
    ):
        done = run(tmp_path, "block", subject)
        assert done.returncode == 0 and "yes" in done.stdout
        assert done.stderr == f"Note: no call has been charged to {subject.rpartition(':')[2]!r}{said}\n"


_FIRST = [("set", "alice", "$1"), ("block", "alice"), ("import", "in.jsonl"), ("top-up", "alice", "$5", "--id", "i")]


@pytest.mark.parametrize("arguments", [*_FIRST, ("raise", "alice", "$5", "--until", "5d"), ("users",), ("sweep",)])
def test_a_ledger_that_is_not_there_is_made_on_demand_only(
    settings: None, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """A mistyped name must not be taken for an empty ledger."""
    (tmp_path / "in.jsonl").write_text('{"subject": "alice", "limits": ["$1"]}')
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (1, "") and "Usage" not in done.stderr
    assert f"there is no ledger {tmp_path}/ledger.db" in done.stderr and "--create" in done.stderr
    assert not (tmp_path / "ledger.db").exists()
    if arguments in _FIRST:
        assert (
            _rows(tmp_path, *arguments, "--create") == _rows(tmp_path, *arguments, "--create")
            or arguments[0] == "import"
        )
        assert [row["subject"] for row in _rows(tmp_path, "users")] == ["user:alice"]


def test_they_start_without_litellm_and_without_a_thread(in_file: Store, tmp_path: Path) -> None:
    commands = [
        ["users"],
        ["set", "alice", "$3"],
        ["top-up", "alice", "$3", "--id", "i"],
        ["usage"],
        ["export", "-"],
        ["top"],
    ]
    program = (
        "import sys, threading\n"
        "sys.modules['litellm'] = None\n"
        "def refuse(self): raise AssertionError('a thread was started')\n"
        "threading.Thread.start = refuse\n"
        "from litellm_budget_plugin.cli.app import app\n"
        f"for arguments in {commands}:\n"
        "    app(arguments, standalone_mode=False)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)
