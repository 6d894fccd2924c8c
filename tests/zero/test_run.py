"""litellm-budget run: programs that know nothing of budgets have budgets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from litellm_budget_plugin.cli.app import app as command_line
from litellm_budget_plugin.environment import STARTUP, hook_into_python
from tests.zero.desk import CALLS, CHARGED_THEN_REFUSED, NO_LITELLM, ONE_CALL, PACKAGE, RUN, charged, environment, run


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run the command in this process, for cases that end before a program replaces it."""
    before = os.environ.copy()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("the program was started"))

    def run_here(*words: str, **given: str) -> Result:
        os.environ.update({"PYTHONPATH": PACKAGE, **given})
        return CliRunner().invoke(command_line, ["run", *words])

    yield run_here
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A directory with an application and the modules that it imports."""
    (tmp_path / "calls.py").write_text(CALLS)
    return tmp_path


def test_an_application_that_does_what_applications_do(app: Path) -> None:
    shutil.copy(Path(__file__).with_name("application.py"), app / "my app.py")
    (app / "own").mkdir()
    (app / "own" / "sitecustomize.py").write_text("import builtins\nMINE = 'own '\nbuiltins.MINE = 'sitecustomize'\n")
    arguments = ["--limit", "a  b", "--", "-x", "--store=y"]
    done = run([*RUN, *ONE_CALL, "--", sys.executable, "my app.py", *arguments], app, environment(app / "own"))
    assert done.returncode == 4, done.stderr  # the application's own exit code
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["said"] == dict.fromkeys(found["said"], CHARGED_THEN_REFUSED) and len(found["said"]) == 9
    assert (found["argv"], found["site"]) == (arguments, "own sitecustomize")
    assert "litellm_budget" not in found["loader"]
    for user in found["said"]:
        calls, cost = charged(app / "litellm_budget.db", user)
        assert calls == 1 and cost > 0, user


SERVED = """
import json, os
from urllib.parse import parse_qs
from litellm import completion
from calls import CALL

def app(environ, start_response):
    user = parse_qs(environ["QUERY_STRING"])["user"][0]
    try:
        said = completion(**CALL, user=user).choices[0].message.content
    except Exception as error:
        said = type(error).__name__
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {said}".encode()]
"""
GUNICORN = ("--", sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", "unix:socket", "served:app")


def _asked(path: Path, user: str) -> list[str]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(f"GET /?user={user} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    return answer.decode().rpartition("\n")[2].split()


def test_gunicorn_with_two_workers(app: Path) -> None:
    (app / "served.py").write_text(SERVED)
    server = subprocess.Popen([*RUN, *ONE_CALL, *GUNICORN], cwd=app, env=environment(), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        answers: list[list[str]] = []
        while len({pid for pid, _ in answers}) < 2:
            assert server.poll() is None and time.monotonic() < deadline
            try:
                answers.append(_asked(app / "socket", "alice"))
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.05)
    finally:
        server.terminate()
    assert server.wait(60) == 0  # gunicorn's exit code, of the master that got the signal
    assert [said for _, said in answers] == ["Hello!"] + ["BudgetExceeded"] * (len(answers) - 1)
    assert charged(app / "litellm_budget.db", "alice")[0] == 1


def test_pytest_as_a_module_whose_tests_import_litellm(app: Path) -> None:
    (app / "test_it.py").write_text(
        "from calls import become\n\n"
        "def test_it():\n"
        "    import litellm.types.utils\n"
        "    from litellm import completion\n"
        f"    assert become(completion, 'alice') == {CHARGED_THEN_REFUSED}\n"
    )
    words = [*RUN, *ONE_CALL, "-m", "pytest", "-q", "-k", "test_it", "-p", "no:cacheprovider"]
    done = run(words, app, environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"))
    assert done.returncode == 0, done.stdout
    assert charged(app / "litellm_budget.db", "alice")[0] == 1


@pytest.mark.parametrize(("sent", "handled"), [(signal.SIGTERM, True), (signal.SIGHUP, False), (signal.SIGINT, True)])
def test_signals_are_the_programs_own(sent: signal.Signals, handled: bool, tmp_path: Path) -> None:
    program = "import os, signal, sys\n"
    program += f"signal.signal({sent.value}, lambda *_: sys.exit(33))\n" if handled else ""
    program += "print(os.getpid(), flush=True)\nsignal.pause()\n"
    words = [*RUN, "--store", "memory://", "--", sys.executable, "-c", program]
    process = subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and int(process.stdout.readline()) == process.pid
    process.send_signal(sent)
    assert process.wait(60) == (33 if handled else -sent)
    process.stdout.close()


@pytest.mark.parametrize(
    "words",
    [["-I"], ["-E"], ["-S"], ["-bE"], ["-uIB"], ["-W", "ignore", "-I"], ["-Wignore", "-S"], ["-X", "dev", "-sE"]],
    ids=" ".join,
)
@pytest.mark.parametrize("what", [["app.py"], ["-c", "pass"]])
def test_a_python_that_does_not_read_pythonpath_is_not_started(
    words: list[str], what: list[str], invoke: Callable[..., Result]
) -> None:
    done = invoke("--", sys.executable, *words, *what)
    assert done.exit_code == 1 and done.stderr.startswith("Error: ") and "-I, -E and -S" in done.stderr


@pytest.mark.parametrize("line", ["#!{python} -E", "#!{python} -Es", "#!/usr/bin/env -S {python} -I"])
def test_nor_is_a_script_of_such_a_python(line: str, invoke: Callable[..., Result]) -> None:
    script = Path("script")
    script.write_text(line.format(python=sys.executable) + "\n")
    script.chmod(0o755)
    done = invoke("--", "./script")
    assert done.exit_code == 1 and "-I, -E and -S" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "import sys; sys.exit(5)", "-I"],
        ["-cimport sys; ISE = 5; sys.exit(ISE)"],
        ["app.py", "-E"],
        ["-m", "app", "-S"],
        ["-u", "-", "-I"],
    ],
)
def test_the_same_letters_after_the_program_are_its_own(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import sys; sys.exit(5)")
    done = subprocess.run(
        [*RUN, "--", sys.executable, *words],
        cwd=tmp_path,
        env=environment(),
        input=b"import sys; sys.exit(5)",
        check=False,
    )
    assert done.returncode == 5


def test_a_python_without_the_package_is_not_started(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "other"], cwd=tmp_path, check=True)
    # The path of these tests must not lead to this package.
    given = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    code = f"import sys; sys.path.insert(0, {environment()['PYTHONPATH']!r}); sys.argv[0] = 'x'; "
    code += "from litellm_budget_plugin.cli import main; main()"
    done = run(
        [sys.executable, "-c", code, "run", "--", str(tmp_path / "other/bin/python"), "-c", "print('ran')"],
        tmp_path,
        given,
    )
    assert (done.returncode, done.stdout) == (1, "") and "install the package" in done.stderr


BAD = {
    "DEFAULT_LIMIT": ("five", "DEFAULT_LIMIT"),
    "USER_LIMIT": ("$5", "did you mean LITELLM_BUDGET_USER_LIMITS"),
    "FILE": ("nowhere.toml", "nowhere.toml"),
    "STORE_URL": ("sqlite:////nowhere/at/all.db", "/nowhere/at does not exist"),
    "PROJECT_LIMITS": ("$5 per fortnight", "PROJECT_LIMITS"),
    "ON_START_ERROR": ("wran", "'stop' or 'warn'"),
}


@pytest.mark.parametrize("bad", BAD)
def test_nothing_is_started_with_a_bad_setting(bad: str, invoke: Callable[..., Result]) -> None:
    value, says = BAD[bad]
    done = invoke("--", sys.executable, "-c", "pass", **{f"LITELLM_BUDGET_{bad}": value})
    assert (done.exit_code, done.stdout) == (1, "") and done.stderr.startswith("Error: ") and says in done.stderr


def test_a_bad_setting_in_a_dotenv_file_stops_the_start_unless_it_says_warn(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LITELLM_BUDGET_DEFAULT_LIMIT=five\n")
    words = [*RUN, "--", sys.executable, "-c", "print('ran')"]
    assert run(words, tmp_path).stdout == ""
    (tmp_path / ".env").write_text("LITELLM_BUDGET_DEFAULT_LIMIT=five\nLITELLM_BUDGET_ON_START_ERROR=warn\n")
    done = run(words, tmp_path)
    assert (done.returncode, done.stdout) == (0, "ran\n") and "DEFAULT_LIMIT" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "Missing argument"),
        (("--stroe", "x", "true"), 2, "no such option: --stroe"),
        (("--limit", "$1 per fortnight", "true"), 2, "fortnight"),
        (("--store", "env:NOWHERE", "true"), 2, "NOWHERE"),
        (("--project", "", "true"), 2, "--project"),
        (("no-such-program",), 127, "no-such-program"),
        (("./file",), 126, "./file"),
        (("opentelemetry-instrument", "python", "app.py"), 1, "put it in front"),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], code: int, says: str, invoke: Callable[..., Result]) -> None:
    Path("file").touch()
    Path("opentelemetry-instrument").touch(0o755)
    done = invoke(*words, PATH=f"{os.getcwd()}{os.pathsep}{os.environ['PATH']}")
    assert done.exit_code == code and says in done.stderr


def test_what_the_system_cannot_execute_is_said(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\x00 no program")
    (tmp_path / "text").chmod(0o755)
    done = run([*RUN, "./text"], tmp_path)
    assert done.returncode == 126 and "./text" in done.stderr and "Traceback" not in done.stderr


def test_the_program_sees_the_settings_that_counted_where_it_was_started(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LITELLM_BUDGET_PROJECT=from-file\nLITELLM_BUDGET_FILE=limits.toml\nOTHER=1\n")
    (tmp_path / "limits.toml").write_text('[team]\nlimits = ["$1/day"]\n')
    program = (
        "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('LITELLM_BUDGET')}))"
    )
    words = [
        *RUN,
        "--store",
        "sqlite:///mine.db",
        "--limit",
        "$1/day",
        "--limit",
        "5 calls",
        "--",
        sys.executable,
        "-c",
        program,
    ]
    done = run(words, tmp_path)
    found = json.loads(done.stdout)
    assert {name: value for name, value in found.items() if value} == {
        "LITELLM_BUDGET_PROJECT": "from-file",
        "LITELLM_BUDGET_FILE": str(tmp_path / "limits.toml"),
        "LITELLM_BUDGET_STORE_URL": f"sqlite:///{tmp_path}/mine.db",
        "LITELLM_BUDGET_CLIENT_TYPE": "local",
        "LITELLM_BUDGET_JOURNAL": str(tmp_path / "litellm_budget_journal"),
        "LITELLM_BUDGET_USER_LIMITS": "$1/day; 5 calls",
    }


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        (None, "{0}"),
        ("", "{0}"),
        ("/a:b", "{0}:/a:b"),
        ("/a::b:", "{0}:/a::b:"),
        ("/a:{0}", "{0}:/a"),
        ("{0}", "{0}"),
    ],
)
def test_the_path_keeps_its_entries(given: str | None, becomes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    if given is None:
        monkeypatch.delenv("PYTHONPATH")
    else:
        monkeypatch.setenv("PYTHONPATH", given.format(STARTUP))
    hook_into_python()
    assert os.environ["PYTHONPATH"] == becomes.format(STARTUP)


def test_gunicorn_ends_where_budgets_cannot_be_enforced_and_starts_no_worker_again(app: Path) -> None:
    (app / "litellm").mkdir()
    (app / "litellm" / "__init__.py").write_text(NO_LITELLM)
    (app / "served.py").write_text("try:\n    import litellm\nexcept ImportError:\n    litellm = None\napp = None\n")
    done = run([*RUN, *GUNICORN], app)
    # 3 is the exit code of the workers. gunicorn has another one if both end at the same moment.
    assert done.returncode in (1, 3) and "Worker failed to boot" in done.stderr, done.stderr
    assert 1 <= done.stderr.count("budgets cannot be enforced") <= 2
