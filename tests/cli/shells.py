"""Commands as a shell starts them, on a terminal and with pipes. Each runs in its own process, forked from one that has
imported the package.
"""

from __future__ import annotations

import contextlib
import os
import pty
import sys
import threading
import traceback
from pathlib import Path
from typing import NamedTuple

from tests.warm import in_processes


class Done(NamedTuple):
    """The end of a command: its exit code and output. On a terminal, all output is in `stdout`."""

    returncode: int
    stdout: str
    stderr: str


def on_terminal(directory: Path, *arguments: str, columns: int = 200) -> Done:
    """Run a command on a terminal."""
    return _started(directory, arguments, columns)


def in_pipe(directory: Path, *arguments: str) -> Done:
    """Run a command whose output is read through pipes."""
    return _started(directory, arguments, None)


def _started(directory: Path, arguments: tuple[str, ...], columns: int | None) -> Done:
    [done] = in_processes(1, _shell, str(directory), dict(os.environ), arguments, columns)
    return Done(*done)


def _shell(
    directory: str, environment: dict[str, str], arguments: tuple[str, ...], columns: int | None
) -> tuple[int, str, str]:
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    if columns is not None:
        os.environ.update({"TERM": "xterm-256color", "COLUMNS": str(columns)})
        process, terminal = pty.fork()
        if not process:
            _command(arguments)
        said = _all(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said, ""
    pipes = [os.pipe(), os.pipe()]
    process = os.fork()
    if not process:
        for number, (_, end) in enumerate(pipes, 1):
            os.dup2(end, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _command(arguments)
    texts = ["", ""]
    for _, end in pipes:
        os.close(end)

    def read(place: int) -> None:
        texts[place] = _all(pipes[place][0])

    readers = [threading.Thread(target=read, args=(place,)) for place in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), texts[0], texts[1]


def _all(descriptor: int) -> str:
    seen = b""
    with contextlib.suppress(OSError):  # Linux raises this when the other side of a terminal is closed
        while part := os.read(descriptor, 65536):
            seen += part
    os.close(descriptor)
    return seen.decode()


def _command(arguments: tuple[str, ...]) -> None:
    """Run the command litellm-budget; does not return."""
    code = 70
    try:
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8") for number in range(3)
        )
        sys.argv = ["litellm-budget", *arguments]
        from litellm_budget_plugin.cli import main

        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
