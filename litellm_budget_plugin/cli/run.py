"""litellm-budget run: runs a program with budgets, without changes to its code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing

import click

from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.environment import STARTUP, hook_into_python, put_absolute_paths, put_dotenv, put_settings
from litellm_budget_plugin.errors import BudgetError, BudgetInputError
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.settings import BudgetSettings, on_start_error, url_from

_CANNOT_EXECUTE, _NOT_FOUND = 126, 127
"""The exit codes of shells for these failures."""
_PYTHON = re.compile(r"(python|pypy)[\d.]*[a-z]*(-dbg)?(\.exe)?", re.IGNORECASE)
_PROBE_SECONDS = 30
_PROBE = """
import sys
if not any(getattr(finder, "arms_litellm_budgets", False) for finder in sys.meta_path):
    sys.exit(10)
sys.path[:] = [entry for entry in sys.path if entry]
try:
    import litellm_budget_plugin.startup
except ImportError:
    sys.exit(11)
"""


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--store", metavar="URL", help="A store's URL, or env:NAME.  [default: as the callback]")
@click.option("--project", metavar="NAME", help="The project of the ledger.  [default: as the callback]")
@click.option(
    "--limit", "limits", multiple=True, metavar="SENTENCE", help="USER_LIMITS, like '$1/day'; can be given again."
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(store: str | None, project: str | None, limits: tuple[str, ...], command: tuple[str, ...]) -> None:
    """Run a program with budgets for its LiteLLM calls, and for those of the Python processes that it starts:

    \b
      litellm-budget run -- python app.py --verbose
      litellm-budget run --limit '$1/day' -- gunicorn app:app
      litellm-budget run -- -m package.module

    The program replaces this command: signals and exit codes are its own. The settings are those of the environment
    and of .env. With a bad setting, or a ledger that cannot be opened, nothing is started, unless LITELLM_BUDGET_ON_START_ERROR is warn.
    """
    words = [sys.executable, *command] if command[0] == "-m" else list(command)
    if words[0].startswith("-"):
        raise click.UsageError(f"no such option: {words[0]}; options of the program come after its name")
    _put_options(store, project, limits)
    hook_into_python()
    program = _found(words[0])
    try:
        settings = BudgetSettings()
        put_absolute_paths(settings)
        with closing(BudgetLedger(settings, charging=True)):
            """Check that the ledger can be opened."""
        _check_python(program, words)
    except BudgetError as error:
        if on_start_error() == "stop":
            raise
        click.echo(f"Warning: budgets will not be enforced (LITELLM_BUDGET_ON_START_ERROR=warn): {error}", err=True)
    _execute(program, words)


def _put_options(store: str | None, project: str | None, limits: tuple[str, ...]) -> None:
    put_dotenv()
    try:
        if limits:
            parse_limits(limits)
            put_settings(user_limits="; ".join(limits))
        if project is not None:
            put_settings(project=checked_id(project, "--project"))
        if store is not None:
            url = url_from(store)
            put_settings(store_url=url, client_type="local", api_base="")
            if not url.lower().startswith(("http:", "https:")):
                put_settings(api_key="", headers="")
    except BudgetInputError as error:
        raise click.UsageError(str(error)) from error


def _found(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        there = os.path.exists(name) and os.path.dirname(name)
        hint = f"; did you mean: python {name}?" if name.endswith(".py") and os.path.isfile(name) else ""
        click.echo(f"Error: {name}: {'it cannot be executed' if there else 'no such program'}{hint}", err=True)
        raise click.exceptions.Exit(_CANNOT_EXECUTE if there else _NOT_FOUND)
    return path


def _check_python(program: str, words: Sequence[str]) -> None:
    """Raise BudgetInputError if the program is a Python, or a script of one, that would run without budgets.

    A program that starts Python in another way, such as a shell script, is not checked.
    """
    if os.path.basename(program) == "opentelemetry-instrument":
        raise BudgetInputError(
            "opentelemetry-instrument would replace budgets at the start of Python: put it in front, "
            "opentelemetry-instrument litellm-budget run -- PROGRAM"
        )
    python = [program, *words[1:]] if _PYTHON.fullmatch(os.path.basename(program)) else _interpreter_of(program)
    if python is None:
        return
    flags = _start_flags(python[1:])
    probe = [python[0], *flags, "-c", _PROBE]
    try:
        done = subprocess.run(probe, capture_output=True, timeout=_PROBE_SECONDS, check=False)  # noqa: S603  # what was asked for
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BudgetInputError(f"{python[0]} does not answer: {error}") from error
    shown = " ".join([python[0], *flags])
    if done.returncode == 10:
        raise BudgetInputError(
            f"{shown} does not import sitecustomize from PYTHONPATH ({STARTUP}), so budgets cannot be enforced in it; "
            "the options -I, -E and -S of Python have this effect"
        )
    if done.returncode == 11:
        raise BudgetInputError(f"{shown} cannot import litellm_budget_plugin: install the package for it")


def _interpreter_of(script: str) -> list[str] | None:
    """Return the Python in a script's first line, with its options; None if there is none."""
    with open(script, "rb") as file:
        line = file.readline(4096).decode("utf-8", "replace")
    words = line[2:].split() if line.startswith("#!") else []
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if word != "-S" and "=" not in word]
        words[:1] = [shutil.which(words[0]) or words[0]] if words else []
    return words if words and _PYTHON.fullmatch(os.path.basename(words[0])) else None


def _start_flags(words: Sequence[str]) -> list[str]:
    """Return the options of a Python command line that affect the imports at its start, up to the program that it runs."""
    flags: list[str] = []
    takes_next = False
    for word in words:
        if takes_next or word.startswith("--"):
            takes_next = word == "--check-hash-based-pycs"
            continue
        if not word.startswith("-") or word == "-":
            break
        for place, letter in enumerate(word[1:], 2):
            if letter in "cm":
                return flags
            if letter in "WX":
                takes_next = place == len(word)
                break
            if letter in "EISsP":
                flags.append(f"-{letter}")
    return flags


def _execute(program: str, words: list[str]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "nt":
        # On Windows nobody waits for a program that replaces another one.
        done = subprocess.run(words, executable=program, check=False)  # noqa: S603  # what was asked for
        raise click.exceptions.Exit(done.returncode)
    try:
        os.execv(program, words)  # noqa: S606  # what was asked for
    except OSError as error:
        click.echo(f"Error: {program}: {error.strerror}", err=True)
        raise click.exceptions.Exit(_CANNOT_EXECUTE) from error
