"""The page about the command line matches the commands: its examples run, from top to bottom."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.cli.conftest import Command

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "operate-from-the-command-line.md"


def test_the_examples_run(on_file: Command) -> None:
    text = PAGE.read_text("utf-8")
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```$", text)
    ran = 0
    for block in blocks:
        for command, expected in re.findall(r"(?m)^litellm-budget (.*)\n((?:# -> .*\n)*)", block):
            done = on_file.run(*shlex.split(command))
            ran += 1
            wanted = [line.removeprefix("# -> ") for line in expected.splitlines()]
            said = done.output.splitlines()
            for line, pattern in zip(said, wanted):
                assert re.fullmatch(".*".join(map(re.escape, pattern.split("..."))), line), (command, line)
            if wanted:
                assert len(said) >= len(wanted), (command, done.output)
    assert ran == sum(line.startswith("litellm-budget ") for block in blocks for line in block.splitlines()) > 8
    assert len(text.splitlines()) < 60
