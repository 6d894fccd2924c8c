"""A stress test: eight processes under random files of limits, on every engine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Accounts, Read
from litellm_budget_plugin.stores.protocol import Store
from tests import limits_model as model
from tests.stores.engines import ENGINES
from tests.stores.limits_crowd import FILES, NOW, PROCESSES, file_of, policy_of, work

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("engine", ["memory", "sqlite", "postgres", "redis"])
def test_no_limit_is_passed_and_none_refuses_that_does_not_apply(
    engine: str, tmp_path: Path, opened: Callable[..., Store]
) -> None:
    """Each member checks its refusals; this test checks that the spend is exact."""
    url = ENGINES[engine](tmp_path)
    store = opened(url, test_clock=True)
    if engine == "memory":
        with ThreadPoolExecutor(PROCESSES) as pool:
            said: list[Any] = list(pool.map(lambda number: work(store, number), range(PROCESSES)))
    else:
        command = [sys.executable, "-m", "tests.stores.limits_crowd", url]
        crowd = [
            subprocess.Popen([*command, str(number)], cwd=ROOT, text=True, stdout=subprocess.PIPE)
            for number in range(PROCESSES)
        ]
        said = [json.loads(process.communicate()[0] or "null") for process in crowd]
        assert not any(process.returncode for process in crowd)
    assert sum(refused for _, refused in said) > 100
    calls = [(seed, _call(each)) for charged, _ in said for seed, each in charged]
    assert len(calls) > 100
    for seed in FILES:
        _check(store, seed, [call for each, call in calls if each == seed])


def _call(said: list[Any]) -> model.Call:
    user, user_class, team, tags, runs, name, cost, tokens = said
    return model.Call(user, user_class, team, tuple(tags), tuple(runs), name, cost, tokens)


def _check(store: Store, seed: int, calls: list[model.Call]) -> None:
    file, _ = file_of(seed)
    policy, ledger = policy_of(file), model.Ledger(file)
    for call in calls:
        ledger.charge(call, model.NOON)
    for budget in {budget for call in calls for budget in file.budgets(call)}:
        spent = ledger.spent(budget, model.NOON)
        assert budget.amount is None or spent <= budget.amount, budget
        classes = {call.user_class for call in calls if call.user == budget.subject}
        subject = Subject(budget.scope, budget.subject)
        defaults = policy.defaults_of([subject], next(iter(classes), None))
        reply = store.execute(Read(f"p{seed}", *subject, defaults=defaults, now=NOW))
        assert isinstance(reply, Accounts)
        found = [each for each in reply.accounts if model.named([budget], each.ref)]
        assert [(each.spent, each.held) for each in found] == [(spent, 0)], budget
