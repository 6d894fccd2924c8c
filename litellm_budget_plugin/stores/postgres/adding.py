"""The statement that applies an `Add`: one for each shape of it, so that the server can keep it prepared.

See changing.sql for the order of its locks.
"""

# ruff: noqa: S608  # names of our own tables and columns, and places of values

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count
from typing import NamedTuple

from pydantic_core import to_json

from litellm_budget_plugin.core.accounts import Hold, Subject, Usage
from litellm_budget_plugin.stores.net.engine import Add
from litellm_budget_plugin.stores.postgres.rows import HOLD_COLUMNS, hold_row, owner_of, stored_id

NOT_APPLIED = "22012"
"""The SQLSTATE (division by zero) of a step that could not be applied and was undone."""

_NO_LIMIT = str(2**62)
_JSON = ("subjects", "legs", "charged")
_TYPES = dict.fromkeys(HOLD_COLUMNS, "bigint") | dict.fromkeys(("full_id", "state", "model", "reply"), "text")
_TYPES |= dict.fromkeys(_JSON, "jsonb")


class Shape(NamedTuple):
    """What the text of a statement depends on. `charged`: for each sum, whether anything is added to what was spent.
    `holds`: for each hold and mark in the order of their keys, what is done. `strict`: a step that cannot be applied is an
    error, also if it has changed nothing, so that the steps after it are not applied either.
    """

    alone: int
    charged: tuple[bool, ...]
    holds: tuple[str, ...]
    usage: int
    strict: bool


def statement_of(add: Add, strict: bool) -> tuple[Shape, list[str | None]]:
    """A step's shape, and the values of its statement."""
    project = add.project
    values: list[str | None] = [
        project, None if add.now is None else str(add.now), str(add.since), str(add.until)
    ]  # fmt: skip
    versions = dict(add.subjects)
    summed = {Subject(one.ref.scope, one.ref.subject) for one in add.sums}
    alone = 0
    for subject, version in add.subjects:
        if subject not in summed:
            alone += 1
            values += owner_of(*subject), str(version)
    for ref, spent, held, model, most, most_spent, known in add.sums:
        values += (
            owner_of(ref.scope, ref.subject), ref.model, ref.window, ref.unit,
            str(versions[Subject(ref.scope, ref.subject)]), str(held), str(spent),
            _NO_LIMIT if most is None else str(most), _NO_LIMIT if most_spent is None else str(most_spent),
        )  # fmt: skip
        values += (None, None) if known is None else (str(known[0]), str(known[1]))
        if spent:
            values.append(model)
    kinds: list[tuple[str, str, Sequence[str | None]]] = [_hold(add.hold, add.expected)]
    if add.marks:
        kinds += [_mark(mark) for mark in add.marks]
        kinds.sort()
    for key, _, more in kinds:
        values.append(key)
        values += more
    for (scope, name, day, model), totals in sorted(add.usage.items()):
        values += owner_of(scope, name), scope, name, str(day), model
        values += map(str, totals)
    charged = tuple(bool(one.spent) for one in add.sums)
    return Shape(alone, charged, tuple(kind for _, kind, _ in kinds), len(add.usage), strict), values


def _hold(hold: Hold, expected: Hold | None) -> tuple[str, str, Sequence[str | None]]:
    row = hold_row(hold)
    values: list[str | None] = []
    for column in HOLD_COLUMNS:
        value = row.get(column)
        if value is None or isinstance(value, str):
            values.append(value)
        else:
            values.append(to_json(value).decode() if column in _JSON else str(value))
    if expected is None:
        return row["id"], "new", values
    return row["id"], "known", [*values, *map(str, expected.amounts)]


def _mark(mark: str) -> tuple[str, str, Sequence[str | None]]:
    key = stored_id(mark)
    return key, "mark", (None if key == mark else mark,)


@lru_cache(maxsize=1000)
def text_of(shape: Shape, schema: str) -> str:
    """The statement for steps of this shape. It answers 1 if the step was applied, else 0, or fails with NOT_APPLIED.

    Its parts are a chain: each reads the only row of the part before it, and has no row itself if a guard of its own fails.
    """
    numbers = count(1)

    def value() -> str:
        return f"${next(numbers)}"

    project, now, since, until = (value() for _ in range(4))
    guards = "".join(
        f" AND coalesce((SELECT version FROM {schema}.accounts WHERE project = {project} AND owner = {value()}::uuid LIMIT 1),"
        f" 0) = {value()}::bigint"
        for _ in range(shape.alone)
    )
    builders: list[Builder] = [_charged_account if charged else _held_account for charged in shape.charged]
    builders += [_HOLDS[kind] for kind in shape.holds]
    builders += [_totals] * shape.usage
    chain, source = "", "moment"
    for place, build in enumerate(builders, 1):
        chain += f", step{place} AS ({build(schema, project, source, value)} RETURNING 1)"
        source = f"moment, step{place}"
    applied = f"1 / (SELECT count(*) FROM step{len(builders)})"
    if not shape.strict:
        applied = f"CASE WHEN EXISTS (SELECT FROM step1) THEN {applied} ELSE 0 END"
    return (
        f"WITH clock AS MATERIALIZED (SELECT coalesce({now}::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)"
        f" AS now), moment AS MATERIALIZED (SELECT now FROM clock WHERE now >= {since}::bigint AND now < {until}::bigint"
        f" AND current_setting('transaction_isolation') = 'read committed'{guards}){chain} SELECT {applied}"
    )


Builder = Callable[[str, str, str, Callable[[], str]], str]
"""From the schema, the project's value, what is read from and the next value to one part of a statement."""


def _held_account(schema: str, project: str, source: str, value: Callable[[], str]) -> str:
    return _account(schema, project, source, value, charged=False)


def _charged_account(schema: str, project: str, source: str, value: Callable[[], str]) -> str:
    return _account(schema, project, source, value, charged=True)


def _account(schema: str, project: str, source: str, value: Callable[[], str], *, charged: bool) -> str:
    owner, model, period, unit, version, held, spent, most, most_spent, known_spent, known_held = (
        value() for _ in range(11)
    )
    changes = f"held = a.held + {held}::bigint"
    if charged:
        label = f"{value()}::text"
        rest = f"coalesce((a.models->>{label})::bigint, 0) + {spent}::bigint"
        changes += (
            f", spent = a.spent + {spent}::bigint, models = CASE WHEN {rest} = 0 THEN a.models - {label}"
            f" ELSE a.models || jsonb_build_object({label}, {rest}) END"
        )
    return (
        f"UPDATE {schema}.accounts a SET {changes} FROM {source} WHERE a.project = {project} AND a.owner = {owner}::uuid"
        f" AND a.model = {model} AND a.period = {period} AND a.unit = {unit} AND a.version = {version}::bigint"
        f" AND a.spent + a.held + {spent}::bigint + {held}::bigint <= {most}::bigint"
        f" AND a.spent + {spent}::bigint <= {most_spent}::bigint"
        f" AND a.spent = coalesce({known_spent}::bigint, a.spent) AND a.held = coalesce({known_held}::bigint, a.held)"
    )


def _new_hold(schema: str, project: str, source: str, value: Callable[[], str]) -> str:
    key, values = value(), ", ".join(_hold_values(value))
    return (
        f"INSERT INTO {schema}.holds (project, id, {', '.join(HOLD_COLUMNS)}) SELECT {project}, {key}, {values} FROM {source}"
        " ON CONFLICT (project, id) DO NOTHING"
    )


def _known_hold(schema: str, project: str, source: str, value: Callable[[], str]) -> str:
    key, values = value(), _hold_values(value)
    changes = ", ".join(f"{column} = {new}" for column, new in zip(HOLD_COLUMNS, values))
    usd, calls, tokens = (value() for _ in range(3))
    return (
        f"UPDATE {schema}.holds h SET {changes} FROM {source} WHERE h.project = {project} AND h.id = {key} AND h.state = 'open'"
        f" AND h.usd = {usd}::bigint AND h.calls = {calls}::bigint AND h.tokens = {tokens}::bigint"
    )


def _mark_row(schema: str, project: str, source: str, value: Callable[[], str]) -> str:
    key, full_id = value(), value()
    emptied = ", ".join(f"{column} = NULL" for column in HOLD_COLUMNS if column not in ("full_id", "state", "at"))
    return (
        f"INSERT INTO {schema}.holds (project, id, full_id, state, at) SELECT {project}, {key}, {full_id}, 'alias', moment.now"
        f" FROM {source} ON CONFLICT (project, id) DO UPDATE SET state = excluded.state, at = excluded.at, {emptied}"
    )


_HOLDS: dict[str, Builder] = {"new": _new_hold, "known": _known_hold, "mark": _mark_row}


def _hold_values(value: Callable[[], str]) -> list[str]:
    values = [f"{value()}::{_TYPES[column]}" for column in HOLD_COLUMNS]
    at = HOLD_COLUMNS.index("at")
    values[at] = f"moment.now + {values[at]}"
    return values


def _totals(schema: str, project: str, source: str, value: Callable[[], str]) -> str:
    owner, scope, subject, day, model = (value() for _ in range(5))
    columns = ", ".join(Usage._fields)
    sums = ", ".join(f"{column} = u.{column} + excluded.{column}" for column in Usage._fields)
    return (
        f"INSERT INTO {schema}.usage AS u (project, owner, scope, subject, day, model, {columns})"
        f" SELECT {project}, {owner}::uuid, {scope}, {subject}, {day}::bigint, {model},"
        f" {', '.join(f'{value()}::bigint' for _ in Usage._fields)} FROM {source}"
        f" ON CONFLICT (project, owner, day, model) DO UPDATE SET {sums}"
    )
