"""Two thousand calls of every kind, ended in every way, from threads and tasks at once: the ledger stays right and small."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpcore
import litellm
import pytest
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

from tests.hooks.desk import Desk
from tests.surface.provider import apart
from tests.surface.ways import WAYS, WORTH, Place, Way

CALLS = 2_000
WARMING = 2_000
THREADS = 16
TASKS = 64
GROWTH = 20 * 2**20
SYNC = [way for way in WAYS if not way.awaited and not way.name.startswith("batch")]
AWAITED = [way for way in WAYS if way.awaited]
# The endings of calls, with their frequency: answered, an HTTP error, a lost connection, a stream cut off or dropped, a
# cancelled task.
ENDINGS = ("answer", "answer", "answer", "500", "429", "cut", "cut-stream", "drop", "cancel")


class Soak:
    """Random calls; `answered` counts, by user, those that completed.

    `lost` counts those that a busy machine did not connect in LiteLLM's five seconds. It is unknown whether they were served.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answered: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.lock = threading.Lock()

    def pick(self, ways: list[Way], chance: random.Random) -> tuple[Way, str, str]:
        """Return a way, an ending, and a user. Users of answered calls and users of other calls are different."""
        way, ending = chance.choice(ways), chance.choice(ENDINGS)
        if (ending in ("cut-stream", "drop") and not way.streams) or (ending == "cancel" and not way.awaited):
            ending = "answer"
        return way, ending, f"{'calm' if ending == 'answer' else 'odd'}-{chance.randrange(8)}"

    def thread(self, seed: int, calls: int) -> None:
        """Make calls one after the other."""
        chance = random.Random(seed)
        for _ in range(calls):
            way, ending, user = self.pick(SYNC, chance)
            if ending == "answer":
                with self._noted(user):
                    way.call(Place(self.url), user)
            elif ending == "drop":
                with contextlib.suppress(litellm.Timeout):
                    way.call(Place(self.url), user, most=4)
            else:
                with contextlib.suppress(Exception):
                    way.call(Place(self.url, ending), user)

    async def task(self, seed: int, calls: int) -> None:
        """Make calls one after the other on a loop."""
        chance = random.Random(seed)
        for _ in range(calls):
            way, ending, user = self.pick(AWAITED, chance)
            if ending == "answer":
                with self._noted(user):
                    await way.acall(Place(self.url), user)
            elif ending == "drop":
                with contextlib.suppress(litellm.Timeout):
                    await way.acall(Place(self.url), user, most=4)
            elif ending == "cancel":
                task = asyncio.create_task(way.acall(Place(self.url), user))
                await asyncio.sleep(chance.random() / 50)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
            else:
                with contextlib.suppress(Exception):
                    await way.acall(Place(self.url, ending), user)

    @contextlib.contextmanager
    def _noted(self, user: str) -> Iterator[None]:
        count = self.answered
        try:
            yield
        except litellm.Timeout:
            count = self.lost
        with self.lock:
            count[user] += 1

    def run(self, calls: int, seed: int) -> None:
        """Make this many calls, half of them from threads and half of them from tasks."""
        workers = [
            threading.Thread(target=self.thread, args=(seed + number, calls // 2 // THREADS))
            for number in range(THREADS)
        ]
        for worker in workers:
            worker.start()

        async def tasks() -> None:
            await asyncio.gather(*[self.task(-seed - number, calls // 2 // TASKS) for number in range(TASKS)])
            for worker in workers:
                await asyncio.to_thread(worker.join)
            await report()

        async def report() -> None:
            """Let LiteLLM report its pending events; those left by an ended loop are reported on the next one."""
            GLOBAL_LOGGING_WORKER.start()
            await GLOBAL_LOGGING_WORKER.flush()

        asyncio.run(tasks())
        asyncio.run(report())

    def first(self) -> None:
        """Make one call each way, one after the other, so that two threads do not make LiteLLM's lazy imports at once."""
        for way in SYNC:
            way.call(Place(self.url), "first")


def _resident() -> int:
    gc.collect()
    # Return freed memory to the system, so that the C library's reserves do not count.
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Log nothing, and let Python itself report the exceptions of finalizers.

    Pytest keeps log records and such exceptions. An exception keeps its frames, and the frames keep their call.
    """
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    before = logging.root.manager.disable
    # Setting the attribute alone is not enough: loggers cache whether they are enabled until this function resets them.
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(before)


@pytest.fixture
def reentrant_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stream end in a thread that holds the lock of httpcore's pool.

    Python may collect a dropped stream at any allocation, also in such a thread. The end of the stream takes the lock too, so
    that with httpcore's own kind of lock the thread waits for itself, and all others for it, also without this package.
    """

    def reentrant(lock: httpcore._synchronization.ThreadLock) -> None:
        lock._lock = threading.RLock()

    monkeypatch.setattr(httpcore._synchronization.ThreadLock, "__init__", reentrant)
    # The clients of earlier tests have pools with the other kind of lock.
    litellm.in_memory_llm_clients_cache.flush_cache()


@pytest.mark.timeout(900)
# Pytest keeps the source of a recorded warning alive: a coroutine that was cancelled before it began, and with it its call.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("nothing_kept", "reentrant_pools")
def test_soak(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit="1000")
    users = [f"{kind}-{number}" for kind in ("calm", "odd") for number in range(8)]
    with apart() as url:
        soak = Soak(url)
        soak.first()
        soak.run(WARMING, seed=1)
        for user in users:
            desk.calm(user)
        before = _resident()
        soak.run(CALLS, seed=1_000)
        spent = {user: desk.calm(user) for user in users}
        grown = _resident() - before
    # Users whose calls were all answered have paid exactly, to the nano-dollar.
    for user in users[:8]:
        most = (soak.answered[user] + soak.lost[user]) * WORTH
        assert soak.answered[user] * WORTH <= spent[user] <= most
    assert sum(soak.lost.values()) < CALLS // 100
    assert all(spent[user] > 0 for user in users if user.startswith("odd"))
    assert sum(soak.answered.values()) > CALLS // 4
    assert grown < GROWTH, f"resident memory grew by {grown / 2**20:.1f} MB"
