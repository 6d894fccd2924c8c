"""Programs for separate processes, which can import the package from any working directory."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = str(Path(__file__).parents[2])


def command(program: str, *arguments: str) -> list[str]:
    """Return the command line that runs `program`."""
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {_ROOT!r})\n{program}", *arguments]
