"""LiteLLM's own BudgetManager, as it is installed, against the server; and our manager with the same code."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import BudgetManager, BudgetSettings
from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import Accounts, PutBudget, Read, SetLimits, Settle, TopUp
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.stores.protocol import ask
from litellm_budget_plugin.stores.registry import open_store
from tests.server.process import ROOT, Served

MODEL = "gpt-4o"


def theirs(server: Served, project: str, **more: Any) -> Any:
    """Return LiteLLM's manager."""
    return litellm.BudgetManager(project_name=project, client_type="hosted", api_base=server.base, **more)


def response(**usage: int) -> Any:
    """Return the response of a call."""
    answer = litellm.completion(MODEL, [{"role": "user", "content": "hi"}], mock_response="hello")
    answer.usage = litellm.Usage(**usage)
    return answer


def test_create_update_save_and_load_in_a_second_process(shared_server: Served) -> None:
    manager = theirs(shared_server, "second")
    assert manager.user_dict == {}
    manager.create_budget(total_budget=10, user="alice", duration="monthly")
    manager.update_cost("alice", response(prompt_tokens=1000, completion_tokens=10, total_tokens=1010))
    assert manager.save_data() == {"status": "success"}
    program = textwrap.dedent(f"""
        import json, litellm
        manager = litellm.BudgetManager("second", client_type="hosted", api_base={shared_server.base!r})
        print(json.dumps(manager.user_dict))
    """)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded.keys() == {"alice"} and loaded["alice"].keys() == manager.user_dict["alice"].keys()
    for key, value in manager.user_dict["alice"].items():
        # The ledger keeps times to the microsecond and amounts to the nano-dollar.
        assert loaded["alice"][key] == pytest.approx(value, rel=1e-15, abs=1e-6 if key.endswith("_at") else 1e-9), key
    assert manager.user_dict["alice"]["model_cost"].keys() == {MODEL}
    assert manager.get_current_cost("alice") > 0


def test_what_is_saved_replaces_what_was_there(shared_server: Served) -> None:
    manager = theirs(shared_server, "replaced")
    for user in ("alice", "bob"):
        manager.create_budget(total_budget=1, user=user)
    manager.save_data()
    del manager.user_dict["alice"]
    manager.user_dict["bob"]["current_cost"] = 0.5
    manager.save_data()
    again = theirs(shared_server, "replaced").user_dict
    assert again == {"bob": {"total_budget": 1.0, "current_cost": 0.5, "model_cost": {"unassigned": 0.5}}}


def test_a_record_that_cannot_be_is_refused_with_nothing_changed(shared_server: Served) -> None:
    manager = theirs(shared_server, "refused")
    manager.create_budget(total_budget=1, user="alice")
    manager.save_data()
    manager.user_dict["alice"]["total_budget"] = 2
    manager.user_dict["bob"] = {"total_budget": -1}
    with pytest.raises(Exception, match="422"):
        manager.save_data()
    assert theirs(shared_server, "refused").user_dict["alice"]["total_budget"] == 1


def test_unlimited_users_and_those_who_follow_a_default_come_and_go_unchanged(shared_server: Served) -> None:
    """JSON has no Infinity, and a follower with a limit of its own would no longer follow."""
    store = open_store(shared_server.url())
    ask(store, PutBudget("c", "follow", Subject("user", "rich"), limit=None))
    defaults = (Default("user", "none", 5_000_000_000),)
    follower = (Subject("user", "follower"),)
    ask(store, Settle("h", "follow", follower, (MODEL,), 10**9, MODEL, defaults=defaults))
    manager = theirs(shared_server, "follow")
    assert manager.get_total_budget("rich") > 9_000_000
    assert (manager.get_total_budget("follower"), manager.get_current_cost("follower")) == (5.0, 1.0)
    manager.save_data()
    manager.user_dict["follower"]["current_cost"] = 2.0
    manager.save_data()
    ours = BudgetManager("follow", settings=BudgetSettings(store_url=shared_server.url(), default_limit="8"))  # type: ignore[arg-type]
    assert (ours.get_total_budget("follower"), ours.get_current_cost("follower")) == (8.0, 2.0)
    assert ours.user_dict["rich"]["total_budget"] == float("inf")
    ours.close()
    store.close()


def test_of_several_limits_the_one_that_binds_first_comes_and_the_others_stay(shared_server: Served) -> None:
    """The protocol has room for one limit, and for no prepaid balance."""
    store, alice = open_store(shared_server.url()), Subject("user", "alice")
    ask(store, SetLimits("s", "several", alice, parse_limits("$1/day, $10/month, $2/day for o3, 9 calls/hour")))
    ask(store, TopUp("t", "several", alice, 3 * 10**9))
    manager = theirs(shared_server, "several")
    assert manager.get_total_budget("alice") == 1.0
    manager.user_dict["alice"].update(current_cost=0.5, total_budget=2.0)
    manager.save_data()
    reply = ask(store, Read("several", "user", "alice"))
    assert isinstance(reply, Accounts)
    found = {(one.ref.model, one.ref.window): (one.limit, one.spent) for one in reply.accounts if one.ref.model != "*"}
    assert found == {
        ("", "1h"): (9, 0),
        ("", "credit"): (3 * 10**9, 0),
        ("", "day@UTC"): (2 * 10**9, 5 * 10**8),
        ("", "month@UTC"): (10 * 10**9, 0),
        ("o3", "day@UTC"): (2 * 10**9, 0),
    }
    manager = theirs(shared_server, "several")
    manager.user_dict["alice"]["window"] = "week"
    with pytest.raises(Exception, match="422"):
        manager.save_data()
    store.close()


def test_keys_go_in_the_headers(own_server: Any) -> None:
    server = own_server()
    key, reader, other = server.create_key("mine"), server.create_key("mine", "read-only"), server.create_key("other")
    server.terminate()
    server.start()

    def with_key(text: str) -> Any:
        return theirs(server, "mine", headers={"Content-Type": "application/json", "Authorization": f"Bearer {text}"})

    manager = with_key(key)
    manager.create_budget(total_budget=1, user="alice")
    manager.save_data()
    reading = with_key(reader)
    assert reading.is_valid_user("alice")
    with pytest.raises(Exception, match="403"):
        reading.save_data()
    for bad, status in ((other, "403"), ("lbk_nonsense", "401")):
        with pytest.raises(Exception, match=status):
            with_key(bad)


@pytest.mark.parametrize("spelling", ["client_type", "type"])
@pytest.mark.parametrize("kind", ["hosted", "client"])
def test_the_documented_example_with_our_import(
    shared_server: Served, kind: str, spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code differs from LiteLLM's page only in the import and `api_base`."""
    monkeypatch.chdir(tmp_path)
    arguments: dict[str, Any] = {spelling: kind, "api_base": shared_server.base}
    budget_manager = BudgetManager(project_name=f"seed {kind} {spelling}", **arguments)
    user = "1234"
    # create a budget if new user user
    if not budget_manager.is_valid_user(user):
        budget_manager.create_budget(total_budget=10, user=user)
    # check if a given call can be made
    if budget_manager.get_current_cost(user=user) <= budget_manager.get_total_budget(user):
        answer = response(prompt_tokens=1000, completion_tokens=10, total_tokens=1010)
        budget_manager.update_cost(completion_obj=answer, user=user)
    assert budget_manager.save_data() == {"status": "success"}
    spent = budget_manager.get_current_cost(user)
    budget_manager.close()
    assert spent > 0
    # LiteLLM's own manager sees the charge, and no file was written.
    assert theirs(shared_server, f"seed {kind} {spelling}").get_current_cost(user) == spent
    assert list(tmp_path.iterdir()) == []
