"""A stress test of one ledger: processes with many threads each, on a few users, until they have made some calls.

python -m tests.stores.crowd URL CALLS SEED

Each process prints as JSON what was acknowledged: {"charged": {user: nano-dollars}, "calls": number, "refused": number}. It ends with
an error if it reads more than a limit allows.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import replace

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import (
    Accounts,
    Command,
    Granted,
    Read,
    Refused,
    Release,
    Reply,
    Reserve,
    Settle,
)
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.stores.protocol import Store, ask
from litellm_budget_plugin.stores.registry import open_store

THREADS = 16
USERS = 12
PROJECT = Subject("project", "p")
DEFAULTS = (Default("user", "none", 6_000), Default("project", "none", 40_000))
LIMITS = {"user": 6_000, "project": 40_000}
MINUTE = 60_000_000
PATIENCE = 60.0
"""The time (seconds) for which a member asks a store that does not answer."""


class Member:
    """One thread: it holds and then charges, releases or tries again, and repeats some of its commands."""

    def __init__(self, store: Store, name: str, calls: int) -> None:
        self.charged: Counter[str] = Counter()
        self.calls = self.refused = 0
        self._store, self._name, self._most = store, name, calls
        self._until = time.monotonic() + PATIENCE
        self._dice = random.Random(name)

    def work(self) -> None:
        """Work until all calls are made; refused ones do not count."""
        number = 0
        while self.calls < self._most and time.monotonic() < self._until:
            number += 1
            self._call(f"{self._name}-{number}", f"u{self._dice.randrange(USERS)}")
            if self._dice.random() < 0.05:
                self._look()

    def _call(self, hold: str, user: str) -> None:
        dice, subjects = self._dice, (Subject("user", user), PROJECT)
        want = dice.randint(100, 4000)
        reserve = Reserve(
            hold, "p", subjects, ("m",), Amounts(want), MINUTE, DEFAULTS, at_least=dice.choice((None, 50))
        )
        reply = self._ask(reserve)
        if isinstance(reply, Refused):
            self.refused += 1
            return
        assert isinstance(reply, Granted), reply
        end = dice.random()
        if end < 0.1:
            self._ask(Release(hold, "p"))
            return
        if end < 0.2:
            again = f"{hold}/2"
            reply = self._ask(replace(reserve, hold=again, replaces=hold))
            if not isinstance(reply, Granted):
                self._ask(Release(hold, "p"))
                return
            hold = again
        cost = dice.randint(0, min(3, reply.amounts.usd))
        self._ask(Settle(hold, "p", subjects, ("m",), cost, "m", defaults=DEFAULTS))
        self.charged[user] += cost
        self.calls += 1

    def _ask(self, command: Command) -> Reply:
        """Return the reply, asking until it comes. Sometimes ask twice, like a caller that did not receive it."""
        for _ in range(1 + (self._dice.random() < 0.1)):
            while True:
                try:
                    reply = ask(self._store, command)
                    break
                except BudgetStoreUnavailable:
                    if time.monotonic() > self._until:
                        raise
                    time.sleep(0.01)
        return reply

    def _look(self) -> None:
        for scope, limit in LIMITS.items():
            reply = self._ask(Read("p", scope, defaults=DEFAULTS))
            assert isinstance(reply, Accounts)
            for account in reply.accounts:
                assert account.spent + account.held <= limit and account.held >= 0, account


def run(url: str, calls: int, seed: str) -> None:
    """Run one process."""
    store = open_store(url, timeout=10.0)
    members = [Member(store, f"{seed}-{number}", -(-calls // THREADS)) for number in range(THREADS)]
    failures: list[BaseException] = []

    def work(member: Member) -> None:
        try:
            member.work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    if failures:
        raise failures[0]
    charged = sum((member.charged for member in members), Counter[str]())
    calls, refused = sum(member.calls for member in members), sum(member.refused for member in members)
    print(json.dumps({"charged": charged, "calls": calls, "refused": refused}), flush=True)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), sys.argv[3])
