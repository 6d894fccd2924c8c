"""`BudgetManager.update_cost(user, response)` until the charge is saved, against LiteLLM's own class, with 10, 1,000 and
100,000 users. LiteLLM's `update_cost` starts a thread that rewrites user_cost.json: its time is until that thread has ended.
Ours is in the ledger when it returns; "and save_data()" also writes user_cost.json anew, as one does to go back to LiteLLM.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litellm

from benchmarks.filling import fill, user_name
from benchmarks.report import Row, duration
from benchmarks.rounds import in_turn
from litellm_budget_plugin import BudgetManager, BudgetSettings

SIZES = {10: 15, 1_000: 15, 100_000: 3}
"""The number of rounds by the number of users."""
LIMIT = 1_000_000.0


def response() -> Any:
    """Return an answer that no ledger has seen. It costs $0.0125 at gpt-4o's price."""
    usage = litellm.Usage(prompt_tokens=1000, completion_tokens=1000, total_tokens=2000)
    answer = litellm.ModelResponse(id=f"chatcmpl-{uuid.uuid4()}", model="gpt-4o")
    answer.usage = usage
    return answer


def ours(users: int) -> BudgetManager:
    """Return our manager with this number of users with spend."""
    path = Path("ledger.db").resolve()
    settings = BudgetSettings(store_url=f"sqlite:///{path}")
    manager = BudgetManager("benchmark", settings=settings)
    manager.create_budget(LIMIT, "template")
    manager.update_cost("template", response())
    manager.close()
    fill(str(path), "template", users - 1)
    manager = BudgetManager("benchmark", settings=settings)
    assert len(manager.get_users()) == users
    return manager


def litellms(users: int) -> Any:
    """Return LiteLLM's manager with the same users and spend."""
    manager = litellm.BudgetManager("benchmark")
    for number in range(1, users + 1):
        record = {"total_budget": LIMIT, "current_cost": 0.0125, "model_cost": {"gpt-4o": 0.0125}}
        manager.user_dict[user_name(number)] = record
    return manager


def saved_by_thread(manager: Any, user: str) -> None:
    """Call LiteLLM's `update_cost`, and wait for the thread that it starts to save the file."""
    before = set(threading.enumerate())
    manager.update_cost(user, response())
    for thread in set(threading.enumerate()) - before:
        thread.join()


def compare(users: int, rounds: int) -> list[Row]:
    """Return the rows for one size. Each manager works in its own directory."""
    places = {}
    for whose in ("ours", "litellm"):
        places[whose] = Path(f"{whose}-{users}").resolve()
        places[whose].mkdir()
    os.chdir(places["ours"])
    mine = ours(users)
    os.chdir(places["litellm"])
    theirs = litellms(users)
    user = user_name(users // 2)

    def timed(whose: str, action: Callable[[], object]) -> float:
        os.chdir(places[whose])
        begun = time.perf_counter()
        action()
        return time.perf_counter() - begun

    def update_and_save() -> None:
        mine.update_cost(user, response())
        mine.save_data()

    arms = {
        "theirs": lambda: timed("litellm", lambda: saved_by_thread(theirs, user)),
        "update": lambda: timed("ours", lambda: mine.update_cost(user, response())),
        "save": lambda: timed("ours", update_and_save),
    }
    timings = in_turn(arms, rounds)
    mine.close()
    os.chdir(places["litellm"].parent)
    against = f"{duration(timings.seconds('theirs'))} LiteLLM's, saved"
    return [
        Row(f"{what}, {users:,} users", duration(timings.seconds(arm)), against, f"{timings.ratio(arm, 'theirs'):.3g}x")
        for arm, what in (("update", "update_cost"), ("save", "update_cost and save_data()"))
    ]


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    return [row for users, rounds in SIZES.items() for row in compare(users, rounds)]
