"""Rows out of a Redis ledger and into it, as `Store.export` and `Store.load` promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json

from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.accounts import Account, Amounts, Charged, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.commands import Refused, Settled
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.redis.replies import listed_accounts, refused_of, settled_of, text, usage_row
from litellm_budget_plugin.stores.redis.requests import UNSTORABLE
from litellm_budget_plugin.stores.redis.scripts import Request
from litellm_budget_plugin.stores.rows import Page, Rows

_KINDS = "soct"
"""The indexes in the order of an export: accounts, open holds, marks, totals."""
_IN_A_DOUBLE = 9 * 10**15
"""From here on a sum is kept as digits: see numbers.lua."""


def export_request(root: bytes, after: str, most: int) -> Request:
    """The run that reads the rows that follow `after`: the kind of rows, how many to skip, and after what."""
    kind, _, rest = after.partition(" ")
    skip, _, place = rest.partition(" ")
    if (kind or "s") not in _KINDS or not (skip or "0").isdigit():
        raise BudgetInputError(f"an export goes on from what a page gave as `after`, got {after!r:.80}")
    return Request("export", root, to_json([kind or "s", place, int(skip or 0), max(1, most)]))


def page_of(after: str, answer: Sequence[Any]) -> Page:
    """The page that a run of export.lua gives."""
    kind = after[:1] or "s"
    place, skip, *found = answer
    if place is not None:
        further: str | None = f"{kind} {skip} {text(place)}"
    else:
        next_kind = _KINDS[_KINDS.index(kind) + 1 :][:1]
        further = f"{next_kind} 0 " if next_kind else None
    if kind == "s":
        accounts = [account for row in found for account in listed_accounts(text(row[0]), row[1:])]
        return Page(Rows(accounts=tuple(accounts)), further)
    if kind == "t":
        return Page(Rows(usage=tuple(usage_row(text(row[0]), row[1:]) for row in found)), further)
    return Page(Rows(holds=tuple(map(_hold, found))), further)


def _hold(row: Sequence[Any]) -> Hold:
    hold, state, at, reply, model, day, amounts, floor, subjects, legs, charged = row
    owners = [Subject(*map(text, subject)) for subject in subjects]
    return Hold(
        text(hold),
        text(state),
        at,
        Amounts(*amounts),
        Amounts(*floor),
        text(model),
        tuple(owners),
        tuple(Ref(*owners[place - 1], *map(text, names)) for place, *names in legs),
        tuple(Charged(owners[place - 1], text(row_id), epoch) for place, row_id, epoch in charged),
        day,
        "" if reply is None else wire.dumps(_stored_reply(text(hold), reply)),
    )


def _stored_reply(hold: str, reply: Sequence[Any]) -> Any:
    return refused_of(hold, reply[1:]) if reply[0] == b"Refused" else settled_of(hold, reply)


def load_request(root: bytes, rows: Rows) -> Request:
    """The run that puts rows in their places. Raises BudgetInputError for a row that cannot be stored."""
    accounts = [[account.ref.scope, account.ref.subject, _account_row(account)] for account in rows.accounts]
    more = [[_hold_row(hold) for hold in rows.holds], [_usage_row(*row) for row in rows.usage]]
    try:
        return Request("load", root, to_json(accounts), to_json(more))
    except UNSTORABLE as error:
        raise BudgetInputError(f"a row holds text that cannot be stored: {error}") from None


def _sum(number: int) -> int | str:
    return number if -_IN_A_DOUBLE < number < _IN_A_DOUBLE else f"{number}"


def _or_false(value: Any) -> Any:
    return False if value is None else value


def _account_row(a: Account) -> list[Any]:
    models = {name: _sum(amount) for name, amount in a.models.items()}
    return [
        *a.ref[2:], a.id, a.created_at, a.start, _or_false(a.end), a.pinned, _or_false(a.limit), _sum(a.spent), _sum(a.held),
        a.epoch, models, a.blocked, a.raised_by, a.raised_until, a.carry_over, a.carried, a.dropped, a.alerted, a.alert_limit,
    ]  # fmt: skip


def _hold_row(h: Hold) -> list[Any]:
    places = {subject: place for place, subject in enumerate(h.subjects, start=1)}
    try:
        legs = [[places[Subject(ref.scope, ref.subject)], ref.model, ref.window, ref.unit] for ref in h.legs]
        charged = [[places[row.subject], row.id, row.epoch] for row in h.charged]
    except KeyError as error:
        raise BudgetInputError(f"hold {h.id!r} has a leg on {error.args[0]}, who is none of its subjects") from None
    reply = _reply_row(h.reply) if h.reply else False
    return [h.id, h.state, h.at, reply, h.model, h.day, list(h.amounts), list(h.floor), h.subjects, legs, charged]


def _reply_row(reply: str) -> list[Any]:
    message = wire.loads(reply)
    if isinstance(message, Refused):
        numbers = [_sum(number) for number in (message.limit, message.spent, message.held, message.requested)]
        return ["Refused", *message.account, message.reason, *numbers, _or_false(message.resets_at)]
    if isinstance(message, Settled):
        return [
            "Settled",
            *([*row.account, row.start, row.limit, row.threshold, _sum(row.spent)] for row in message.crossings),
        ]
    return ["AlreadyCharged"]


def _usage_row(key: UsageKey, usage: Usage) -> list[Any]:
    return [key.scope, key.subject, key.day, key.model, *map(_sum, usage)]
