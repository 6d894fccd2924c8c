"""Rows copied from one ledger into another."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import Phase, given

from litellm_budget_plugin.core.accounts import Account, Hold, Subject, Usage, UsageKey
from litellm_budget_plugin.core.commands import Command, PutBudget, Settle
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.registry import open_store
from litellm_budget_plugin.stores.rows import Rows
from tests.commands import PROJECTS, command_lists, drive, questions
from tests.generated import examples
from tests.stores.redis.server import shared

Opener = Callable[..., Any]
PHASES = [phase for phase in Phase if phase is not Phase.explain]


def exported(store: Any, project: str, most: int) -> Rows:
    """Every row, page by page."""
    accounts: list[Account] = []
    holds: list[Hold] = []
    usage: list[tuple[UsageKey, Usage]] = []
    after: str | None = ""
    while after is not None:
        rows, after = store.export(project, after, most)
        accounts += rows.accounts
        holds += rows.holds
        usage += rows.usage
    return Rows(
        tuple(sorted(accounts, key=lambda row: row.ref)),
        tuple(sorted(holds, key=lambda row: row.id)),
        tuple(sorted(usage)),
    )


def parsed(hold: Hold) -> tuple[Any, ...]:
    """A hold, with its reply parsed: two texts may be equal as JSON."""
    fields = [getattr(hold, name) for name in Hold.__slots__ if name != "reply"]
    return (*fields, json.loads(hold.reply) if hold.reply else None)


@examples(60, phases=PHASES)
@given(commands=command_lists(min_size=4, max_size=40))
def test_rows_are_cores_and_survive_the_way_into_another_ledger(commands: list[Command]) -> None:
    """All fields, such as ids, epochs and marks, are kept; a repeated load changes nothing."""
    book = DictRowStore()
    store, other = (open_store(shared().url, test_clock=True) for _ in range(2))
    for command in commands:
        now = command.now
        assert now is not None
        with suppress(BudgetInputError):
            drive(store.execute, command)
            drive(lambda asked, now=now: apply(book, asked, now), command)
    for project in PROJECTS:
        rows = exported(store, project, 3)
        held = [row for (owner, _), found in book._accounts.items() if owner == project for row in found.values()]
        assert list(rows.accounts) == sorted(held, key=lambda row: row.ref)
        assert list(map(parsed, rows.holds)) == [
            parsed(hold) for _, hold in sorted(book._holds.get(project, {}).items())
        ]
        assert rows.usage == tuple(sorted(book._usage.get(project, {}).items()))
        for _ in range(2):
            other.load(project, rows)
        assert exported(other, project, 1000) == rows
    assert other.projects() == store.projects()
    assert commands[-1].now is not None
    for question in questions(commands[-1].now):
        assert other.execute(question) == store.execute(question)
    store.close()
    other.close()


def test_every_project_is_listed(opened: Opener) -> None:
    """With any characters in its name, and only projects of this prefix."""
    store, other = opened(shared().url), opened(shared().url)
    names = ["a", "a:b", "br{ac}es", "{", "%", "%7B", "ü \U0001f600", "", "*[x]?", "%check"]
    for name in names:
        store.execute(Settle("h", name, (Subject("user", "a"),), (), 1, "m"))
    other.execute(Settle("h", "other", (Subject("user", "a"),), (), 1, "m"))
    assert store.projects() == sorted(names)
    assert other.projects() == ["other"]


def test_large_sums_are_copied_exactly(opened: Opener) -> None:
    store, other, most = opened(shared().url), opened(shared().url), 2**53 - 1
    store.execute(PutBudget("c", "p", Subject("user", "a"), limit=most))
    for number in range(5):
        store.execute(Settle(f"h{number}", "p", (Subject("user", "a"),), (), most, "m"))
    rows = exported(store, "p", 2)
    assert rows.accounts[0].spent == 5 * most
    other.load("p", rows)
    assert exported(other, "p", 2) == rows


def test_a_place_that_no_page_gave(opened: Opener) -> None:
    with pytest.raises(BudgetInputError, match="continues from"):
        opened(shared().url).export("p", "nonsense", 5)
