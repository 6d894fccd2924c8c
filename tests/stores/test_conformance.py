"""Every engine gives the replies that `core.ledger` gives over plain dictionaries, one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from unittest.mock import ANY

import pytest
from hypothesis import Phase, given

from litellm_budget_plugin.core.accounts import Account, Amounts, Charged, Default, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.commands import (
    Accounts,
    Command,
    Granted,
    PutBudget,
    Read,
    ReadUsage,
    Reply,
    RollNeeded,
    Settle,
    Settled,
    UsageRows,
)
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.core.row_store import Changes
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.protocol import Store, ask_all
from litellm_budget_plugin.stores.registry import open_store
from litellm_budget_plugin.stores.sqlite.book import SqliteBook
from litellm_budget_plugin.stores.sqlite.connecting import connect
from tests.commands import START, command_lists, drive, ordinary_calls, questions
from tests.generated import examples
from tests.stores.desk import charge_of, hold_of
from tests.stores.engines import ENGINES

Opener = Callable[..., Store]

PHASES = [phase for phase in Phase if phase is not Phase.explain]  # explaining a failure would take minutes


_lists = count()


@pytest.fixture(scope="module", params=sorted(ENGINES))
def clocked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store of each engine that uses the commands' own times."""
    store = open_store(ENGINES[request.param](tmp_path_factory.mktemp("ledger")), test_clock=True, timeout=30.0)
    yield store
    store.close()


@examples(150, phases=PHASES)
@given(commands=command_lists(min_size=4, max_size=40) | ordinary_calls())
def test_every_reply_is_the_ledgers(clocked: Store, commands: list[Command]) -> None:
    """This includes the replies that ask for windows and, at the end, everything that a reader can see. Each list has its own projects."""
    book, number = DictRowStore(), next(_lists)

    def both(command: Command) -> Reply:
        assert command.now is not None
        here = replace(command, project=f"{command.project}-{number}")
        try:
            expected = apply(book, command, command.now)
        except BudgetInputError as refused:
            with pytest.raises(BudgetInputError, match=f"^{re.escape(str(refused))}$"):
                clocked.execute(here)
            raise
        assert clocked.execute(here) == expected
        return expected

    for command in commands:
        with suppress(BudgetInputError):
            drive(both, command)
    assert commands[-1].now is not None
    for question in questions(commands[-1].now):
        drive(both, question)


def test_subjects_come_in_the_order_of_their_code_points(engine_url: str, opened: Opener) -> None:
    """UTF-16 would sort the astral ones before U+FF5E, and a locale would sort accented letters next to the plain ones."""
    store = opened(engine_url)
    names = [
        "a",
        "B",
        "é",
        "z",
        "\u07ff",
        "\u0800",
        "\ud7ff",
        "\ue000",
        "\uff5e",
        "\U00010000",
        "\U0001f600",
        "a\U0010ffff",
    ]
    for number, name in enumerate(names):
        store.execute(PutBudget(f"c{number}", "p", Subject("user", name), limit=1))
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = store.execute(Read("p", "user", after=after, page=5))
        assert isinstance(page, Accounts)
        seen += [state.ref.subject for state in page.accounts]
        after = page.after
    assert seen == sorted(names)


def test_amounts_of_64_bits_are_kept(engine_url: str, opened: Opener) -> None:
    """No single amount is above 2**53, but sums may be."""
    store = opened(engine_url)
    subject, most = Subject("user", "a"), 2**53 - 1
    store.execute(PutBudget("c", "p", subject, limit=most))
    for number in range(9):
        store.execute(Settle(f"h{number}", "p", (subject,), (), most, "m", calls=0))
    reply = store.execute(Read("p", "user", "a"))
    assert isinstance(reply, Accounts)
    assert (reply.accounts[0].own_limit, reply.accounts[0].spent) == (most, 9 * most)
    assert store.execute(ReadUsage("p", "user")) == UsageRows(((ANY, Usage(spent=9 * most)),))


def test_projects_are_apart(engine_url: str, opened: Opener) -> None:
    """Equal ids in two projects belong to two ledgers."""
    store = opened(engine_url)
    for project, limit in (("p", 1), ("q", 2)):
        store.execute(PutBudget("c", project, Subject("user", "a"), limit=limit))
    limits = []
    for project in ("p", "q"):
        reply = store.execute(Read(project, "user"))
        assert isinstance(reply, Accounts)
        limits.append(reply.accounts[0].limit)
    assert limits == [1, 2]


def test_many_commands_at_once_are_each_their_own(engine_url: str, opened: Opener) -> None:
    """They are applied in order, with windows opened between them, and one that cannot be accepted does not affect the others."""
    store = opened(engine_url, test_clock=True)
    daily = (Default("user", "day", 1000),)
    hold = replace(hold_of("h", now=START), defaults=daily)
    charge = replace(charge_of("h", now=START), defaults=daily)
    windowed, bad = replace(charge, hold="other"), replace(charge, hold="bad", cost=-1)
    commands = [hold, charge, charge, bad, windowed, Read("p", "user", "alice", defaults=daily, now=START)]
    first = store.execute_all(commands)
    assert [type(outcome) for outcome in first[:3]] == [RollNeeded] * 3
    outcomes = ask_all(store, commands[:-1])
    assert outcomes[:3] == [Granted("h", Amounts(10)), Settled("h"), Settled("h")]
    assert isinstance(outcomes[3], BudgetInputError) and "Settle.cost" in str(outcomes[3])
    assert outcomes[4] == Settled("other")
    [accounts] = store.execute_all(commands[-1:])
    assert isinstance(accounts, Accounts) and accounts.accounts[0].spent == 20
    assert store.execute_all([]) == []


def test_the_book_of_sqlite_keeps_every_field(database: Path) -> None:
    """A field that is added to a row in core but forgotten here would be read back as its default."""
    ref = Ref("user", "ü", "m", "day", "calls")
    account = Account(ref, "id", 1, 2, 3, True, 4, 5, 6, 7, True, 8, 9, 10, 11, True, 12, 13, {"m": 5})
    amounts = (Amounts(1, 2, 3), Amounts(4, 5, 6))
    subject = Subject("user", "ü")
    hold = Hold("h", "open", 1, *amounts, "m", (subject,), (ref,), (Charged(subject, "id", 2),), 3, "{}")
    for row in (account, hold):
        assert all(getattr(row, name) not in (0, "", (), None, False) for name in row.__slots__)
    key, usage = UsageKey("user", "ü", 1, "m"), Usage(1, 2, 3, 4, 5, 6)
    connection = connect(str(database), 0.0)
    book = SqliteBook(connection)
    book.write("p", Changes({ref: account}, {"h": hold}, {key: usage}))
    assert book.accounts("p", subject) == [account]
    assert book.hold("p", "h") == hold
    assert book.open_holds("p") == book.due("p", 1, None) == [hold]
    assert book.usage("p", key) == usage
    connection.close()
