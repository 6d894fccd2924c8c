"""Whatever lies at the endpoint, reading it ends with a record or with BudgetInputError, and never with anything else."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Account, Default, Ref
from litellm_budget_plugin.core.windows import SECOND, bounds, parse_window
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.hosted.records import Ledger, Part, forgotten, read_record, write_record
from litellm_budget_plugin.stores.hosted.store import HostedStore
from tests.generated import examples
from tests.stores.desk import account_of, charge_of
from tests.stores.hosted.test_conformance import Wire

NOW = 1_774_734_000 * SECOND

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
sensible = st.sampled_from(
    (0, 0.5, 1, 7, 1e9, 1_774_734_000.5, "7d", "month", "month@UTC", "x", {"m": 0.25}, {"m": -1})
)
ledgers = st.fixed_dictionaries(
    {},
    optional={
        "changed": anything,
        "reset": anything,
        "start": st.just(0) | anything,
        "dropped": anything,
        "spent": anything | st.dictionaries(st.text(max_size=5), st.tuples(anything, anything).map(list), max_size=3),
    },
)
strange_records = st.fixed_dictionaries(
    {"total_budget": sensible | anything},
    optional={
        **dict.fromkeys(
            ("duration", "window", "created_at", "last_updated_at", "current_cost", "model_cost", "default"),
            sensible | anything,
        ),
        "ledger": anything | ledgers,
    },
)


@examples(500)
@given(record=anything | strange_records)
def test_strange_records_are_read_or_refused(record: Any) -> None:
    with suppress(BudgetInputError):
        read_record(record, NOW)
    forgotten(record, NOW)


@examples(150)
@given(record=strange_records, other=strange_records)
def test_a_store_goes_on_beside_strange_records(record: Any, other: Any) -> None:
    """Alice's charge is at the endpoint afterwards, or she is blocked and her record as it was."""
    wire = Wire()
    store = HostedStore(wire, "the wire")
    store.execute(charge_of("before"))
    wire.put("p", {"alice": record, "bob": other})
    store.execute(charge_of("h"))
    wire.put("p", {"alice": other, "bob": record})
    store.execute(charge_of("h 2"))
    assert account_of(store).spent >= 0 or account_of(store).blocked


def test_what_is_written_is_read_back() -> None:
    default = Default("user", "month@Europe/Berlin", 5)
    ledger = Ledger(3, 4, {"me": Part(NOW, {"m": 25})})
    for pinned, limit, window in (
        (True, 123_456_789, "7d"),
        (False, None, "month@Europe/Berlin"),
        (True, None, "none"),
    ):
        ref, (start, end) = Ref("user", "alice", "", window), bounds(parse_window(window), NOW)
        account = Account(ref, "id", NOW - 5, start, end, pinned=pinned, limit=limit, spent=25, models={"m": 25})
        theirs = read_record(write_record(account, default, {"team": "blue"}, ledger, NOW + 1), NOW + 1)
        assert (theirs.follows, theirs.window, theirs.models) == (not pinned, window, {"m": 25})
        assert theirs.limit == limit or not pinned
        assert (theirs.changed, theirs.reset, theirs.parts, theirs.foreign) == (3, 4, ledger.parts, False)
        assert end is None or (theirs.created_at, theirs.start) == (NOW - 5, start)
