"""Processes in which LiteLLM is already imported. They are forked from one that imported it, because the import takes seconds."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["litellm"])


def in_processes(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run a module's function in `count` new processes at the same time, and return the result of each."""
    running = []
    for _ in range(count):
        receiver, sender = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=_run, args=(sender, dict(os.environ), function, arguments))
        process.start()
        sender.close()
        running.append((process, receiver))
    returned = [receiver.recv() for _, receiver in running]
    for process, receiver in running:
        process.join()
        receiver.close()
        assert process.exitcode == 0
    return returned


def _run(
    sender: Connection, environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    # This process was forked from a server with the environment of the first test that needed one.
    os.environ.clear()
    os.environ.update(environment)
    sender.send(function(*arguments))
