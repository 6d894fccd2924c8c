"""The plugin in several processes that share prometheus_client's directory: the worker's thread updates gauges."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.metrics.reading import PREFIX, samples

WORKER = """
import sys, time
import litellm
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from litellm_budget_plugin import BudgetCallback

def read():
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry).decode()

budgets = BudgetCallback(store_url="sqlite:///" + sys.argv[1], default_limit=1)
litellm.callbacks = [budgets]
call = dict(model="gpt-4o", messages=[{"role": "user", "content": "x"}], user="a", mock_response="hi there", max_tokens=100)
litellm.completion(**call)
stream = litellm.completion(**call, stream=True)
next(stream)
deadline = time.monotonic() + 20
while 'litellm_budget_open_holds{project="default"} 1.0' not in read():
    assert time.monotonic() < deadline, read()
    time.sleep(0.05)
print(read())
"""


def test_gauges_and_counters_of_several_processes(tmp_path: Path) -> None:
    directory = tmp_path / "metrics"
    directory.mkdir()
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
    texts = [
        subprocess.run(
            [sys.executable, "-c", WORKER, str(tmp_path / f"ledger-{number}.db")],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        ).stdout
        for number in range(2)
    ]
    once, twice = (samples(text) for text in texts)
    spent = [sum(value for _, value in found[PREFIX + "spend_usd_total"]) for found in (once, twice)]
    assert spent[0] > 0
    # When the first process ended, it settled its stream as dropped.
    assert spent[1] >= 2 * spent[0]
    held = [sum(value for _, value in found[PREFIX + "held_usd"]) for found in (once, twice)]
    assert held[0] > 0
    # It holds no money any more, although its file still exists.
    assert held[1] == held[0]
    assert sum(value for _, value in twice[PREFIX + "breaker_open"]) == 0
