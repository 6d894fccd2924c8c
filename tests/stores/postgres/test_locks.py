"""Commands beside each other and alone: no cycle of locks forms, and each reads the newest rows."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import replace

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import (
    KEEP,
    Command,
    DropBudget,
    Granted,
    PutBudget,
    Read,
    Release,
    Renew,
    Reserve,
    Reset,
    Settle,
    Settled,
    Sweep,
)
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.stores.protocol import Store, ask
from tests.stores.desk import LIMIT, account_of, calls_of, charge_of, hold_of
from tests.stores.postgres.conftest import Look
from tests.stores.postgres.server import Server

Opener = Callable[..., Store]

SUBJECTS = (Subject("user", "a"), Subject("user", "b"), Subject("team", "c"), Subject("project", "p"))
DEFAULTS = (
    Default("user", "none", 3000),
    Default("user", "none", 5000, "m"),
    Default("team", "90s", 4000),
    Default("project", "day", 10**6),
)


def any_command(dice: random.Random, number: str) -> Command:
    """A random command on few accounts and few holds, so that all kinds meet."""
    subjects = tuple(dice.sample(SUBJECTS, dice.randint(1, 4)))
    hold, other = (f"h{dice.randrange(30)}" if dice.random() < 0.3 else f"n{number}" for _ in range(2))
    kind = dice.randrange(12)
    if kind < 4:
        reserve = Reserve(
            hold, "p", subjects, ("m",), Amounts(dice.randint(0, 400), 1), 1 + dice.randrange(2) * 10**8, DEFAULTS
        )
        if dice.random() < 0.2 and other != hold:
            reserve = replace(reserve, replaces=other)
        return reserve
    if kind < 8:
        aliases = tuple(f"a{dice.randrange(20)}" for _ in range(dice.randrange(3)))
        unless = aliases[0] if aliases and dice.random() < 0.5 else None
        return Settle(
            hold, "p", subjects, ("m",), dice.randint(0, 3), "m", defaults=DEFAULTS, aliases=aliases, unless=unless
        )
    if kind == 8:
        return Release(hold, "p")
    if kind == 9:
        return Renew(tuple(f"h{dice.randrange(30)}" for _ in range(5)), "p", 10**7)
    budgets = (
        PutBudget(number, "p", dice.choice(SUBJECTS), window=dice.choice((KEEP, "none", "7d")), limit=5000, only=True),
        PutBudget(number, "p", dice.choice(SUBJECTS), "m", limit=dice.choice((KEEP, 4000)), blocked=False),
        DropBudget(number, "p", dice.choice(SUBJECTS)),
        Reset(number, "p", dice.choice(SUBJECTS)),
        Read("p", "user", defaults=DEFAULTS),
        Sweep("p", 10**6 * 3600, 10**6 * 86400),
    )
    return dice.choice(budgets)


def test_no_deadlock(own_server: Callable[..., Server], opened: Opener, look: Look) -> None:
    """All kinds of commands on few accounts, from 16 connections, on a server that checks for deadlocks all the time."""
    server = own_server("fsync=off", "deadlock_timeout=1ms", "log_lock_waits=on")
    url = server.url(pool_size=6)
    # Each store remembers its own rows, which the others change.
    stores = [opened(url, timeout=60.0) for _ in range(3)]
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        dice, store = random.Random(seed), stores[seed % 3]
        try:
            for number in range(250):
                command = any_command(dice, f"{seed}-{number}")
                if dice.random() < 0.1:
                    store.execute_all([command, any_command(dice, f"{seed}-{number}b")])
                else:
                    ask(store, command)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[:3]
    assert look(url, "SELECT sum(deadlocks) FROM pg_stat_database") == [(0,)]
    # They did wait for each other: without contention, the test would prove nothing.
    assert "still waiting for" in (server.folder / "log").read_text()
    # The ledger is consistent: held is the sum of the open holds.
    schema = url.partition("schema=")[2].partition("&")[0]
    held = look(url, f"SELECT scope, subject, model, period, unit, held FROM {schema}.accounts WHERE held <> 0")
    legs = look(
        url,
        f"SELECT l->>0, l->>1, l->>2, l->>3, l->>4, sum(CASE l->>4 WHEN 'usd' THEN usd WHEN 'calls' THEN calls ELSE tokens END)"
        f" FROM {schema}.holds h, jsonb_array_elements(legs) l WHERE state = 'open' GROUP BY 1, 2, 3, 4, 5",
    )
    assert sorted(held) == sorted(row for row in legs if row[-1])


def test_a_command_that_has_to_be_alone_gives_its_locks_back(url: str, opened: Opener, look: Look) -> None:
    """Otherwise two commands that discover this at the same time, beside each other, would wait for each other forever."""
    store = opened(f"{url}&pool_size=20", timeout=30.0)
    for round_ in range(20):
        # A new user's first calls: one of them makes the account, while the others have the shared lock.
        subject = (Subject("user", f"u{round_}"),)
        threads = [
            threading.Thread(
                target=store.execute, args=(replace(hold_of(f"{round_}-{number}"), subjects=subject, defaults=LIMIT),)
            )
            for number in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reply = store.execute(Read("p", "user", f"u{round_}", defaults=LIMIT))
        assert reply.accounts[0].held == 100  # type: ignore[union-attr]


def test_deliveries_of_one_hold_at_once(url: str, opened: Opener) -> None:
    """Deliveries of a Reserve, and of the Settle of an unknown hold: each counts once, on any accounts."""
    store = opened(f"{url}&pool_size=20", timeout=30.0)
    store.execute(hold_of("first", usd=0))
    for round_ in range(10):
        hold, charge = hold_of(f"h{round_}"), charge_of(f"c{round_}", usd=1)
        replies: list[object] = []
        threads = [
            threading.Thread(
                target=lambda command, replies: replies.append(store.execute(command)), args=(command, replies)
            )
            for command in (hold, charge) * 5
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert replies.count(Granted(hold.hold, hold.want)) == replies.count(Settled(charge.hold)) == 5
    assert (account_of(store).held, account_of(store).spent) == (100, 10)
    assert calls_of(store) == 10


def test_a_lock_that_others_hold_does_not_outlast_the_time_out(url: str, opened: Opener) -> None:
    """Another session has locked a row of the ledger: the call is answered in time, and later applied once."""
    import psycopg

    store = opened(url, timeout=30.0)
    store.execute(hold_of("first"))
    schema = url.partition("schema=")[2]
    host = url.partition("host=")[2].partition("&")[0]
    with psycopg.connect(f"postgresql://postgres@/postgres?host={host}") as other:
        other.execute(f"SELECT * FROM {schema}.accounts FOR UPDATE")
        try:
            store.execute(charge_of("h"), timeout=0.1)
        except Exception as error:
            assert isinstance(error, BudgetStoreUnavailable) and "a lock of the ledger" in str(error)
        else:
            raise AssertionError("it did not wait")
    assert store.execute(charge_of("h")) == Settled("h")
    assert calls_of(store) == 1
