"""Threads and processes on one ledger lose no charge."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from litellm_budget_plugin import BudgetManager
from tests.manager.programs import command

SPENDER = """
import sys
from litellm_budget_plugin import BudgetManager

manager = BudgetManager("shop")
import litellm

usage = {"prompt_tokens": 400, "completion_tokens": 0, "total_tokens": 400}
print("ready", flush=True)
sys.stdin.readline()
for number in range(50):
    response = litellm.ModelResponse(id=f"{sys.argv[1]}-{number}", model="gpt-4o", usage=usage)
    manager.update_cost("alice", response)
    manager.create_budget(1, f"user-{sys.argv[1]}-{number}")
    if number % 10 == 0:
        manager.save_data()
manager.close()
"""

IMPORTER = """
import sys
from litellm_budget_plugin import BudgetManager

print("ready", flush=True)
sys.stdin.readline()
manager = BudgetManager("shop")
manager.user_dict["alice"]["current_cost"] += 1
manager.close()
"""


def run(program: str, processes: int) -> None:
    """Run a program in several processes, which start together when all are ready."""
    started = [
        subprocess.Popen(command(program, str(number)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(processes)
    ]
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in started:
        process.communicate("go\n")
    assert [process.returncode for process in started] == [0] * processes


def test_two_processes_lose_nothing() -> None:
    manager = BudgetManager("shop")
    manager.create_budget(10, "alice")
    run(SPENDER, 2)
    # 400 tokens of gpt-4o's input are worth $0.001.
    assert manager.get_current_cost("alice") == 0.1
    assert len(manager.get_users()) == 101
    manager.save_data()
    assert json.loads(Path("user_cost.json").read_text()) == manager.user_dict
    manager.close()


def test_processes_that_import_at_once_import_once() -> None:
    records = {f"user {number}": {"total_budget": 1} for number in range(20)}
    alice = {"total_budget": 10, "current_cost": 2.0, "model_cost": {"gpt-4o": 2.0}}
    Path("user_cost.json").write_text(json.dumps({**records, "alice": alice}))
    run(IMPORTER, 2)
    manager = BudgetManager("shop")
    assert len(manager.get_users()) == 21
    assert manager.get_current_cost("alice") in (3, 4)
    manager.close()


def test_threads_lose_nothing(manager: BudgetManager) -> None:
    import litellm

    manager.create_budget(10, "alice")
    usage = {"prompt_tokens": 400, "completion_tokens": 0, "total_tokens": 400}

    def work(name: int) -> None:
        for number in range(25):
            response = litellm.ModelResponse(id=f"{name}-{number}", model="gpt-4o", usage=usage)
            assert manager.update_cost("alice", response)["user"]["current_cost"] >= 0.001
            manager.create_budget(1, f"user {name} {number}")
            assert manager.is_valid_user(f"user {name} {number}") and len(manager.user_dict) > number

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert manager.get_current_cost("alice") == 0.2
    assert len(manager.user_dict) == 201
