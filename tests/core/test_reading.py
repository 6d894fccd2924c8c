"""Read and ReadUsage: their content, and that reading changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Accounts, AccountState, Read
from litellm_budget_plugin.core.windows import DAY, SECOND
from tests.core.desk import BLUE, NOON, PROJECT, Desk, limit, ref, snapshot


def read(desk: Desk, **fields: Any) -> Accounts:
    reply = desk.execute(Read(PROJECT, "user", **fields))
    assert isinstance(reply, Accounts)
    return reply


def test_an_account_is_shown_as_it_stands() -> None:
    desk = Desk()
    desk.put("put", limit=100, raised_by=50, raised_until=NOON + DAY, carry_over=7, window="day")
    desk.charge(30, model="gpt-4o")
    desk.charge(5, model="claude")
    desk.granted("a", 40)
    assert desk.states() == (
        AccountState(
            ref=ref("day"), pinned=True, own_limit=100, limit=150, spent=35, held=40, start=20_000 * DAY,
            end=20_001 * DAY, ended=False, blocked=False, raised_by=50, raised_until=NOON + DAY, carry_over=7, carried=0,
            created_at=NOON, epoch=0, models=(("claude", 5), ("gpt-4o", 30)),
        ),
    )  # fmt: skip


def test_a_window_that_has_ended_is_shown_as_empty_and_is_not_rolled() -> None:
    desk = Desk(limit(100, "90s"))
    desk.charge(30)
    desk.granted("a", 40, expires_after=DAY)
    desk.wait(90 * SECOND - 1)
    assert (desk.states()[0].ended, desk.states()[0].spent) == (False, 30)
    desk.wait(1)
    before = snapshot(desk.book)
    state = desk.states()[0]
    assert (state.ended, state.spent, state.held, state.models, state.epoch) == (True, 0, 40, (), 0)
    assert (state.start, state.end) == (NOON, NOON + 90 * SECOND)
    assert snapshot(desk.book) == before


def test_one_who_follows_a_default_is_shown_with_the_one_of_the_question() -> None:
    desk = Desk(limit(100))
    desk.charge(30)
    assert [state.limit for state in desk.states(defaults=(limit(70),))] == [70]
    assert [state.limit for state in desk.states(defaults=())] == [None]
    assert [state.limit for state in desk.states(defaults=(limit(70, "day"), limit(70, model="claude")))] == [None]


@pytest.mark.parametrize("page", [1, 2, 3, 5, 6, 1_000])
def test_pages_show_every_subject_once_in_the_order_of_code_points(page: int) -> None:
    ids = ["alice", "bob", "zoë", "\uff5e", "\U0001f600"]
    desk = Desk(limit(100), limit(100, "day"), limit(5, scope="team"))
    desk.charge(1, subjects=(*(Subject("user", name) for name in reversed(ids)), BLUE))
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        reply = read(desk, after=after, page=page)
        assert len({state.ref.subject for state in reply.accounts}) <= page
        seen += [state.ref.subject for state in reply.accounts]
        after = reply.after
    assert seen == [name for name in ids for _ in range(2)]


def test_an_unknown_subject_has_no_accounts() -> None:
    desk = Desk(limit(100))
    assert read(desk, subject="nobody") == Accounts(NOON, (), None)
    assert read(desk) == Accounts(NOON, (), None)


def test_subjects_whose_budgets_were_dropped_are_not_listed() -> None:
    desk = Desk(limit(100))
    desk.charge(1)
    desk.drop("drop")
    assert read(desk, page=1) == Accounts(NOON, (), None)
