"""Rows between PostgreSQL's tables, as JSON objects, and core's classes."""

from __future__ import annotations

import json
from typing import Any

from litellm_budget_plugin.core.accounts import Account, Amounts, Charged, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.stores.postgres.messages import stored_id
from litellm_budget_plugin.stores.rows import Page, Rows

PARTS = ("accounts", "holds", "usage")
_KEYS = {
    "accounts": ("scope", "subject", "model", "period", "unit"),
    "holds": ("id",),
    "usage": ("scope", "subject", "day", "model"),
}
# By the columns' names, in the order of the class's fields.
_ACCOUNT = [
    "id",
    "created_at",
    "starts_at",
    "ends_at",
    "pinned",
    "own_limit",
    "spent",
    "held",
    "epoch",
    "blocked",
    "raised_by",
    "raised_until",
    "carry_over",
    "carried",
    "dropped",
    "alerted",
    "alert_limit",
    "models",
]
_AMOUNTS = (
    ("usd", "calls", "tokens"),
    ("floor_usd", "floor_calls", "floor_tokens"),
)

Row = dict[str, Any]


def place_of(after: str) -> tuple[str, list[Any]]:
    """The table and the key in it behind which a page begins."""
    part, *key = json.loads(after) if after else (PARTS[0],)
    return part, key


def page_of(part: str, rows: list[Row], most: int) -> Page:
    """A page of one table. The next one follows its last row, or begins the next table."""
    after: str | None = None
    if len(rows) >= most:
        after = json.dumps([part, *(rows[-1][column] for column in _KEYS[part])])
    elif part != PARTS[-1]:
        after = json.dumps([PARTS[PARTS.index(part) + 1]])
    if part == "accounts":
        return Page(Rows(accounts=tuple(map(_account, rows))), after)
    if part == "holds":
        return Page(Rows(holds=tuple(map(_hold, rows))), after)
    return Page(Rows(usage=tuple(map(_usage, rows))), after)


def tables_of(rows: Rows) -> tuple[list[Row], list[Row], list[Row]]:
    """The rows as the tables take them, in the order of PARTS."""
    accounts = [
        dict(zip(_KEYS["accounts"], account.ref), **dict(zip(_ACCOUNT, _values(account)))) for account in rows.accounts
    ]
    usage = [{**dict(zip(_KEYS["usage"], key)), **totals._asdict()} for key, totals in rows.usage]
    return accounts, [_hold_row(hold) for hold in rows.holds], usage


def _values(account: Account) -> list[Any]:
    return [getattr(account, name) for name in Account.__slots__ if name != "ref"]


def _account(row: Row) -> Account:
    return Account(Ref(*(row[column] for column in _KEYS["accounts"])), *(row[column] for column in _ACCOUNT))


def _hold(row: Row) -> Hold:
    amounts, floor = (Amounts(*(row[column] or 0 for column in columns)) for columns in _AMOUNTS)
    return Hold(
        row["id"],
        row["state"],
        row["at"],
        amounts,
        floor,
        row["model"] or "",
        tuple(Subject(*subject) for subject in row["subjects"] or ()),
        tuple(Ref(*leg) for leg in row["legs"] or ()),
        tuple(Charged(Subject(*subject), *place) for subject, *place in row["charged"] or ()),
        row["day"] or 0,
        row["reply"] or "",
    )


def _hold_row(hold: Hold) -> Row:
    row: Row = {"id": stored_id(hold.id), "state": hold.state, "at": hold.at, "reply": hold.reply or None}
    if hold == Hold(hold.id, hold.state, hold.at, reply=hold.reply):
        return row
    for columns, amounts in zip(_AMOUNTS, (hold.amounts, hold.floor)):
        row.update(zip(columns, amounts))
    row.update(
        model=hold.model,
        day=hold.day or None,
        subjects=hold.subjects,
        legs=hold.legs,
        charged=hold.charged or None,
    )
    return row


def _usage(row: Row) -> tuple[UsageKey, Usage]:
    return UsageKey(*(row[column] for column in _KEYS["usage"])), Usage(*(row[column] for column in Usage._fields))
