"""Many callers at once on one account: exactly as many are granted as there is room for."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from litellm_budget_plugin.core.commands import Granted, Refused
from litellm_budget_plugin.stores.protocol import Store
from tests.stores.desk import account_of, calls_of, charge_of, hold_of

ROOT = Path(__file__).parents[2]
Opener = Callable[..., Store]


def test_a_hundred_threads_on_one_account(engine_url: str, opened: Opener) -> None:
    """A limit of 1000 has room for 33 holds of 30."""
    store, replies = opened(engine_url, timeout=30.0), []
    together = threading.Barrier(100)

    def work(number: int) -> None:
        together.wait()
        replies.append(store.execute(hold_of(f"h{number}", usd=30)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(reply, Granted) for reply in replies) == 33
    assert sum(isinstance(reply, Refused) and reply.reason == "held" for reply in replies) == 67
    assert account_of(store).held == 990


def test_threads_that_repeat_one_charge(engine_url: str, opened: Opener) -> None:
    """Twenty deliveries of one settlement are one charge."""
    store = opened(engine_url, timeout=30.0)
    threads = [threading.Thread(target=store.execute, args=(charge_of("h"),)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls_of(store) == 1


def test_eight_processes_on_a_file_that_is_not_there_yet(database: Path, opened: Opener) -> None:
    """Each process tries to create it, and one does. Then they race for 33 holds."""
    url = f"sqlite:///{database}"
    command = [sys.executable, "-m", "tests.stores.worker", "race", url, "12"]
    workers = [
        subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(8)
    ]
    for worker in workers:
        assert worker.stdout and worker.stdout.readline() == "ready\n"
    outputs = []
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        outputs.append(int(worker.communicate()[0]))
        assert worker.returncode == 0
    assert sum(outputs) == 33
    assert account_of(opened(url)).held == 990


def test_two_stores_of_one_process_share_a_file(database: Path, opened: Opener) -> None:
    """Closing one must not release the other's locks, as closing a file that is opened twice does."""
    first, second = (opened(f"sqlite:///{database}", timeout=30.0) for _ in range(2))
    first.execute(charge_of("a"))
    second.execute(charge_of("b"))
    second.close()
    first.execute(charge_of("c"))
    assert calls_of(opened(f"sqlite:///{database}")) == 3
