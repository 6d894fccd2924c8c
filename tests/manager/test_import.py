"""user_cost.json: imported once, written atomically, and never imported if it is damaged."""

from __future__ import annotations

import json
import logging
import math
import time
from typing import Any

import pytest

from litellm_budget_plugin import BudgetFileError, BudgetManager
from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import MICROS, Settle
from litellm_budget_plugin.manager import snapshot
from litellm_budget_plugin.manager.ids import new_id
from tests.manager.answers import spend
from tests.manager.conftest import OpenManager
from tests.manager.files import FILE, RECORDS, put_file

DAY = 86_400


@pytest.mark.parametrize("url", ["memory://", "sqlite:///ledger.db"])
def test_the_file_is_imported_at_the_start(open_manager: OpenManager, url: str) -> None:
    put_file(RECORDS)
    manager = open_manager(store_url=url)
    assert manager.user_dict == RECORDS
    assert manager.get_model_cost("carol") == {} and manager.get_model_cost("bob") == 0


def test_it_is_imported_once(open_manager: OpenManager) -> None:
    put_file(RECORDS)
    manager = open_manager()
    spend(manager, "alice", 0.25)
    manager.user_dict["bob"]["total_budget"] = 3
    del manager.user_dict["carol"]
    put_file({**RECORDS, "dora": {"total_budget": 1}})
    manager.load_data()
    again = open_manager()
    assert again.get_current_cost("alice") == 0.75
    assert again.get_total_budget("bob") == 3
    assert again.get_users() == ["alice", "bob"]


def test_that_it_was_imported_outlives_the_retention_of_marks(open_manager: OpenManager) -> None:
    from litellm_budget_plugin.core.commands import Sweep

    put_file(RECORDS)
    manager = open_manager()
    del manager.user_dict["carol"]
    manager._ledger.ask(Sweep("shop", marks_kept=0, days_kept=0))
    manager.load_data()
    assert "carol" not in manager.user_dict


def test_it_is_imported_for_each_project(open_manager: OpenManager) -> None:
    put_file(RECORDS)
    assert open_manager("one").user_dict == open_manager("two").user_dict == RECORDS


def test_a_file_that_comes_later_is_imported_by_load_data(open_manager: OpenManager) -> None:
    manager = open_manager()
    put_file(RECORDS)
    assert manager.user_dict == {}
    manager.load_data()
    assert manager.user_dict == RECORDS


def test_budgets_in_the_ledger_stay_as_they_are(open_manager: OpenManager) -> None:
    manager = open_manager()
    manager.create_budget(1, "alice")
    put_file(RECORDS)
    manager.load_data()
    assert manager.user_dict == {**RECORDS, "alice": {"total_budget": 1}}


def test_an_import_that_another_process_overtakes_changes_nothing(
    open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file(RECORDS)
    imported = snapshot._imported
    faster: list[BudgetManager] = []

    def overtaken(*arguments: Any) -> dict[str, Any]:
        if not faster:
            monkeypatch.setattr(snapshot, "_imported", imported)
            faster.append(open_manager())
            spend(faster[0], "alice", 0.25)
        return imported(*arguments)

    monkeypatch.setattr(snapshot, "_imported", overtaken)
    assert open_manager().get_current_cost("alice") == 0.75


def test_spend_that_was_only_tracked_is_added(open_manager: OpenManager) -> None:
    manager = open_manager()
    subjects = (Subject("user", "alice"), Subject("user", "old"))
    command = Settle(new_id(), "shop", subjects, ("gpt-4",), 125_000_000, "gpt-4", defaults=manager._ledger.defaults)
    manager._ledger.ask(command)
    assert not manager.is_valid_user("alice")
    yesterday = time.time() - 1.5 * DAY
    old = {"total_budget": 3, "duration": 1, "created_at": yesterday, "last_updated_at": yesterday, "current_cost": 2}
    put_file({**RECORDS, "old": old})
    manager.load_data()
    assert manager.user_dict["alice"]["model_cost"] == {"gpt-4": 0.125, "gpt-4o": 0.5}
    # The file's spend belongs to a window that is over; the ledger's spend is new.
    assert manager.get_current_cost("old") == 0.125
    assert manager.user_dict["old"]["last_updated_at"] == pytest.approx(yesterday + DAY, abs=1 / MICROS)


def test_a_window_that_is_over_is_imported_as_empty(open_manager: OpenManager) -> None:
    long_ago = {"total_budget": 3, "duration": 1, "created_at": 5, "last_updated_at": 5, "current_cost": 2}
    put_file({"old": long_ago})
    manager = open_manager()
    assert manager.user_dict == {"old": {**long_ago, "current_cost": 0, "model_cost": {}}}
    spend(manager, "old", 0.5)
    assert manager.get_current_cost("old") == 0.5


def test_infinity_is_unlimited(open_manager: OpenManager) -> None:
    put_file('{"alice": {"total_budget": Infinity}}')
    manager = open_manager()
    assert manager.get_total_budget("alice") == math.inf
    manager.save_data()
    assert json.loads(FILE.read_text()) == {"alice": {"total_budget": math.inf}}


BROKEN = {
    "empty": ("", "not valid JSON"),
    "half written": (json.dumps(RECORDS, indent=4)[:150], "not valid JSON"),
    "no text": (b"\xff\xfe\x00", "not valid JSON"),
    "too deep": ("[" * 100_000, "not valid JSON"),
    "a list": ("[]", "an object with a record for each user"),
    "no record": ('{"alice": 5}', "user 'alice': a user's record must be a dictionary"),
    "no budget": ('{"alice": {"current_cost": 1}}', "user 'alice': a user's record must have a total_budget"),
    "negative": ('{"bob": {"total_budget": 1}, "alice": {"total_budget": -1}}', "user 'alice': total_budget must not"),
    "not a number": ('{"alice": {"total_budget": NaN}}', "user 'alice': total_budget must be a finite"),
    "bad id": ('{"": {"total_budget": 1}}', "user '': user must have 1 to 256"),
    "unknown key": ('{"alice": {"total_budget": 1, "email": "a@b.c"}}', "user 'alice': 'email' is not a key"),
    "unknown window": ('{"alice": {"total_budget": 1, "window": "moon"}}', "user 'alice': unknown window 'moon'"),
}


@pytest.mark.parametrize(("content", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_stops_the_start_and_imports_nothing(
    open_manager: OpenManager, content: str | bytes, problem: str
) -> None:
    keeper = open_manager()
    FILE.write_bytes(content if isinstance(content, bytes) else content.encode())
    for attempt in (open_manager, keeper.load_data, keeper.save_data):
        with pytest.raises(BudgetFileError) as raised:
            attempt()
        message = str(raised.value)
        assert problem in message and str(FILE.resolve()) in message and "move it away" in message
    assert keeper.user_dict == {}
    FILE.unlink()
    assert open_manager().user_dict == {}


def test_an_import_is_told(open_manager: OpenManager, caplog: pytest.LogCaptureFixture) -> None:
    put_file(RECORDS)
    with caplog.at_level(logging.INFO, "litellm_budget_plugin"):
        open_manager()
    assert [record.getMessage() for record in caplog.records if "imported" in record.getMessage()] == [
        f"imported 3 of 3 budgets from {FILE.resolve()}"
    ]
