"""Accounts as readers see them."""

from __future__ import annotations

from collections.abc import Collection
from operator import attrgetter

from litellm_budget_plugin.core.accounts import Account, Default
from litellm_budget_plugin.core.applying import default_of
from litellm_budget_plugin.core.commands import AccountState


def states_of(rows: Collection[Account], defaults: tuple[Default, ...], now: int) -> list[AccountState]:
    """A subject's accounts as readers see them at `now`, in the order of their keys."""
    return [state_of(row, default_of(row, rows, defaults), now) for row in sorted(rows, key=_ref)]


_ref = attrgetter("ref")


def state_of(recorded: Account, default: Default | None, now: int) -> AccountState:
    """An account as readers see it at `now`: one whose window has ended looks empty, but is not changed."""
    account, ended = recorded, recorded.over(now)
    if ended:
        account = recorded.copy()
        account.begin_window(recorded.start, recorded.end, default)
    return AccountState(
        ref=account.ref,
        pinned=account.pinned,
        own_limit=account.limit,
        limit=account.effective_limit(default, now),
        spent=account.spent,
        held=account.held,
        start=account.start,
        end=account.end,
        ended=ended,
        blocked=account.blocked,
        raised_by=account.raised_by,
        raised_until=account.raised_until,
        carry_over=account.carry_over,
        carried=account.carried,
        created_at=account.created_at,
        epoch=recorded.epoch,
        models=tuple(sorted(account.models.items())),
    )
