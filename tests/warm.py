"""Processes that have imported LiteLLM already: forked from one that did, because the import takes seconds."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["litellm"])


def in_processes(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What a module's function returns in each of `count` processes of its own, which run at the same time."""
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
    # The server that it was forked from has the environment of the test that was the first to need one.
    os.environ.clear()
    os.environ.update(environment)
    sender.send(function(*arguments))
