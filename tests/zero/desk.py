"""Programs that know nothing of budgets, run by `litellm-budget run`, and the state of the ledger afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import litellm_budget_plugin
from litellm_budget_plugin.core.commands import ReadUsage
from litellm_budget_plugin.environment import STARTUP
from litellm_budget_plugin.stores.protocol import ask
from litellm_budget_plugin.stores.registry import open_store

PACKAGE = str(Path(litellm_budget_plugin.__file__).parents[1])
RUN = (sys.executable, "-m", "litellm_budget_plugin", "run")
ONE_CALL = ("--limit", "1 calls, $5/day")
"""Options that allow each user one call."""

CALLS = '''
"""What one user's two calls become."""

CALL = dict(model="gpt-4o", messages=[{"role": "user", "content": "x"}], mock_response="Hello!", max_tokens=100)


def become(completion, user):
    became = []
    for _ in range(2):
        try:
            became.append(completion(**CALL, user=user).choices[0].message.content)
        except Exception as error:
            became.append(type(error).__name__)
    return became
'''
CHARGED_THEN_REFUSED = ["Hello!", "BudgetExceeded"]

NO_LITELLM = """
from pathlib import Path


def completion():
    Path("went-out").touch()
"""
"""A package with the name litellm that has none of the functions that the gate wraps."""


def environment(*path: Path | str, **more: str) -> dict[str, str]:
    """Return the environment of a program that finds modules also on this path."""
    places = os.pathsep.join([*map(str, path), PACKAGE])
    return {**os.environ, "PYTHONPATH": places, **more}


def hooked(directory: Path, program: str, *path: Path | str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program's text as `litellm-budget run` would run it in a child."""
    return run([sys.executable, "-c", program], directory, environment(STARTUP, *path, **more))


def run(
    words: list[str] | tuple[str, ...], directory: Path, given: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory."""
    return subprocess.run(
        words, cwd=directory, env=given or environment(), capture_output=True, text=True, timeout=120, check=False
    )


def charged(database: Path, user: str) -> tuple[int, Decimal]:
    """Return the number of calls of a user that the ledger has charged, and their cost in US dollars."""
    with closing(open_store(f"sqlite:///{database}")) as store:
        rows = ask(store, ReadUsage("default", "user", user)).rows
    return sum(usage.calls for _, usage in rows), Decimal(sum(usage.spent for _, usage in rows)) / 10**9
