"""Rows on a server that several processes change: leases, guarded steps, and sums too large for a double."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import redis

from litellm_budget_plugin.core.accounts import Account, Amounts, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.row_store import Changes
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.net.engine import Add, Sum
from litellm_budget_plugin.stores.net.transaction import Transaction
from litellm_budget_plugin.stores.redis import engine as redis_engine
from litellm_budget_plugin.stores.redis.address import parse_address
from litellm_budget_plugin.stores.redis.engine import RedisEngine
from litellm_budget_plugin.stores.redis.names import root_of
from litellm_budget_plugin.stores.rows import Rows
from tests.stores.processes import Child
from tests.stores.redis.proxy import RedisProxy
from tests.stores.redis.server import Server

Opener = Callable[[str], RedisEngine]
ALICE, BOB = Subject("user", "alice"), Subject("user", "bob")
NOW, DAY = 1_774_734_000_000_000, 86_400_000_000
DAYS = NOW // DAY
MOST = 2**53 - 1


@pytest.fixture
def engine() -> Iterator[Opener]:
    """Open engines on a URL."""
    opened: list[RedisEngine] = []

    def open_one(url: str) -> RedisEngine:
        opened.append(RedisEngine(parse_address(*url.split("://", 1))))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def account(subject: Subject, **more: Any) -> Account:
    return Account(Ref(*subject), f"row of {subject.id}", NOW, NOW, None, **more)


def put(*accounts: Account) -> Callable[[Transaction], None]:
    """The work of a transaction that makes or changes accounts."""
    return lambda transaction: transaction.write("", Changes({one.ref: one for one in accounts}))


def put_hold(*holds: Hold) -> Callable[[Transaction], None]:
    return lambda transaction: transaction.write("", Changes(holds={hold.id: hold for hold in holds}))


def made(one: RedisEngine, *accounts: Account, project: str = "p") -> dict[Subject, int]:
    """Put accounts, and return the versions of their subjects."""
    one.transact(project, (), (), NOW, put(*accounts), soon())
    subjects = {Subject(one.ref.scope, one.ref.subject) for one in accounts}
    return {subject: seen.version for subject, seen in view(one, *subjects, project=project).subjects.items()}


def view(one: RedisEngine, *subjects: Subject, holds: tuple[str, ...] = (), project: str = "p") -> Any:
    return one.view(project, subjects, holds, NOW, soon())


def spent(one: RedisEngine, subject: Subject = ALICE, project: str = "p") -> list[int]:
    return [row.spent for row in view(one, subject, project=project).subjects[subject].accounts]


def charge(
    hold: str, version: int, amount: int = 1, project: str = "p", expected: Hold | None = None, **more: Any
) -> Add:
    """A step that charges alice."""
    bounds = {name: more.pop(name) for name in ("most", "known") if name in more}
    sums = (Sum(Ref(*ALICE), amount, 0, "m", **bounds),)
    holds = ((Hold(hold, "settled", 0), expected),)
    fields = {
        "holds": holds,
        "since": NOW,
        "until": NOW + 1,
        "subjects": ((ALICE, version),),
        "sums": sums,
        "now": NOW,
        **more,
    }
    return Add(project, **fields)


def test_a_transaction_keeps_others_out_until_it_has_written(url: str, engine: Opener) -> None:
    one, other = engine(url), engine(url)
    versions = made(one, account(ALICE))
    entered: list[int] = []

    def other_work(transaction: Transaction) -> None:
        entered.append(transaction.accounts("p", ALICE)[0].spent)

    thread = threading.Thread(target=lambda: other.transact("p", (ALICE,), (), NOW, other_work, soon()))

    def work(transaction: Transaction) -> None:
        thread.start()
        for use in (
            lambda: other.add([charge("h", versions[ALICE])], soon(0.02)),
            lambda: other.forget("p", NOW, soon(0.02)),
            lambda: other.fold("p", DAYS, soon(0.02)),
            lambda: other.load("p", Rows((account(BOB),)), soon(0.02)),
        ):
            with pytest.raises(BudgetStoreUnavailable, match="busy|no answer"):
                use()
        assert spent(other) == [0] and not entered
        put(account(ALICE, spent=5, models={"m": 5}))(transaction)

    one.transact("p", (ALICE,), (), NOW, work, soon())
    thread.join()
    assert entered == [5]
    assert other.add([charge("h", versions[ALICE])], soon()) == 1
    assert spent(one) == [6]


@pytest.mark.parametrize("when", ["before it reads more", "before it writes"])
def test_work_whose_lease_has_ended_is_done_again(url: str, engine: Opener, when: str) -> None:
    """A process was suspended for long: its rows are old."""
    one, other = engine(url), engine(url)
    made(one, account(ALICE))
    rounds: list[int] = []

    def work(transaction: Transaction) -> int:
        (row,) = transaction.accounts("p", ALICE)
        rounds.append(row.spent)
        if len(rounds) == 1:
            # This waits until the lease has expired.
            other.transact("p", (), (), NOW, put(account(ALICE, spent=100, models={"m": 100})), soon())
            if when == "before it reads more":
                transaction.hold("p", "h")
                raise AssertionError("it has read rows of another moment")
        put(account(ALICE, spent=row.spent + 1, models={"m": row.spent + 1}))(transaction)
        return len(rounds)

    assert one.transact("p", (ALICE,), (), NOW, work, soon()) == 2
    assert rounds == [0, 100] and spent(other) == [101]


def test_a_process_that_dies_in_a_transaction_stalls_the_others_for_its_lease(url: str, engine: Opener) -> None:
    one = engine(url)
    made(one, account(ALICE))

    def die(parent: Child) -> None:
        RedisEngine(parse_address(*url.split("://", 1))).transact(
            "p", (ALICE,), (), NOW, lambda _: os.kill(os.getpid(), signal.SIGKILL), soon()
        )

    child = Child(die)
    assert os.WTERMSIG(os.waitpid(child.pid, 0)[1]) == signal.SIGKILL
    began = time.monotonic()
    one.transact("p", (), (), NOW, put(account(ALICE, spent=1, models={"m": 1})), soon())
    assert time.monotonic() - began < 1.0
    assert spent(one) == [1]


def test_work_that_fails_or_changes_nothing_gives_its_lease_back(
    url: str, engine: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is released at once, because a lease of a minute would delay all others."""
    monkeypatch.setattr(redis_engine, "_LEASE", 60_000)
    one, other = engine(url), engine(url)
    versions = made(one, account(ALICE))

    def fail(_: Transaction) -> None:
        raise BudgetInputError("wrong")

    for number in range(20):
        with pytest.raises(BudgetInputError, match="wrong"):
            one.transact("p", (ALICE,), (), NOW, fail, soon())
        assert one.transact("p", (ALICE,), (), NOW, lambda transaction: transaction.now, soon()) == NOW
        assert other.add([charge(f"h{number}", versions[ALICE])], soon(1.0)) == 1
    assert spent(one) == [20]


def test_a_lost_answer_to_what_is_written(
    own_server: Callable[..., Server], engine: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is repeated on the rows that it wrote the first time."""
    # No lease expires meanwhile.
    monkeypatch.setattr(redis_engine, "_LEASE", 60_000)
    server = own_server()
    proxy = RedisProxy(server.port)
    with closing(proxy):
        one = engine(server.url.replace(f":{server.port}/", f":{proxy.port}/"))
        made(one, account(ALICE))
        rounds: list[Hold | None] = []

        def work(transaction: Transaction) -> None:
            rounds.append(transaction.hold("p", "h"))
            if rounds[-1] is None:
                put_hold(Hold("h", "settled", NOW))(transaction)
                proxy.lose_answers(1)

        one.transact("p", (ALICE,), ("h",), NOW, work, soon())
        assert rounds == [None, Hold("h", "settled", NOW)]
        proxy.lose_answers(1)
        # The lease was taken, but the answer was lost: the same transaction takes it again.
        again = one.transact("p", (ALICE,), ("h",), NOW, lambda transaction: transaction.hold("p", "h"), soon())
        assert again == rounds[1]


def test_steps_stop_at_the_first_that_does_not_fit(url: str, engine: Opener) -> None:
    """Also at a step of another project; the steps after it are not applied."""
    one = engine(url)
    version, elsewhere = made(one, account(ALICE))[ALICE], made(one, account(ALICE), project="q")[ALICE]
    steps = [
        charge("a", version),
        charge("b", elsewhere, project="q"),
        charge("a", version),
        charge("c", version),
        charge("d", elsewhere, project="q"),
    ]
    assert one.add(steps, soon()) == 2
    assert (spent(one), spent(one, project="q")) == ([1], [1])
    assert one.add([charge(f"many {number}", version) for number in range(250)], soon()) == 250
    assert spent(one) == [251]
    assert one.add([], soon()) == 0


def refusals(version: int) -> dict[str, Add]:
    """Steps that each fail one guard; alice has spent 10 and holds 5 for `open`."""
    still_open = Hold("open", "open", 1, Amounts(5), legs=(Ref(*ALICE),), subjects=(ALICE,))
    own, paying = (Hold("h", "settled", 0), None), replace(still_open, amounts=Amounts(3))
    return {
        "too early": charge("h", version, since=NOW + 1, until=NOW + 2),
        "too late": charge("h", version, since=0, until=NOW),
        "other version": charge("h", version + 1),
        "other version of a subject without sums": charge("h", version, subjects=((ALICE, version), (BOB, 1))),
        "more than there is room": charge("h", version, 10, most=24),
        "other sums": charge("h", version, known=(10, 4)),
        "other sums spent": charge("h", version, known=(9, 5)),
        "known hold": charge("open", version),
        "known mark": charge("mark", version),
        "closed hold": charge("mark", version, expected=Hold("mark", "open", 1, Amounts(5))),
        "hold of other amounts": charge("open", version, expected=Hold("open", "open", 1, Amounts(6))),
        "no account": charge("h", version, sums=(Sum(Ref(*ALICE, "other"), 1),)),
        "hold that is not there": charge("h", version, expected=still_open),
        "second hold of other amounts": charge(
            "h", version, holds=(own, (paying, replace(still_open, amounts=Amounts(6))))
        ),
        "second hold that is not there": charge("h", version, holds=((replace(paying, id="x"), paying), own)),
    }


@pytest.mark.parametrize("why", sorted(refusals(1)))
def test_a_step_that_does_not_fit_changes_nothing(url: str, engine: Opener, why: str) -> None:
    one = engine(url)
    version = made(one, account(ALICE, spent=10, held=5, models={"m": 10}))[ALICE]
    still_open = Hold("open", "open", NOW + 60, Amounts(5), legs=(Ref(*ALICE),), subjects=(ALICE,))
    one.transact("p", (), (), NOW, put_hold(still_open, Hold("mark", "released", NOW)), soon())
    rows = one.export("p", "", 100, soon()), view(one, holds=("open", "mark", "h"))
    assert one.add([refusals(version)[why]], soon()) == 0
    assert (one.export("p", "", 100, soon()), view(one, holds=("open", "mark", "h"))) == rows
    fitting = charge("open", version, 10, most=25, known=(10, 5), expected=still_open)
    assert one.add([fitting], soon()) == 1
    assert view(one, holds=("open",)).holds["open"] == Hold("open", "settled", NOW)


def test_a_hold_that_is_drawn_from_keeps_its_time_limit(url: str, engine: Opener) -> None:
    one = engine(url)
    version = made(one, account(ALICE))[ALICE]
    before = Hold("open", "open", NOW + 60, Amounts(5), legs=(Ref(*ALICE),), subjects=(ALICE,))
    one.transact("p", (), (), NOW, put_hold(before), soon())
    left = replace(before, amounts=Amounts(3))
    known = replace(before, at=1), replace(left, at=1)
    steps = [
        charge("h", version, holds=((known[1], known[0]), (Hold("h", "settled", 0), None))),
        charge("i", version, holds=((known[1], known[1]), (Hold("i", "settled", 0), None))),
        charge("j", version, holds=((known[1], known[0]), (Hold("j", "settled", 0), None))),
    ]
    assert one.add(steps, soon()) == 2
    holds = {"open": left, "h": Hold("h", "settled", NOW), "i": Hold("i", "settled", NOW), "j": None}
    assert view(one, holds=("open", "h", "i", "j")).holds == holds


def test_sums_that_no_double_holds(url: str, engine: Opener) -> None:
    """They are increased, folded, compared and read exactly."""
    one = engine(url)
    version = made(one, account(ALICE))[ALICE]
    key = UsageKey("user", "alice", DAYS, "m")
    for number in range(7):
        usage = {key: Usage(MOST, 1, MOST - number, 3)}
        assert one.add([charge(f"h{number}", version, MOST, usage=usage)], soon()) == 1
    total = Usage(7 * MOST, 7, 7 * MOST - 21, 21)
    assert spent(one) == [7 * MOST]
    assert view(one, ALICE).subjects[ALICE].accounts[0].models == {"m": 7 * MOST}
    assert one.usage_rows("p", "user", None, 0, DAYS, soon()) == [(key, total)]
    assert one.transact("p", (), (), NOW, lambda transaction: transaction.usage("p", key), soon()) == total
    # Too large by one.
    large = made(one, account(BOB, spent=MOST + 2, models={"m": MOST + 2}))[BOB]
    back = charge("back", large, subjects=((BOB, large),), sums=(Sum(Ref(*BOB), -5, 0, "m", most=MOST - 4),))
    assert one.add([back], soon()) == 0
    assert one.add([charge("bound", version, most=MOST)], soon()) == 0
    assert one.add([charge("known", version, known=(7 * MOST - 1, 0))], soon()) == 0
    assert one.add([charge("known", version, -MOST, known=(7 * MOST, 0))], soon()) == 1
    assert spent(one) == [6 * MOST]
    assert one.fold("p", DAYS + 1, soon()) == 1
    assert one.usage_rows("p", "user", "alice", 0, DAYS, soon()) == [(key._replace(day=0), total)]
    for number in range(6):
        assert one.add([charge(f"back {number}", version, -MOST)], soon()) == 1
    (row,) = view(one, ALICE).subjects[ALICE].accounts
    assert (row.spent, row.models) == (0, {})


def test_upkeep_goes_in_steps(url: str, engine: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_engine, "_ROWS", 10)
    one = engine(url)
    marks = [Hold(f"h{number:03}", ("settled", "refused")[number % 2], NOW + number) for number in range(50)]
    still_open = Hold("open", "open", NOW, Amounts(1))
    usage = {UsageKey("user", f"{name}", day, "m"): Usage(1, 1) for name in range(5) for day in range(1, 8)}
    one.transact("p", (), (), NOW, lambda work: work.write("", Changes({}, {}, usage)), soon())
    one.transact("p", (), (), NOW, put_hold(*marks, still_open), soon())
    assert one.forget("p", NOW + 35, soon()) == 35
    assert one.forget("p", NOW + 35, soon()) == 0
    ids = tuple(hold.id for hold in (*marks, still_open))
    assert view(one, holds=ids).holds == {
        hold.id: (hold if hold.at >= NOW + 35 or hold == still_open else None) for hold in (*marks, still_open)
    }
    assert one.fold("p", 6, soon()) == 25
    assert one.fold("p", 6, soon()) == 0
    expected = sorted(
        (UsageKey("user", f"{name}", day, "m"), Usage(5, 5) if day == 0 else Usage(1, 1))
        for name in range(5)
        for day in (0, 6, 7)
    )
    assert one.usage_rows("p", "user", None, 0, 9, soon()) == expected
    assert one.transact("p", (), (), NOW + 1, lambda work: work.due("p", work.now, None), soon()) == [still_open]


def test_a_large_transaction_is_written_whole(url: str, engine: Opener) -> None:
    """It has more rows than one Redis command may have arguments."""
    one = engine(url)
    accounts = [account(Subject("user", f"u{number:05}"), limit=number, pinned=True) for number in range(3000)]
    holds = [Hold(f"h{number:05}", "open", NOW + number % 7, Amounts(1)) for number in range(3000)]
    one.transact("p", (), (), NOW, put(*accounts), soon(60))
    one.transact("p", (), (), NOW, put_hold(*holds), soon(60))
    found, ids = one.page("p", "user", "u00010", 2500, NOW, soon(60))
    assert ids == [f"u{number:05}" for number in range(11, 2511)]
    assert [found.subjects[Subject("user", one)].accounts for one in ids] == [(one,) for one in accounts[11:2511]]
    ordered = sorted(holds, key=lambda hold: (hold.at, hold.id))
    read = one.transact(
        "p",
        (),
        (),
        NOW + 3,
        lambda work: (work.due("p", NOW + 3, None), work.due("p", NOW + 3, 700), work.open_holds("p")),
        soon(60),
    )
    assert read == ([hold for hold in ordered if hold.at <= NOW + 3], ordered[:700], holds)


def test_the_server_does_not_search(own_server: Callable[..., Server], engine: Opener) -> None:
    """A step takes the same time with many rows in the ledger as with few."""
    server = own_server()
    one = engine(server.url)
    version = made(one, account(ALICE))[ALICE]

    def slowest(client: redis.Redis) -> float:
        client.config_resetstat()
        for number in range(50):
            one.add([charge(f"{time.monotonic()} {number}", version)], soon())
        return float(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])

    with closing(server.client()) as client:
        few = min(slowest(client) for _ in range(3))
        for first in range(0, 50_000, 5000):
            one.load(
                "p",
                Rows(holds=tuple(Hold(f"h{first + number}", "open", NOW, Amounts(1)) for number in range(5000))),
                soon(60),
            )
        assert client.zcard(root_of(server.url.partition("prefix=")[2], "p") + b":l") >= 0
        many = min(slowest(client) for _ in range(3))
    assert many < 3 * few
