"""No mistake of a user causes a traceback: every command with bad arguments, and output that nobody reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.cli.app import app
from tests.cli.conftest import Command
from tests.cli.shells import on_terminal
from tests.cli.test_copy import COMMAND

_BAD = [
    "", " ", "\0", "a\0b", "\udcff", "é" * 10_000, "x" * 10_000, "team:", ":", "user:\n", "tags:x", "-1", "--", "$-5", "-$5", "$5", "0",
    "$1e400", "$0.0000000001", "$9e99", "99999999999999999999", "ten", "$1/fortnight", "5 calls", "nan", "inf", "2026-13-01", "soon",
    "9999-12-31T23:59-23:59", "0001-01-01", "2099-01-01", "2026-02-30T00:00+99:99", "\x1b[2J", "sqlite:///a\0b", "sqlite:///\udcff", "sqlite:///missing.db", "sqlite:///", "sqlite://x",
    "sqlite:///.", "sqlite:///binary", "memory://", "redis://127.0.0.1:1", "redis://[", "redis://h:port", "http://", "http://127.0.0.1:1",
    "https://:k@", "postgresql://", "postgresql://x:y@127.0.0.1:1/z", "nosql://x", "env:", "env:NO_SUCH", "://", "missing.toml", "binary",
    "directory", "/dev/null/x", "bad.toml", "bad.yaml", "bad.jsonl", "-", ".", "a=b", "🦊", "'; DROP TABLE", "%s%n", "$(id)", "../../etc",
]  # fmt: skip
_NOT_LIGHT = {"serve", "doctor", "top"}
"""These do not end, or import LiteLLM. They have tests of their own."""


def _commands() -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in sorted(app.commands.items()):
        if isinstance(command, click.Group):
            found += [((name, each), command.commands[each]) for each in sorted(command.commands)]
        elif name not in _NOT_LIGHT:
            found.append(((name,), command))
    return found


@st.composite
def _calls(draw: st.DrawFn) -> list[str]:
    """A command with arguments and options, some of them valid."""
    words, command = draw(st.sampled_from(_commands()))
    value = st.sampled_from(_BAD) | st.sampled_from(["alice", "sqlite:///ledger.db", "$1 per day", "good.toml"])
    given_ones: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            if draw(st.integers(0, 3)) == 0 or (parameter.required and draw(st.booleans())):
                given_ones += [parameter.opts[0], *([] if parameter.is_flag else [draw(value)])]
        else:
            given_ones += draw(st.lists(value, min_size=0 if draw(st.integers(0, 5)) == 0 else 1, max_size=2))
    return [*words, *given_ones]


@pytest.fixture
def place(on_file: Command, tmp_path: Path) -> Path:
    on_file.run("set", "alice", "$10")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "bad.toml").write_text("[users\n")
    (tmp_path / "bad.yaml").write_text("a: [\n" + "- [" * 2000)
    (tmp_path / "bad.jsonl").write_text('{"subject": "a"}\n{"subject"')
    (tmp_path / "good.toml").write_text('[user]\nlimits = "$1 per day"\n')
    (tmp_path / "directory").mkdir()
    return tmp_path


def test_no_bad_argument_ends_in_a_traceback(place: Path) -> None:
    runner = CliRunner()

    @given(_calls())
    def check(arguments: list[str]) -> None:
        done = runner.invoke(app, arguments, prog_name="litellm-budget", input=b"\xff\n{")
        assert done.exception is None or isinstance(done.exception, SystemExit), (arguments, repr(done.exception))
        # 126 and 127 mean that `run` found no such program.
        assert done.exit_code in (0, 1, 2, 3, *((126, 127) if arguments[0] == "run" else ()))
        assert "Traceback" not in done.output
        if done.exit_code in (2, 3) and arguments[0] != "status":
            assert "Error: " in done.stderr, (arguments, done.output)

    check()


@pytest.mark.parametrize("value", _BAD)
def test_every_bad_subject_and_store_is_refused_or_taken_whole(value: str, place: Path) -> None:
    """Try each bad value in the places where people make mistakes."""
    calls = [
        ["show", "--", value], ["set", "--", "alice", value], ["set", "--", value, "$1"], ["raise", "alice", "--until", value, "$1"],
        ["top-up", "--id", "i", "--", "alice", value], ["top-up", "--id", value, "alice", "$1"], ["usage", "--since", value],
        ["users", "--project", value], ["import", "--format", "jsonl", "--", value], ["check", "--", value], ["keys", "list", "--", value],
        ["status", "--store", value], ["journal", "--", value],
    ]  # fmt: skip
    for call in calls:
        done = CliRunner().invoke(app, call, prog_name="litellm-budget", input="")
        assert done.exception is None or isinstance(done.exception, SystemExit), (call, repr(done.exception))
        # Control characters must not be printed unchanged, because a terminal would interpret them.
        assert not {"\0", "\x1b"} & {*done.output} and "Traceback" not in done.output


def test_a_bad_argument_is_told_from_a_finding(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Monitoring systems expect 3 to mean unknown."""

    def code(*arguments: str) -> int:
        return CliRunner().invoke(app, arguments).exit_code

    assert code("status") == 0
    assert code("status", "--store", "redis://127.0.0.1:1/0") == 2
    assert (
        code("status", "--no-such-option")
        == code("status", "--store", "nosql://x")
        == code("status", "--project", "")
        == 3
    )
    assert code("users", "--no-such-option") == code("no-such-command") == 2
    monkeypatch.setenv("LITELLM_BUDGET_MODE", "sometimes")
    assert code("status") == 3 and code("users") == 2
    monkeypatch.setenv("LITELLM_BUDGET_MODE", "enforce")
    monkeypatch.setenv("LITELLM_BUDGET_FILE", "bad.toml")
    assert code("status") == 3 and code("users") == 2


def _start(place: Path, *arguments: str, **more: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONUTF8": "1"}
    return subprocess.Popen([*COMMAND, *arguments], cwd=place, stderr=subprocess.PIPE, env=environment, **more)  # type: ignore[call-overload, no-any-return]


def test_output_that_nobody_reads(place: Path, on_file: Command) -> None:
    lines = "".join(json.dumps({"subject": f"user:{number:05}", "limits": ["$1"]}) + "\n" for number in range(1_200))
    (place / "many.jsonl").write_text(lines)
    on_file.run("import", "many.jsonl")
    for arguments in (("users",), ("export", "-"), ("top", "--rows", "1000", "--json")):
        process = _start(place, *arguments, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(60) in (0, 1) and said == b"", (arguments, said)


def test_ctrl_c(place: Path) -> None:
    """The command waits for a slow store."""
    program = (
        "import sys, time\nfrom litellm_budget_plugin.cli import ledgers, main\n"
        "def wait(*_, **__):\n    print('waiting', flush=True)\n    time.sleep(60)\n"
        "ledgers.open_store = wait\nsys.argv = ['litellm-budget', 'users']\nmain()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"waiting\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1 and said.strip() == b"Aborted!"


def test_no_color_is_respected(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    seen = on_terminal(place, "users").stdout
    assert "user:alice" in seen and "\x1b[3" not in seen


def test_every_command_that_prints_has_json() -> None:
    without = [
        words for words, command in _commands() if not any("--json" in parameter.opts for parameter in command.params)
    ]
    assert without == [("completion",), ("run",)]


def test_a_python_file_is_no_program(place: Path) -> None:
    for name, code in (("app.py", 127), ("./app.py", 126)):
        (place / "app.py").write_text("print(1)")
        done = CliRunner().invoke(app, ["run", "--", name])
        assert done.exit_code == code and done.stderr.endswith(f"; did you mean: python {name}?\n"), done.output
    done = CliRunner().invoke(app, ["run", "--", "missing.py"])
    assert done.exit_code == 127 and "did you mean" not in done.stderr
