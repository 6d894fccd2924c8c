"""Forks of a process while its other threads update metrics without a pause."""

from __future__ import annotations

import os
import signal
import threading

from prometheus_client import CollectorRegistry

from litellm_budget_plugin.metrics.process import ProcessMetrics

_SECONDS = 10


def forked_while_updating(times: int) -> list[int]:
    """Return the exit status of each child, until one fails. A child updates the metrics that its parent's threads were updating."""
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
        ended: list[int] = []
        while len(ended) < times and not any(ended):
            ended.append(_child(told))
        return ended
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _child(told: ProcessMetrics) -> int:
    child = os.fork()
    if not child:
        # The child must run only this code, and must end soon in any case.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_SECONDS)
        try:
            told.reserved("p", "store", 0.001)
            told.refresh()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
