"""Processes that have imported LiteLLM already: forked from one that did, because the import takes seconds."""

from __future__ import annotations

import multiprocessing
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
        process = _CONTEXT.Process(target=_run, args=(sender, function, arguments))
        process.start()
        sender.close()
        running.append((process, receiver))
    returned = [receiver.recv() for _, receiver in running]
    for process, receiver in running:
        process.join()
        receiver.close()
        assert process.exitcode == 0
    return returned


def _run(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    sender.send(function(*arguments))
