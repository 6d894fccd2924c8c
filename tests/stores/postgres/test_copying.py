"""Rows copied from one ledger into another: nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from litellm_budget_plugin.core.accounts import Account, Amounts, Charged, Default, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.commands import Reserve
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.rows import Rows
from tests.commands import START
from tests.stores.desk import charge_of, hold_of
from tests.stores.postgres.server import shared

Opener = Callable[..., Any]

REF = Ref("user", "ü\U0001f600", "m", "day", "calls")
ACCOUNT = Account(REF, "id", 1, 2, 3, True, 4, 5, 6, 7, True, 8, 9, 10, 11, True, 12, 13, {"m": 5})
AMOUNTS = (Amounts(1, 2, 3), Amounts(4, 5, 6))
SUBJECT = Subject("user", "ü")
HOLD = Hold("h", "open", 1, *AMOUNTS, "m", (SUBJECT,), (REF,), (Charged(SUBJECT, "id", 2),), 3, "{}")
KEY, USAGE = UsageKey("user", "ü", 1, "m"), Usage(1, 2, 3, 4, 5, 2**60)


def every_row(store: Any, project: str, most: int) -> Rows:
    """All pages of a project, combined."""
    pages, after = [], ""
    while True:
        page = store.export(project, after, most)
        assert sum(map(len, page.rows)) <= most
        pages.append(page.rows)
        if page.after is None:
            return Rows(*(sum(part, ()) for part in zip(*pages)))
        after = page.after


def test_every_field_is_kept(url: str, opened: Opener) -> None:
    """A field that is added to a row in core but forgotten here would be read back as its default."""
    for row in (ACCOUNT, HOLD):
        assert all(getattr(row, name) not in (0, "", (), None, False) for name in row.__slots__)
    store, rows = opened(url), Rows((ACCOUNT,), (HOLD,), ((KEY, USAGE),))
    for _ in range(2):
        store.load("p", rows)
        assert every_row(store, "p", 10) == rows
    changed = Rows((replace(ACCOUNT, spent=99),), (Hold("h", "settled", 9),), ((KEY, Usage(7)),))
    store.load("p", changed)
    assert every_row(store, "p", 10) == changed
    assert store.projects() == ["p"]
    assert every_row(store, "other", 10) == Rows()


def test_a_ledger_in_use_is_copied_page_by_page(url: str, opened: Opener) -> None:
    """The copy works like the original: a repeated command is known, and an open hold expires."""
    store: Store = opened(url, test_clock=True)
    daily = (Default("user", "none", 1000),)
    for number in range(7):
        subject = (Subject("user", f"u{number}"),)
        for project in ("p", "q:{}'"):
            hold = Reserve(f"h{number}", project, subject, ("m",), Amounts(10), DAY, daily, floor=Amounts(3), now=START)
            store.execute(hold)
            if number % 2:
                store.execute(
                    replace(charge_of(f"h{number}", now=START), project=project, subjects=subject, defaults=daily)
                )
    store.execute(replace(hold_of("refused", usd=5000, now=START)))
    copy = opened(shared().url(), test_clock=True)
    for most in (1, 2, 100):
        for project in store.projects():  # type: ignore[attr-defined]
            rows = every_row(store, project, most)
            assert rows == every_row(store, project, 1000)
            copy.load(project, rows)
            assert every_row(copy, project, 3) == rows
    assert copy.projects() == store.projects() == ["p", "q:{}'"]  # type: ignore[attr-defined]
    for command in (
        hold_of("refused", usd=5000, now=START),
        replace(charge_of("h1", now=START), subjects=(Subject("user", "u1"),)),
        hold_of("late", now=START + DAY),
    ):
        assert copy.execute(command) == store.execute(command)
    assert every_row(copy, "p", 100).usage == every_row(store, "p", 100).usage
