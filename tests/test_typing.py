"""The types that users see: examples of every public name pass the two common type checkers in strict mode."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = "tests/typing_examples.py"


@pytest.mark.parametrize(
    "command", [["mypy", "--strict"], ["pyright", "--pythonpath", sys.executable]], ids=["mypy", "pyright"]
)
def test_the_examples_are_typed_as_users_expect(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command, EXAMPLES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
