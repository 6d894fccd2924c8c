"""The conversion between core's classes and PostgreSQL's rows, which are JSON objects by the columns' names."""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import sha256
from typing import Any

from litellm_budget_plugin.core.accounts import Account, Amounts, Charged, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.stores.rows import Page, Rows

PARTS = ("accounts", "holds", "usage")
"""The tables, in the order in which they are exported."""
KEYS = {"accounts": ("owner", "model", "period", "unit"), "holds": ("id",), "usage": ("owner", "day", "model")}
"""The columns of the primary keys, which all begin with the project."""
# Column names, in the order of the class's fields.
_REF = ("scope", "subject", "model", "period", "unit")
_ACCOUNT = (
    "id", "created_at", "starts_at", "ends_at", "pinned", "own_limit", "spent", "held", "epoch", "blocked", "raised_by",
    "raised_until", "carry_over", "carried", "dropped", "alerted", "alert_limit", "models",
)  # fmt: skip
_KEY = ("scope", "subject", "day", "model")
_AMOUNTS = ("usd", "calls", "tokens")
_FLOOR = ("floor_usd", "floor_calls", "floor_tokens")
_HOLD_COLUMNS = ("full_id", "state", "at", *_AMOUNTS, *_FLOOR, "day", "model", "subjects", "legs", "charged", "reply")
COLUMNS = {
    "accounts": ("owner", *_REF, *_ACCOUNT),
    "holds": ("id", *_HOLD_COLUMNS),
    "usage": ("owner", *_KEY, *Usage._fields),
}
"""The columns of a row that are written together. An account's version is written separately."""

_LONGEST_ID = 375
"""In characters, at most 1,500 bytes, so that an id and a project's name fit into a row of an index (2,704 bytes)."""

_DIGEST = "sha256:"

Row = dict[str, Any]


def stored_id(text: str) -> str:
    """The key of a hold or a mark: its id, or a digest if the id is too long for an index or looks like a digest."""
    plain = len(text) <= _LONGEST_ID and not text.startswith(_DIGEST)
    return text if plain else f"{_DIGEST}{sha256(text.encode()).hexdigest()}"


@lru_cache(maxsize=10_000)
def owner_of(scope: str, subject: str) -> str:
    """The digest that represents a subject in keys; version_2.sql computes the same."""
    return sha256(f"{scope}\0{subject}".encode()).hexdigest()[:32]


def account_of(row: Row) -> Account:
    """The account of a row."""
    return Account(Ref(*[row[column] for column in _REF]), *[row[column] for column in _ACCOUNT])


def hold_of(row: Row) -> Hold:
    """The hold or mark of a row."""
    amounts, floor = (Amounts(*(row[column] or 0 for column in columns)) for columns in (_AMOUNTS, _FLOOR))
    return Hold(
        row["full_id"] or row["id"],
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


def usage_of(row: Row) -> tuple[UsageKey, Usage]:
    """The totals of a row."""
    return UsageKey(*(row[column] for column in _KEY)), Usage(*(row[column] for column in Usage._fields))


def key_row(ref: Ref) -> Row:
    """The key of an account, without the project."""
    return {"owner": owner_of(ref.scope, ref.subject), **dict(zip(_REF, ref))}


def account_row(account: Account) -> Row:
    """The columns of an account."""
    row = key_row(account.ref)
    row.update(zip(_ACCOUNT, [getattr(account, name) for name in Account.__slots__ if name != "ref"]))
    return row


def is_plain_mark(hold: Hold) -> bool:
    """Whether a mark has only its id, state, time and reply."""
    return hold.state not in ("open", "expired") and hold.plain


def hold_row(hold: Hold) -> Row:
    """The columns of a hold or a mark. A mark keeps only what it needs, because there are many marks."""
    key = stored_id(hold.id)
    row: Row = {"id": key, "state": hold.state, "at": hold.at}
    if key != hold.id:
        row["full_id"] = hold.id
    if hold.reply:
        row["reply"] = hold.reply
    if not is_plain_mark(hold):
        row.update(zip(_AMOUNTS, hold.amounts))
        row.update(zip(_FLOOR, hold.floor))
        row.update(model=hold.model, day=hold.day or None, subjects=hold.subjects, legs=hold.legs)
        row["charged"] = hold.charged or None
    return row


def usage_row(key: UsageKey, usage: Usage) -> Row:
    """The columns of a row of totals."""
    return {"owner": owner_of(key.scope, key.subject), **key._asdict(), **usage._asdict()}


def tables_of(rows: Rows) -> dict[str, list[Any]]:
    """The rows in the form of the tables."""
    return {
        "accounts": [account_row(account) for account in rows.accounts],
        "holds": [hold_row(hold) for hold in rows.holds],
        "usage": [usage_row(key, usage) for key, usage in rows.usage],
    }


def place_of(after: str) -> tuple[str, list[Any]]:
    """The table and the key in it after which a page begins."""
    part, *key = json.loads(after) if after else (PARTS[0],)
    return part, key


def page_of(part: str, rows: list[Row], most: int) -> Page:
    """A page of one table. The next one follows its last row, or begins the next table."""
    after: str | None = None
    if len(rows) >= most:
        after = json.dumps([part, *(rows[-1][column] for column in KEYS[part])])
    elif part != PARTS[-1]:
        after = json.dumps([PARTS[PARTS.index(part) + 1]])
    if part == "accounts":
        return Page(Rows(accounts=tuple(map(account_of, rows))), after)
    if part == "holds":
        return Page(Rows(holds=tuple(map(hold_of, rows))), after)
    return Page(Rows(usage=tuple(map(usage_of, rows))), after)
