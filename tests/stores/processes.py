"""Running a part of a test in another process, and getting its result."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable

PATIENCE = 60.0
"""The time (seconds) after which a child counts as hanging."""
_PR_SET_PDEATHSIG = 1


def die_with_the_parent() -> None:
    """Have this process killed when its parent ends, in any way."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A forked child that runs one function, with a pipe in each direction."""

    def __init__(self, action: Callable[[Child], object], fork: Callable[[], int] = os.fork) -> None:
        (self._theirs, give), (self._mine, answer) = os.pipe(), os.pipe()
        self._give = give
        self.pid = fork()
        if self.pid:
            os.close(self._theirs)
            os.close(answer)
            return
        try:
            self._give = answer
            try:
                said = f"{action(self)}"
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(answer, said.encode())
        finally:
            os._exit(0)

    def tell(self) -> None:
        """Let the other side pass its next `wait`."""
        os.write(self._give, b".")

    def wait(self) -> None:
        """Wait for the other side's `tell`."""
        assert self._read(self._theirs if not self.pid else self._mine, 1) == b"."

    def result(self) -> str:
        """The function's result or error, as text, after the child has ended."""
        said = b""
        while part := self._read(self._mine, 65536):
            said += part
        os.waitpid(self.pid, 0)
        os.close(self._give)
        os.close(self._mine)
        return said.decode()

    def _read(self, line: int, most: int) -> bytes:
        if not select.select([line], [], [], PATIENCE)[0]:
            if self.pid:
                os.kill(self.pid, signal.SIGKILL)
            raise AssertionError("the other process hangs")
        return os.read(line, most)
