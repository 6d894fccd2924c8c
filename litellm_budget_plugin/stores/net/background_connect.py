"""The opening of a connection on a thread of its own: nothing else bounds the time to resolve a host's name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class ConnectAbandoned(Exception):
    """A connection is still being opened, and its caller has stopped waiting."""


class BackgroundConnect(Generic[T]):
    """`dial` on a thread of its own. If the caller has stopped waiting, its result is passed to `left`: the connection,
    or None if it failed.
    """

    def __init__(self, dial: Callable[[], T], left: Callable[[T | None], object]) -> None:
        self._dial, self._left = dial, left
        self._claim, self._done = threading.Lock(), threading.Event()
        self._dialled: T | None = None
        self._error: BaseException | None = None
        try:
            threading.Thread(target=self._run, name="litellm-budget-connect", daemon=True).start()
        except RuntimeError:  # the interpreter is ending: no new threads
            self._run()

    def _run(self) -> None:
        try:
            self._dialled = self._dial()
        except BaseException as error:  # noqa: BLE001  # handed over to the caller that waits
            self._error = error
        if not self._claim.acquire(blocking=False):
            self._left(self._dialled)
        self._done.set()

    def result(self, deadline: float) -> T:
        """The connection. Raises the error of opening it; ConnectAbandoned if it takes until `deadline`
        (time.monotonic) or the waiting is interrupted.
        """
        try:
            if not self._done.wait(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
        except BaseException as error:
            if self._claim.acquire(blocking=False):
                raise ConnectAbandoned from error
            self._done.wait()
        if self._dialled is None:
            raise self._error or TimeoutError()
        return self._dialled
