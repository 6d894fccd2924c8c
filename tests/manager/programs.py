"""Programs for processes of their own, which find the package wherever these tests run from."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = str(Path(__file__).parents[2])


def command(program: str, *arguments: str) -> list[str]:
    """The command line that runs `program`."""
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {_ROOT!r})\n{program}", *arguments]
