"""The upgrade of rows from version 1 of the keys, in place, when a project is first used.

prepare.lua renames the old keys, so that scripts of the old version fail from then on. After that, the indexes have
their new names, and totals are unchanged. Accounts and holds follow in steps; each step also deletes the old rows. If
the process dies, another one continues as soon as its lease has expired.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from pydantic_core import to_json

from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.accounts import Account, Amounts, Charged, Hold, Ref, Subject
from litellm_budget_plugin.core.commands import AlreadyCharged, Refused, Settled
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.stores.redis.asking import Server
from litellm_budget_plugin.stores.redis.rows import Writes, subject_of
from litellm_budget_plugin.stores.redis.scripts import Request

_ROWS = 100
"""The approximate number of rows in one step."""
_LEASE = 500
"""The time (milliseconds) after the last step when another process may continue."""
_MARGIN = 0.05
"""The time (seconds) before its deadline when a command leaves the rest to others: one step takes less."""
_DONE, _BEGUN = 2, 1


def bring_over(server: Server, root: bytes, deadline: float) -> bool:
    """Make a project ready for scripts of this version; return False if another process is doing that, or took over.

    Raises BudgetStoreUnavailable at the deadline. Completed steps stay done.
    """
    token = os.urandom(8).hex()
    begun = server.answer(Request("prepare", root, (to_json([token, _LEASE]),)), deadline)
    if begun == _BEGUN:
        return _bring_rows(server, root, token, deadline)
    return bool(begun == _DONE)


def _bring_rows(server: Server, root: bytes, token: str, deadline: float) -> bool:
    def run(script: str, argument: Any) -> Any:
        return server.answer(Request(script, root, (to_json(argument), b"1")), deadline)

    for key, put in _HASHES.items():
        while rows := run("earlier", [key, _ROWS]):
            writes = Writes()
            for row in rows:
                put(writes, *row)
            if run("write", [token, _LEASE, writes.commands(), []]) != 1:
                return False
            if time.monotonic() + _MARGIN > deadline:
                server.tell(Request("release", root, (token.encode(),)), deadline)
                raise BudgetStoreUnavailable(f"{server.name}: rows of an earlier version are being upgraded; try again")
    finished = Writes()
    finished.text(":a", "2")
    return bool(run("write", [token, 0, finished.commands(), []]) == 1)


def _put_accounts(writes: Writes, name: bytes, rows: Sequence[Any]) -> None:
    subject = subject_of(name)
    version = int.from_bytes(os.urandom(6), "big") + 1
    writes.subject(subject, (), [_account(subject, row) for row in rows], version)
    writes.unput(":1a", name.decode())


def _account(subject: Subject, row: Sequence[Any]) -> Account:
    names, (created, start, end, pinned, limit, spent, held, epoch) = row[:4], row[4:12]
    blocked, raised_by, raised_until, carry_over, carried, dropped, alerted, alert_limit = (
        one or 0 for one in row[13:]
    )
    models = {model.decode(): int(amount) for model, amount in zip(row[12][::2], row[12][1::2])}
    model, window, unit, row_id = map(_text, names)
    return Account(
        Ref(*subject, model, window, unit), row_id, created, start, end, bool(pinned), limit, int(spent), int(held), epoch,
        bool(blocked), raised_by, raised_until, carry_over, carried, bool(dropped), alerted, alert_limit, models,
    )  # fmt: skip


def _put_hold(writes: Writes, hold: bytes, row: Sequence[Any]) -> None:
    state, at, reply, _, model, day, amounts, _, floor, subjects, legs, charged = row
    owners = [Subject(*map(_text, subject)) for subject in subjects or ()]
    writes.hold(
        Hold(
            _text(hold),
            _text(state),
            at,
            Amounts(*(amounts or ())),
            Amounts(*(floor or ())),
            _text(model or b""),
            tuple(owners),
            tuple(Ref(*owners[place - 1], *map(_text, names)) for place, *names in legs or ()),
            tuple(Charged(owners[place - 1], _text(row_id), epoch) for place, row_id, epoch in charged or ()),
            day or 0,
            "" if reply is None else wire.dumps(_reply(_text(hold), reply)),
        )
    )
    writes.unput(":1h", _text(hold))


def _reply(hold: str, row: Sequence[Any]) -> Refused | Settled | AlreadyCharged:
    kind, *rest = row
    if kind == b"Refused":
        reason: Any = _text(rest[5])
        limit, spent, held, requested = map(int, rest[6:10])
        return Refused(hold, Ref(*map(_text, rest[:5])), reason, limit, spent, held, requested, rest[10])
    return AlreadyCharged(hold) if kind == b"AlreadyCharged" else Settled(hold)


def _text(value: bytes) -> str:
    return value.decode()


_HASHES: dict[str, Callable[..., None]] = {":1a": _put_accounts, ":1h": _put_hold}
"""The present keys of version 1's rows, and the function that upgrades each kind."""
