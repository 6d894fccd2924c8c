"""A stress test that calls under random files of limits, and checks each refusal against a model of the files.

python -m tests.stores.limits_crowd URL NUMBER

Prints, as JSON, its charges: [file, [user, class, team, tags, runs, model, cost, tokens]], and the number of refused calls.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import threading
from pathlib import Path

from litellm_budget_plugin.budget_file import read_file
from litellm_budget_plugin.core.accounts import Amounts, Subject
from litellm_budget_plugin.core.commands import Command, Granted, Refused, Release, Reply, Reserve, Settle
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.policy import Policy
from litellm_budget_plugin.stores.protocol import Store, ask
from litellm_budget_plugin.stores.registry import open_store
from tests import limits_model as model

PROCESSES, THREADS, ATTEMPTS = 8, 4, 20
FILES = (3, 5, 6, 11)
"""The seeds of the files. Each has a project of its own."""
HOUR = 3_600_000_000
NOW = round(model.NOON.timestamp() * 1_000_000)
_MOST_TRIES = 200


def file_of(seed: int) -> tuple[model.File, dict[str, str | None]]:
    """A file of limits, and the class of each user's calls."""
    dice = random.Random(seed)
    return model.File(dice), model.random_classes(dice)


def policy_of(file: model.File) -> Policy:
    """The file, read by the package."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "budgets.toml"
        path.write_text(file.text)
        return read_file(path, "UTC", {})


class Member:
    """One thread: it holds, then charges or releases."""

    def __init__(self, store: Store, name: str) -> None:
        self.charged: list[tuple[int, model.Call]] = []
        self.refused = 0
        self._store, self._name, self._dice = store, name, random.Random(name)

    def work(self) -> None:
        """Make all attempts."""
        files = {seed: (*file_of(seed), policy_of(file_of(seed)[0])) for seed in FILES}
        for number in range(ATTEMPTS):
            seed = self._dice.choice(FILES)
            file, classes, policy = files[seed]
            self._attempt(f"{self._name}-{number}", seed, file, policy, model.random_call(self._dice, classes))

    def _attempt(self, hold: str, seed: int, file: model.File, policy: Policy, call: model.Call) -> None:
        project, names = f"p{seed}", model.NAMES[call.model]
        subjects = tuple(Subject(*each) for each in call.subjects)
        defaults = policy.defaults_of(subjects, call.user_class)
        want = Amounts(call.cost, 1, call.tokens)
        reply = self._ask(Reserve(hold, project, subjects, names, want, HOUR, defaults, now=NOW))
        if isinstance(reply, Refused):
            self.refused += 1
            budget = model.named(file.budgets(call), reply.account)
            assert budget is not None, (file.text, call, reply)
            assert reply.limit == budget.amount and reply.requested == call.charge(budget.unit), (call, reply)
            assert reply.spent + reply.held + reply.requested > reply.limit, reply
            assert (reply.reason == "spent") == (reply.spent + reply.requested > reply.limit), reply
            return
        assert isinstance(reply, Granted), reply
        if self._dice.random() < 0.2:
            self._ask(Release(hold, project, now=NOW))
            return
        charge = Settle(hold, project, subjects, names, call.cost, call.model, call.tokens, defaults=defaults, now=NOW)
        self._ask(charge)
        self.charged.append((seed, call))

    def _ask(self, command: Command) -> Reply:
        for _ in range(_MOST_TRIES):
            try:
                return ask(self._store, command)
            except BudgetStoreUnavailable:
                # Other threads move the same windows.
                continue
        raise AssertionError(f"not answered: {command}")


def work(store: Store, number: int) -> tuple[list[tuple[int, model.Call]], int]:
    """Run one process. Returns its charges and the number of refused calls."""
    members = [Member(store, f"{number}-{thread}") for thread in range(THREADS)]
    failures: list[BaseException] = []

    def one(member: Member) -> None:
        try:
            member.work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=one, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [each for member in members for each in member.charged], sum(member.refused for member in members)


if __name__ == "__main__":
    opened = open_store(sys.argv[1], test_clock=True, timeout=10.0)
    print(json.dumps(work(opened, int(sys.argv[2]))), flush=True)
    opened.close()
