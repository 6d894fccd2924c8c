"""Functions to find the code blocks of the documentation's pages, and to run them as a reader would."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import textwrap
import traceback
import types
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Block(NamedTuple):
    """A fenced block: its language, the number of its first line, and its text."""

    language: str
    line: int
    text: str


def name(path: Path) -> str:
    """Return the page's path in the repository."""
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[Block]:
    """Return every fenced block of a page."""
    found: list[Block] = []
    language, begin, lines = "", 0, []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        fence = re.match(r"\s*```(\w*)", line)
        if fence and not begin:
            language, begin, lines = fence[1], number + 1, []
        elif fence:
            found.append(Block(language, begin, textwrap.dedent("\n".join(lines))))
            begin = 0
        elif begin:
            lines.append(line)
    assert not begin, f"{name(path)}:{begin}: this block has no end"
    return found


def python_blocks(path: Path) -> list[Block]:
    """Return every Python block of a page."""
    return [block for block in blocks(path) if block.language == "python"]


def failure(page: str, blocks: list[Block], directory: Path) -> str:
    """Run the blocks in this process, and return a description of the failure, or "". The process cannot be used afterwards. If a block has
    `# -> ` comments, its output is compared with them; "..." in a comment stands for any text.
    """
    os.chdir(directory)
    # A generous time-out, because other tests may keep this machine's disk busy.
    os.environ["LITELLM_BUDGET_STORE_TIMEOUT"] = "5"
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    for _, line, text in blocks:
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                exec(compile("\n" * (line - 1) + text, page, "exec"), main.__dict__)
        except BaseException:
            return said.getvalue() + traceback.format_exc()
        expected = re.findall(r"# -> (.*)", text)
        printed = said.getvalue().splitlines()
        patterns = [".*".join(map(re.escape, wanted.strip().split("..."))) for wanted in expected]
        same = len(printed) == len(patterns) and all(map(re.fullmatch, patterns, printed))
        if expected and not same:
            return "\n  ".join([f"{page}:{line}: expected", *expected]) + "\n  ".join(["\nprinted", *printed])
    return ""
