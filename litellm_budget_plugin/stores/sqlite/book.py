"""The ledger's rows in SQLite."""

from __future__ import annotations

import json
import sqlite3
from operator import attrgetter
from typing import Any

# Five times as fast as the standard library's for these few bytes, and installed with pydantic anyway.
from pydantic_core import from_json, to_json

from litellm_budget_plugin.core.accounts import Account, Amounts, Charged, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.row_store import Changes
from litellm_budget_plugin.stores.rows import Page, Rows
from litellm_budget_plugin.stores.sql import named_queries

_SQL = named_queries(__package__, "queries.sql")
_ACCOUNTS, _PUT_ACCOUNT, _HOLD, _DUE = _SQL["accounts"], _SQL["put_account"], _SQL["hold"], _SQL["due"]
_PUT_HOLD, _ADD_USAGE = _SQL["put_hold"], _SQL["add_usage"]

# In the order of the table's columns, which is the order of the class's fields.

_account_columns = attrgetter("id", "created_at", "start", "end", "pinned", "limit", "spent", "held", "epoch")
_account_extra = attrgetter(
    "blocked", "raised_by", "raised_until", "carry_over", "carried", "dropped", "alerted", "alert_limit"
)
_NO_EXTRA = _account_extra(Account(Ref("", ""), "", 0, 0, None))
_hold_detail = attrgetter("amounts", "floor", "model", "subjects", "legs", "charged", "day")
_NO_DETAIL = _hold_detail(Hold("", "", 0))
_FIRST = {"accounts": ("",) * 5, "holds": ("",), "usage": ("", "", 0, "")}
"""The lower bounds of the keys."""


class ReadOnly(Exception):
    """A rule wants to write in a transaction that began for reading. Nothing was written."""


class SqliteBook:
    """A `core.row_store.RowStore` over the tables of schema.sql; the caller begins and ends the transaction.

    With `writable` false, a change of a row raises ReadOnly.
    """

    __slots__ = ("_run", "_run_many", "writable")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._run = connection.execute
        self._run_many = connection.executemany
        self.writable = True

    def accounts(self, project: str, subject: Subject) -> list[Account]:
        """Every account of a subject."""
        scope, name = subject
        return [_account(scope, name, row) for row in self._run(_ACCOUNTS, (project, scope, name)).fetchall()]

    def hold(self, project: str, hold: str) -> Hold | None:
        """A hold or a mark by its id."""
        row = self._run(_HOLD, (project, hold)).fetchone()
        return None if row is None else _hold(row)

    def due(self, project: str, now: int, most: int | None) -> list[Hold]:
        """Open holds whose time limit has come, in the order of (limit, id)."""
        rows = self._run(_DUE, (project, now, -1 if most is None else most)).fetchall()
        return [_hold(row) for row in rows]

    def open_holds(self, project: str) -> list[Hold]:
        """Every open hold."""
        return [_hold(row) for row in self._run(_SQL["open_holds"], (project,)).fetchall()]

    def usage(self, project: str, key: UsageKey) -> Usage | None:
        """One row of totals."""
        row = self._run(_SQL["usage"], (project, *key)).fetchone()
        return None if row is None else Usage(*row)

    def write(self, project: str, changes: Changes) -> None:
        """Write the changes; the transaction makes them one step."""
        self._must_be_writable()
        run, many = self._run, self._run_many
        for ref in [ref for ref, account in changes.accounts.items() if account is None]:
            run(_SQL["drop_account"], (project, *ref))
        kept = [(project, *ref, *_row(account)) for ref, account in changes.accounts.items() if account is not None]
        many(_PUT_ACCOUNT, kept)
        for hold in changes.holds.values():
            run(_PUT_HOLD, (project, hold.id, hold.state, hold.at, _detail(hold), hold.reply or None))
        many(_ADD_USAGE, [(project, *key, *usage) for key, usage in changes.usage.items()])

    def subjects(self, project: str, scope: str, after: str, most: int) -> list[str]:
        """Up to `most` ids with an account in `scope` that follow `after`, in order of their code points."""
        return [row[0] for row in self._run(_SQL["subjects"], (project, scope, after, most)).fetchall()]

    def usage_rows(
        self, project: str, scope: str, subject: str | None, since: int, until: int
    ) -> list[tuple[UsageKey, Usage]]:
        """Totals in the order of their keys."""
        if subject is None:
            rows = self._run(_SQL["usage_of_scope"], (project, scope, since, until))
        else:
            rows = self._run(_SQL["usage_of_subject"], (project, scope, subject, since, until))
        return [_usage(row) for row in rows.fetchall()]

    def forget(self, project: str, before: int) -> int:
        """Delete marks closed before a time; returns how many."""
        self._must_be_writable()
        return self._run(_SQL["forget"], (project, before)).rowcount

    def fold(self, project: str, before_day: int) -> int:
        """Add the totals of earlier days to day 0; return how many rows were folded."""
        self._must_be_writable()
        self._run(_SQL["fold"], (project, before_day))
        return self._run(_SQL["folded"], (project, before_day)).rowcount

    def projects(self) -> list[str]:
        """Every project that has a row, in order of their code points."""
        return [row[0] for row in self._run(_SQL["projects"]).fetchall()]

    def export(self, project: str, after: str, most: int) -> Page:
        """Up to `most` accounts, then holds, then totals, each in the order of their keys. `after` is JSON: the table,
        and the lower bound of the next row's key.
        """
        table, key = json.loads(after) if after else ("accounts", _FIRST["accounts"])
        rows = self._run(_SQL[f"{table}_from"], (project, *key, most)).fetchall()
        following: str | None = None
        if len(rows) == most:
            *parts, last = rows[-1][: len(key)]
            # Every key ends with text, and the immediate successor of a text is the same text with a NUL appended.
            following = json.dumps([table, [*parts, f"{last}\0"]])
        elif table != "usage":
            further = "holds" if table == "accounts" else "usage"
            following = json.dumps([further, _FIRST[further]])
        if table == "accounts":
            return Page(Rows(accounts=tuple(_account(row[0], row[1], row[2:]) for row in rows)), following)
        if table == "holds":
            return Page(Rows(holds=tuple(map(_hold, rows))), following)
        return Page(Rows(usage=tuple(map(_usage, rows))), following)

    def _must_be_writable(self) -> None:
        if not self.writable:
            raise ReadOnly


def _account(scope: str, subject: str, row: tuple[Any, ...]) -> Account:
    model, period, unit, row_id, created_at, start, end, pinned, limit, spent, held, epoch, extra, models = row
    ref = Ref(scope, subject, model, period, unit)
    rest = _NO_EXTRA if extra is None else from_json(extra)
    account = Account(ref, row_id, created_at, start, end, pinned == 1, limit, spent, held, epoch, *rest)
    account.models = from_json(models)
    return account


def _usage(row: tuple[Any, ...]) -> tuple[UsageKey, Usage]:
    return UsageKey(*row[:4]), Usage(*row[4:])


def _row(account: Account) -> tuple[Any, ...]:
    extra = _account_extra(account)
    models = to_json(account.models).decode()
    return (*_account_columns(account), None if extra == _NO_EXTRA else to_json(extra).decode(), models)


def _detail(hold: Hold) -> str | None:
    detail = _hold_detail(hold)
    if detail == _NO_DETAIL:
        return None
    amounts, floor, model, subjects, legs, charged, day = detail
    # Flat and made of plain lists, which the encoder handles fastest. The first place and the three between the amounts
    # and the floor belonged to holds inside a hold: processes of earlier versions still read them.
    numbers = (*amounts, 0, 0, 0, *floor)
    named = ([[*subject] for subject in subjects], [[*leg] for leg in legs], [[*row] for row in charged])
    return to_json([None, model, day, *numbers, *named]).decode()


def _hold(row: tuple[str, str, int, str | None, str | None]) -> Hold:
    hold, state, at, detail, reply = row
    if detail is None:
        return Hold(hold, state, at, reply=reply or "")
    _, model, day, usd, calls, tokens, _, _, _, *floor, subjects, legs, charged = from_json(detail)
    return Hold(
        hold,
        state,
        at,
        Amounts(usd, calls, tokens),
        Amounts(*floor),
        model,
        tuple([Subject._make(subject) for subject in subjects]),
        tuple([Ref._make(leg) for leg in legs]),
        tuple([Charged(Subject._make(subject), account, epoch) for subject, account, epoch in charged]),
        day,
        reply or "",
    )
