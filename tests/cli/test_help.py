"""docs/reference.md contains each command's output for --help. `python -m tests.cli.test_help` writes it there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from litellm_budget_plugin.cli.app import app

_PAGE = Path(__file__).parents[2] / "docs" / "reference.md"
_PLACE = re.compile(r"(?s)(<!-- What `--help` says.*?-->\n)(.*?)(<!-- end of help -->)")


def _commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _commands(command.commands[name], (*words, name))


def _text() -> str:
    blocks = []
    for words in _commands(app):
        done = CliRunner().invoke(app, [*words, "--help"], prog_name="litellm-budget", terminal_width=110)
        assert done.exit_code == 0, done.output
        blocks.append(f"```text\n{done.output.strip()}\n```\n")
    return "\n" + "\n".join(blocks) + "\n"


def test_the_reference_says_what_help_says() -> None:
    found = _PLACE.search(_PAGE.read_text("utf-8"))
    assert found is not None
    # This runs in a new process, because click keeps a command's help as it was first shown.
    printed = [sys.executable, "-m", "tests.cli.test_help", "print"]
    said = subprocess.run(printed, cwd=_PAGE.parents[1], capture_output=True, encoding="utf-8", check=True)
    assert found[2] == said.stdout


if __name__ == "__main__" and sys.argv[1:] == ["print"]:
    sys.stdout.write(_text())
elif __name__ == "__main__":
    _PAGE.write_text(_PLACE.sub(lambda found: found[1] + _text() + found[3], _PAGE.read_text("utf-8")), "utf-8")
