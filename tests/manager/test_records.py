"""Writing to one user's record: every key goes to the ledger, and a bad value changes nothing."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from litellm_budget_plugin import BudgetInputError, BudgetManager
from tests.manager.answers import spend

DAY = 86_400
JUST_NOW = float(int(time.time()))


def test_increments(users: Any) -> None:
    users["alice"]["total_budget"] += 5
    users["alice"]["current_cost"] += 0.5
    users["alice"]["last_updated_at"] -= 60
    assert users["alice"]["total_budget"] == 15
    assert users["alice"]["current_cost"] == 1
    assert users["alice"]["created_at"] - users["alice"]["last_updated_at"] == pytest.approx(60)


def test_a_record_that_is_kept_takes_nothing_back(users: Any, manager: BudgetManager) -> None:
    record, models = users["alice"], users["alice"]["model_cost"]
    spend(manager, "alice", 0.25)
    record["total_budget"] = 20
    assert record["current_cost"] == users["alice"]["current_cost"] == 0.75
    models["gpt-4"] = 0.125
    assert models == users["alice"]["model_cost"] == {"gpt-4o": 0.75, "gpt-4": 0.125}


def test_a_record_of_a_user_who_has_gone_cannot_be_written(users: Any) -> None:
    record = users["bob"]
    del users["bob"]
    with pytest.raises(KeyError, match="bob"):
        record["total_budget"] = 5
    assert "bob" not in users


def test_model_cost_is_what_current_cost_adds_up_from(users: Any) -> None:
    record = users["alice"]
    record["model_cost"]["gpt-4o"] = 2
    assert users["alice"]["current_cost"] == 2
    record["model_cost"] = {"gpt-4": 0.25, "o1": 0.5}
    assert users["alice"]["current_cost"] == record["current_cost"] == 0.75
    del record["model_cost"]["o1"]
    assert users["alice"]["current_cost"] == 0.25
    record["current_cost"] = 0
    assert (users["alice"]["current_cost"], users["alice"]["model_cost"]) == (0, {})


def test_litellms_own_update_written_by_hand_counts_once(users: Any) -> None:
    record = users["alice"]
    record["current_cost"] = 0.25 + record.get("current_cost", 0)
    record["model_cost"]["gpt-4"] = 0.25 + record["model_cost"].get("gpt-4", 0)
    assert users["alice"]["current_cost"] == 0.75
    assert users["alice"]["model_cost"] == {"gpt-4o": 0.5, "gpt-4": 0.25}

    record = users["bob"]
    record["current_cost"] = 0.25
    record.setdefault("model_cost", {})
    record["model_cost"]["gpt-4"] = 0.25
    assert users["bob"]["model_cost"] == {"gpt-4": 0.25}


def test_current_cost_below_the_breakdown_shortens_it(users: Any) -> None:
    users["alice"]["model_cost"] = {"gpt-4o": 3, "gpt-4": 1}
    users["alice"]["current_cost"] = 2
    assert users["alice"]["model_cost"] == {"gpt-4o": 1, "gpt-4": 1}


def test_floats_that_do_not_quite_add_up_stay_with_their_model(users: Any) -> None:
    record = {"total_budget": 1, "current_cost": 0.3000000008, "model_cost": {"a": 0.1000000004, "b": 0.2000000004}}
    users["dora"] = record
    assert users["dora"]["model_cost"].keys() == {"a", "b"}


def test_durations_and_windows(users: Any) -> None:
    record = users["bob"]
    record["duration"] = 0.5
    assert users["bob"] == {
        "total_budget": 2,
        "duration": 0.5,
        "window": "43200s",
        "created_at": record["created_at"],
        "last_updated_at": record["last_updated_at"],
    }
    assert users["alice"]["created_at"] <= record["last_updated_at"] <= time.time()
    record["window"] = "week:7"
    assert (record["window"], record["duration"]) == ("week:7@UTC", 7)
    record["window"] = "daily"
    assert "window" not in record and record["duration"] == 1
    del record["duration"]
    assert users["bob"] == {"total_budget": 2}


def test_another_window_keeps_the_spend(users: Any) -> None:
    start = time.time() - 20.5 * DAY
    users["alice"].update({"duration": 30, "last_updated_at": start})
    assert users["alice"]["current_cost"] == 0.5
    for window, duration in (("weekly", 7), ("month", None), ("3d", 3)):
        users["alice"]["window"] = window
        record = users["alice"]
        assert record["current_cost"] == 0.5 and (duration is None or record["duration"] == duration)
        assert record["last_updated_at"] <= time.time() < record["last_updated_at"] + record["duration"] * DAY


def test_the_same_window_again_brings_nothing_back(users: Any) -> None:
    users["alice"]["last_updated_at"] -= 2 * DAY
    users["alice"]["duration"] = 1
    assert users["alice"]["current_cost"] == 0


BAD_RECORDS: list[tuple[Any, str]] = [
    ({}, "total_budget"),
    (5, "dictionary"),
    ({"total_budget": -1}, "total_budget must not be negative"),
    ({"total_budget": math.nan}, "total_budget must be a finite"),
    ({"total_budget": 1e9}, "total_budget must be at most"),
    ({"total_budget": True}, "total_budget must be a number"),
    ({"total_budget": 1, "email": "a@b.c"}, "'email' is not a key"),
    ({"total_budget": 1, "duration": "weekly"}, "duration must be a number of days"),
    ({"total_budget": 1, "duration": 0}, "duration must be a number of days"),
    ({"total_budget": 1, "duration": math.inf}, "duration must be a number of days"),
    ({"total_budget": 1, "window": "fortnight"}, "unknown window"),
    ({"total_budget": 1, "window": 7}, "window must be text"),
    ({"total_budget": 1, "duration": 1, "created_at": -1}, "created_at must be seconds"),
    ({"total_budget": 1, "duration": 1, "last_updated_at": math.nan}, "last_updated_at must be seconds"),
    ({"total_budget": 1, "duration": 1, "last_updated_at": "now"}, "last_updated_at must be seconds"),
    ({"total_budget": 1, "current_cost": -0.5}, "current_cost must not be negative"),
    ({"total_budget": 1, "model_cost": 3}, "model_cost must be a dictionary"),
    ({"total_budget": 1, "model_cost": {"gpt-4o": -3}}, "model_cost of 'gpt-4o'"),
    ({"total_budget": 1, "model_cost": {"": 3}}, "a model in model_cost"),
    ({"total_budget": 1, "model_cost": {"a": 9e6, "b": 9e6}}, "adds up to more"),
]


@pytest.mark.parametrize(("record", "problem"), BAD_RECORDS, ids=[str(record) for record, _ in BAD_RECORDS])
def test_bad_records_are_refused_and_change_nothing(
    users: Any, manager: BudgetManager, record: Any, problem: str
) -> None:
    before = users.copy()
    for attempt in (
        lambda: users.__setitem__("alice", record),
        lambda: users.update({"bob": {"total_budget": 9}, "carol": record}),
        lambda: setattr(manager, "user_dict", {"bob": {"total_budget": 9}, "carol": record}),
    ):
        with pytest.raises(BudgetInputError, match=problem):
            attempt()
    if isinstance(record, dict) and record:
        with pytest.raises(BudgetInputError, match=problem):
            users["alice"].update(record)
    assert users == before


def test_what_a_record_cannot_lose(users: Any) -> None:
    before = users.copy()
    for attempt in (
        lambda: users["alice"].pop("total_budget"),
        lambda: users["alice"].__delitem__("model_cost"),
        lambda: users["alice"].clear(),
        lambda: users.__setitem__("  ", {"total_budget": 1}),
        lambda: users.replace(5),
    ):
        with pytest.raises(BudgetInputError):
            attempt()
    with pytest.raises(KeyError):
        del users["alice"]["email"]
    assert users == before
