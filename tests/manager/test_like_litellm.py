"""LiteLLM's class and ours behave alike: equal calls give equal results, records, exceptions and files."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import BudgetManager
from tests.manager.answers import MESSAGES, answer
from tests.manager.conftest import OpenManager

Script = Callable[[Any], Any]
JUST_NOW = float(int(time.time()))
"""No window that begins now ends while the tests run."""


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """LiteLLM's manager, in its own directory. It does not save in the background, because it would write to the current directory."""
    monkeypatch.setattr(litellm.BudgetManager, "_save_data_thread", lambda self: None)
    here = Path.cwd()
    monkeypatch.chdir(tmp_path_factory.mktemp("theirs"))
    manager = litellm.BudgetManager("shop")
    monkeypatch.chdir(here)
    return manager


def close(value: Any) -> Any:
    """Return a plain copy with floats rounded to 8 digits, so that tiny differences do not count."""
    if isinstance(value, dict):
        return {key: close(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [close(item) for item in value]
    return round(value, 8) if isinstance(value, float) else value


def outcome(script: Script, manager: Any) -> Any:
    """Return a copy of what the script returned or raised, and the dictionary afterwards."""
    try:
        result = copy.deepcopy(script(manager))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else type(error)
        result = (kind, error.args)
    return close(result), close(dict(manager.user_dict.items()))


def spent(manager: Any) -> Any:
    manager.create_budget(10, "alice", "daily", JUST_NOW)
    manager.create_budget(2, "bob")
    manager.update_cost("alice", RESPONSE)
    return manager.update_cost("alice", model="gpt-4o-mini", input_text="Hi there", output_text="Hello to you")


RESPONSE = answer()


def written(*steps: Callable[[dict[str, Any]], Any]) -> Script:
    def script(manager: Any) -> Any:
        spent(manager)
        return [copy.deepcopy(step(manager.user_dict)) for step in steps]

    return script


def then(*steps: Script) -> Script:
    def script(manager: Any) -> Any:
        spent(manager)
        return [copy.deepcopy(step(manager)) for step in steps]

    return script


SCRIPTS: dict[str, Script] = {
    "nothing": lambda m: m.get_users(),
    "create": lambda m: m.create_budget(10, "alice"),
    "create by name": lambda m: m.create_budget(total_budget=0.5, user="alice", duration=None),
    "create zero": lambda m: m.create_budget(0, "alice"),
    "create again": lambda m: [m.create_budget(10, "alice"), m.create_budget(20, "alice")],
    "create daily": lambda m: m.create_budget(10, "alice", "daily", JUST_NOW),
    "create weekly": lambda m: m.create_budget(10, "alice", "weekly", JUST_NOW),
    "create monthly": lambda m: m.create_budget(10, "alice", "monthly", created_at=JUST_NOW),
    "create yearly": lambda m: m.create_budget(10, "alice", duration="yearly", created_at=JUST_NOW),
    "spend": spent,
    "spend more": then(lambda m: m.update_cost(user="alice", completion_obj=RESPONSE)),
    "spend by name": then(lambda m: m.update_cost(completion_obj=RESPONSE, user="bob")),
    "spend for nothing": then(lambda m: m.update_cost("alice")),
    "spend half described": then(lambda m: m.update_cost("alice", model="gpt-4o", input_text="Hi")),
    "spend of a stranger": then(lambda m: m.update_cost("carol", RESPONSE)),
    "total": then(lambda m: [m.get_total_budget("alice"), m.get_total_budget(user="bob")]),
    "total of a stranger": then(lambda m: m.get_total_budget("carol")),
    "current": then(lambda m: [m.get_current_cost("alice"), m.get_current_cost(user="bob")]),
    "current of a stranger": then(lambda m: m.get_current_cost("carol")),
    "by model": then(lambda m: [m.get_model_cost("alice"), m.get_model_cost(user="bob")]),
    "by model of a stranger": then(lambda m: m.get_model_cost("carol")),
    "valid": then(lambda m: [m.is_valid_user(user) for user in ("alice", "bob", "carol", "")]),
    "users": then(lambda m: m.get_users()),
    "projected": then(lambda m: [m.projected_cost("gpt-4o", MESSAGES, user) for user in ("alice", "bob")]),
    "projected for a stranger": then(lambda m: m.projected_cost("gpt-4o", MESSAGES, "carol")),
    "projected without content": then(lambda m: m.projected_cost("gpt-4o", [{"role": "user"}], "alice")),
    "reset": then(lambda m: m.reset_cost("alice"), lambda m: m.get_model_cost("alice")),
    "reset unspent": then(lambda m: m.reset_cost(user="bob")),
    "reset of a stranger": then(lambda m: m.reset_cost("carol")),
    "reset too early": then(lambda m: m.reset_on_duration("alice"), lambda m: m.update_budget_all_users()),
    "reset without duration": then(lambda m: m.reset_on_duration("bob")),
    "reset on duration of a stranger": then(lambda m: m.reset_on_duration("carol")),
    "set total": written(lambda d: d["alice"].__setitem__("total_budget", 5), lambda d: d["alice"]["total_budget"]),
    "set last update": written(
        lambda d: d["alice"].__setitem__("last_updated_at", JUST_NOW - 60), lambda d: d["alice"]["last_updated_at"]
    ),
    "set creation": written(lambda d: d["alice"].__setitem__("created_at", JUST_NOW - 60)),
    "set duration": written(lambda d: d["alice"].__setitem__("duration", 30)),
    "set record": written(lambda d: d.__setitem__("dora", {"total_budget": 3}), lambda d: d["dora"]),
    "set whole record": written(
        lambda d: d.__setitem__(
            "dora",
            {
                "total_budget": 3,
                "duration": 7,
                "created_at": JUST_NOW - 5,
                "last_updated_at": JUST_NOW,
                "current_cost": 1.5,
                "model_cost": {"gpt-4o": 1.25, "gpt-4": 0.25},
            },
        )
    ),
    "copy a record": written(lambda d: d.__setitem__("dora", d["alice"])),
    "move a record": written(lambda d: d.__setitem__("dora", d.pop("alice"))),
    "update": written(lambda d: d.update({"dora": {"total_budget": 1}, "bob": {"total_budget": 4}})),
    "update a record": written(lambda d: d["alice"].update({"total_budget": 1, "duration": 28})),
    "delete": written(lambda d: d.__delitem__("alice"), lambda d: "alice" in d),
    "delete a stranger": written(lambda d: d.__delitem__("carol")),
    "pop": written(lambda d: d.pop("alice"), lambda d: d.pop("carol", 7)),
    "pop a stranger": written(lambda d: d.pop("carol")),
    "clear": written(lambda d: d.clear(), len),
    "get": written(lambda d: [d.get("alice"), d.get("carol"), d.get("carol", {})]),
    "index a stranger": written(lambda d: d["carol"]),
    "index a stranger's key": written(lambda d: d["bob"]["current_cost"]),
    "setdefault": written(lambda d: d.setdefault("bob", {}), lambda d: d.setdefault("dora", {"total_budget": 9})),
    "compare": written(lambda d: [d == {}, d != {}, d == dict(d), d != dict(d), d == {}, dict(d) == d, d == 3]),
    "views": written(lambda d: [len(d), sorted(d), sorted(d.keys()), list(dict(d.items())), bool(d)]),
    "copies": written(lambda d: [{**d}, d.copy(), d | {"eve": 1}, {"eve": 1} | d, [*reversed(list(d))]]),
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_the_same_as_litellm(script: Script, manager: BudgetManager, theirs: Any) -> None:
    assert outcome(script, manager) == outcome(script, theirs)


def test_a_bad_duration_raises_litellms_words(manager: BudgetManager, theirs: Any) -> None:
    with pytest.raises(ValueError) as ours:
        manager.create_budget(10, "alice", "hourly")
    with pytest.raises(ValueError) as real:
        theirs.create_budget(10, "alice", "hourly")
    assert str(ours.value) == str(real.value)
    # LiteLLM leaves a budget without duration.
    assert manager.user_dict == {} and theirs.user_dict == {"alice": {"total_budget": 10}}


def test_every_public_attribute_is_there(manager: BudgetManager, theirs: Any) -> None:
    names = {name for name in dir(theirs) if not name.startswith("_")} - {"print_verbose"}
    assert names <= set(dir(manager))
    for name in ("client_type", "project_name", "api_base", "headers"):
        assert getattr(manager, name) == getattr(theirs, name)


def test_litellm_reads_our_file_and_we_read_its(
    open_manager: OpenManager, theirs: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = open_manager()
    spent(ours)
    assert ours.save_data() == {"status": "success"}
    reader = litellm.BudgetManager("shop")
    assert reader.user_dict == ours.user_dict
    assert Path("user_cost.json").read_text() == json.dumps(ours.user_dict, indent=4)

    monkeypatch.chdir(tmp_path_factory.mktemp("back"))
    spent(theirs)
    theirs.reset_cost("bob")
    assert theirs.save_data() == {"status": "success"}
    imported = open_manager("another")
    assert close(dict(imported.user_dict.items())) == close(theirs.user_dict)
