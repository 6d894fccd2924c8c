"""A user's record at the endpoint, and the account that it stands for.

Beside LiteLLM's keys (`core.shape`) a record has two of ours, which LiteLLM keeps:

    "default": true     the user has no limit of their own; whoever reads it applies their default
    "ledger": {"changed": 1764…, "reset": 1764…, "start": 0, "spent": {"5e0c41…": [1764…, {"gpt-4o": 2500}]}}

The protocol replaces the whole dictionary and cannot compare, so writes that cross overwrite each other. "ledger" is how a
store sees that and writes again: when the limit or window was last changed and the spend last reset by a store, where the window
began (0: it has no end), and, for each store that has written within an hour, when it did and what part of the spend since the
last reset is its own, by model in nano-dollars. All times are microseconds since 1970. The record of a user who was dropped goes on for a minute with "dropped" in
its "ledger", as that of a user of the default who has spent nothing. What else is in a record is kept as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from litellm_budget_plugin.core.accounts import Account, Default
from litellm_budget_plugin.core.commands import MICROS
from litellm_budget_plugin.core.ledger import state_of
from litellm_budget_plugin.core.money import MAX_NANOS, charge_nanos, usd_float
from litellm_budget_plugin.core.shape import KEYS, UNASSIGNED, changes, record_of, unopened_record, whole_record
from litellm_budget_plugin.core.windows import bounds, parse_window

FOLLOWS = "default"
LEDGER = "ledger"
REMEMBERED = 3_600 * MICROS
"""How long (microseconds) a store's part of the spend is told apart after its last write."""

_DROPPED = 60 * MICROS

# A float of millions of dollars does not tell one nano-dollar from the next.
UNLIMITED = charge_nanos(usd_float(MAX_NANOS))
"""A limit that is as high is none."""


class Part(NamedTuple):
    """What one store has added to a record's spend since the last reset, and when it last wrote."""

    at: int
    models: dict[str, int]


class Recorded(NamedTuple):
    """What a record says. `limit` (nano-dollars; None: unlimited) counts only if the user does not follow the default.
    The times are microseconds; `start` and `created_at` mean nothing without an `end`. `foreign`: it was made, or its window moved,
    by somebody who does not know our keys. `dropped`: the user is gone.
    """

    follows: bool
    limit: int | None
    window: str
    created_at: int
    start: int
    end: int | None
    models: dict[str, int]
    changed: int
    reset: int
    parts: dict[str, Part]
    foreign: bool
    dropped: bool


def read_record(record: Any, now: int) -> Recorded:
    """What a record says at the time `now`. Raises BudgetInputError, naming the key, for what cannot be understood."""
    whole = whole_record(record)
    fields = changes({key: value for key, value in whole.items() if key in KEYS}, None, "none", now, "UTC")
    limit = fields["limit"]
    start, end = fields["bounds"]
    ledger = whole.get(LEDGER)
    known: dict[str, Any] = ledger if isinstance(ledger, dict) else {}
    return Recorded(
        follows=whole.get(FOLLOWS) is True,
        limit=None if limit is None or limit >= UNLIMITED else limit,
        window=fields["window"],
        created_at=fields.get("created_at", start),
        start=start,
        end=end,
        models={model: spent for model, spent in fields.get("spent", ()) if spent},
        changed=_whole(known.get("changed")),
        reset=_whole(known.get("reset")),
        parts=_parts(known.get("spent")),
        foreign=known.get("start") != began(start, end),
        dropped="dropped" in known,
    )


def began(start: int, end: int | None) -> int:
    """Where a window began, as far as that tells it from another: 0 for one without an end."""
    return 0 if end is None else start


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _parts(spent: Any) -> dict[str, Part]:
    parts = {}
    for writer, part in spent.items() if isinstance(spent, dict) else ():
        if isinstance(part, list) and len(part) == 2 and isinstance(part[1], dict):
            parts[writer] = Part(_whole(part[0]), {model: _whole(nanos) for model, nanos in part[1].items()})
    return parts


class Ledger(NamedTuple):
    """What a record's "ledger" is to say."""

    changed: int
    reset: int
    parts: Mapping[str, Part]


def dropped_record(default: Default, stamp: int, now: int) -> dict[str, Any]:
    """The record of a user who was dropped at `stamp`: others, who may have read the one before, must learn of it."""
    start, end = bounds(parse_window(default.window), now)
    ledger = {"changed": stamp, "reset": stamp, "start": began(start, end), "spent": {}, "dropped": stamp}
    return {**finite(unopened_record(default, now)), FOLLOWS: True, LEDGER: ledger}


def forgotten(record: Any, now: int) -> bool:
    """Whether a record is that of a user who was dropped long enough ago."""
    ledger = record.get(LEDGER) if isinstance(record, dict) else None
    return isinstance(ledger, dict) and "dropped" in ledger and _whole(ledger["dropped"]) < now - _DROPPED


def finite(record: dict[str, Any]) -> dict[str, Any]:
    """The record without Infinity, which JSON has not: no limit is written as the largest amount there is."""
    unlimited = record["total_budget"] == math.inf
    return {**record, "total_budget": usd_float(MAX_NANOS)} if unlimited else record


def write_record(account: Account, default: Default, there: Any, ledger: Ledger, now: int) -> dict[str, Any]:
    """The record of an account, for the place of `there`, whose other keys it keeps."""
    record = finite(record_of(state_of(account, default, now), default))
    if account.spent > MAX_NANOS and "current_cost" in record:
        record["current_cost"], record["model_cost"] = usd_float(MAX_NANOS), {UNASSIGNED: usd_float(MAX_NANOS)}
    if not account.pinned:
        record[FOLLOWS] = True
    record[LEDGER] = {
        "changed": ledger.changed,
        "reset": ledger.reset,
        "start": began(account.start, account.end),
        "spent": {writer: [part.at, part.models] for writer, part in ledger.parts.items()},
    }
    others: dict[str, Any] = there if isinstance(there, dict) else {}
    return {**{key: value for key, value in others.items() if key not in (*KEYS, FOLLOWS)}, **record}
