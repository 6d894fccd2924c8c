"""Forks while other threads update metrics without a pause."""

from __future__ import annotations

import os
import signal
import threading

from prometheus_client import CollectorRegistry

from litellm_budget_plugin.metrics.process import ProcessMetrics

_SECONDS = 10


def forked_while_updating(times: int) -> list[int]:
    """The exit status of each child, which updates and reads what its parent's threads were updating."""
    told = ProcessMetrics.in_registry(CollectorRegistry())
    over = threading.Event()

    def update() -> None:
        while not over.is_set():
            told.reserved("p", "store", 0.001)
            told.refresh()

    threads = [threading.Thread(target=update, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        return [_child(told) for _ in range(times)]
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _child(told: ProcessMetrics) -> int:
    child = os.fork()
    if not child:
        signal.alarm(_SECONDS)
        told.reserved("p", "store", 0.001)
        told.refresh()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
