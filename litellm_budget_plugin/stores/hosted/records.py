"""A user's record at the endpoint, and the account that it stands for.

Beside LiteLLM's keys (`core.shape`) a record has two of ours, which LiteLLM keeps:

    "default": true                 the user has no limit of their own; whoever reads it applies their default
    "writes": {"5e0c41…": 1764…}    the last write of each store that has written this record within an hour, by the store's
                                    id, in microseconds since 1970: how a store learns that its write was lost

What else is in a record is kept as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from litellm_budget_plugin.core.accounts import Account, Default
from litellm_budget_plugin.core.commands import MICROS
from litellm_budget_plugin.core.ledger import state_of
from litellm_budget_plugin.core.money import MAX_NANOS, charge_nanos, usd_float
from litellm_budget_plugin.core.shape import KEYS, UNASSIGNED, changes, record_of, whole_record

FOLLOWS = "default"
WRITES = "writes"
_REMEMBERED = 3_600 * MICROS
# A float of millions of dollars does not tell one nano-dollar from the next.
_UNLIMITED = charge_nanos(usd_float(MAX_NANOS))


class Recorded(NamedTuple):
    """What a record says. `limit` (nano-dollars; None: unlimited) counts only if the user does not follow the default.
    The times are microseconds; `start` and `created_at` mean nothing without an `end`.
    """

    follows: bool
    limit: int | None
    window: str
    created_at: int
    start: int
    end: int | None
    models: dict[str, int]

    @property
    def spent(self) -> int:
        """Nano-dollars."""
        return sum(self.models.values())


def read_record(record: Any, now: int) -> Recorded:
    """What a record says at the time `now`. Raises BudgetInputError, naming the key, for what cannot be understood."""
    whole = whole_record(record)
    fields = changes({key: value for key, value in whole.items() if key in KEYS}, None, "none", now, "UTC")
    limit = fields["limit"]
    start, end = fields["bounds"]
    return Recorded(
        follows=whole.get(FOLLOWS) is True,
        limit=None if limit is None or limit >= _UNLIMITED else limit,
        window=fields["window"],
        created_at=fields.get("created_at", start),
        start=start,
        end=end,
        models=dict(fields.get("spent", ())),
    )


def write_record(account: Account, default: Default, there: Any, now: int, writer: str, stamp: int) -> dict[str, Any]:
    """The record of an account, for the place of `there`, whose other keys it keeps. JSON has no Infinity: no limit is
    written as the largest amount there is.
    """
    record = record_of(state_of(account, default, now), default)
    if record["total_budget"] == math.inf:
        record["total_budget"] = usd_float(MAX_NANOS)
    if account.spent > MAX_NANOS and "current_cost" in record:
        record["current_cost"], record["model_cost"] = usd_float(MAX_NANOS), {UNASSIGNED: usd_float(MAX_NANOS)}
    if not account.pinned:
        record[FOLLOWS] = True
    kept = (
        {key: value for key, value in there.items() if key not in (*KEYS, FOLLOWS)}
        if isinstance(there, Mapping)
        else {}
    )
    return {**kept, **record, WRITES: {**_recent(kept.get(WRITES), stamp), writer: stamp}}


def _recent(writes: Any, now: int) -> dict[str, int]:
    if not isinstance(writes, Mapping):
        return {}
    return {writer: at for writer, at in writes.items() if isinstance(at, int) and at > now - _REMEMBERED}


def overwritten(there: Any, writer: str, stamp: int) -> bool:
    """Whether a record was written by a store that had not seen this write."""
    writes = there.get(WRITES) if isinstance(there, Mapping) else None
    if not isinstance(writes, Mapping) or not writes:
        # Whoever made the record anew, without our keys, meant what it says.
        return False
    seen = writes.get(writer, 0)
    return not isinstance(seen, int) or seen < stamp
