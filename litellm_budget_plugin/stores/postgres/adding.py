"""The statements that apply an `Add`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from pydantic_core import to_json

from litellm_budget_plugin.core.accounts import Hold
from litellm_budget_plugin.stores.net.engine import Add
from litellm_budget_plugin.stores.postgres.line import Statement
from litellm_budget_plugin.stores.postgres.rows import is_plain_mark, owner_of, stored_id
from litellm_budget_plugin.stores.postgres.statements import Statements

_NO_LIMIT = str(2**62)
_NOTHING = (None,) * 11

Values = Sequence[str | None]


def statements_of(add: Add, sql: Statements) -> list[Statement]:
    """A step's statements, in the order of its locks. If one fails, all are undone."""
    project, texts = add.project, sql.texts
    statements: list[Statement] = []
    versions: dict[tuple[str, str], int] = dict(add.subjects)
    others = dict(versions)
    for ref, spent, held, model, most, known in add.sums:
        values: list[str | None] = [
            project, owner_of(ref.scope, ref.subject), ref.model, ref.window, ref.unit,
            str(versions[ref[:2]]), str(held),
            _NO_LIMIT if most is None else str(most),
            None if known is None else str(known[0]), None if known is None else str(known[1]),
        ]  # fmt: skip
        if spent:
            values += str(spent), model
        statements.append((texts["charge" if spent else "hold_on"], values))
        others.pop(ref[:2], None)
    if others:
        guarded = [(owner_of(*subject), version) for subject, version in others.items()]
        statements.insert(0, (texts["guard"], (project, to_json(guarded).decode())))
    statements += _holds(add, sql)
    for (scope, name, day, model), totals in sorted(add.usage.items()):
        statements.append(
            (texts["total"], (project, owner_of(scope, name), scope, name, str(day), model, *map(str, totals)))
        )
    return statements


def _holds(add: Add, sql: Statements) -> list[Statement]:
    project, texts = add.project, sql.texts
    now = None if add.now is None else str(add.now)
    keyed: list[tuple[str, Statement]] = []
    for hold, expected in add.holds:
        key, left = stored_id(hold.id), None if expected and hold.state == "open" else str(hold.at)
        values: list[str | None] = [
            project, key, left, now, str(add.since), str(add.until), None if key == hold.id else hold.id, hold.state,
            *_amounts(hold),
        ]  # fmt: skip
        if expected is not None:
            values += *map(str, expected.amounts), _json(expected.legs)
        keyed.append((key, (texts["new_hold" if expected is None else "known_hold"], values)))
    for mark in add.marks:
        key = stored_id(mark)
        keyed.append((key, (texts["mark"], (project, key, None if key == mark else mark, now))))
    return [statement for _, statement in sorted(keyed, key=lambda one: one[0])]


@lru_cache(maxsize=10_000)
def _json(value: tuple[object, ...]) -> str:
    return to_json(value).decode()


def _amounts(hold: Hold) -> Values:
    """The columns from `usd` to `reply`."""
    if is_plain_mark(hold):
        return *_NOTHING, hold.reply or None
    return (
        *map(str, hold.amounts),
        *map(str, hold.floor),
        str(hold.day) if hold.day else None,
        hold.model,
        _json(hold.subjects),
        _json(hold.legs),
        to_json(hold.charged).decode() if hold.charged else None,
        hold.reply or None,
    )
