"""Budgets over HTTP in sentences and dollars, for people and scripts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest

from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.accounts import ESTIMATED, Amounts, Default, Ref, Subject
from litellm_budget_plugin.core.commands import (
    Command,
    DropBudget,
    Granted,
    PutBudget,
    Read,
    ReadUsage,
    Refused,
    Reserve,
    Reset,
    SetLimits,
    Settle,
    TopUp,
)
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.core.windows import SECOND
from litellm_budget_plugin.server import history
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.http.rows import rows_to
from litellm_budget_plugin.stores.protocol import ask
from litellm_budget_plugin.stores.rows import Rows
from tests.server.dashboard.desk import PROJECT, USD, Tab, account, key_for
from tests.server.running import Running, running
from tests.stores.engines import ENGINES

JSON = dict[str, Any]


class Script(NamedTuple):
    """A program with a key."""

    server: Running
    key: str

    def ask(self, method: str, path: str, body: JSON | None = None, **parameters: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.request(
            method, f"{self.server.url}/v1{path}", json=body, params=parameters or None, headers=headers, timeout=60
        )

    def good(self, method: str, path: str, body: JSON | None = None, **parameters: str) -> JSON:
        answer = self.ask(method, path, body, **parameters)
        assert answer.status_code == 200, answer.text
        found: JSON = answer.json()
        return found

    def limits(self, subject: str) -> dict[str, JSON]:
        return {each.pop("limit"): each for each in self.good("GET", f"/subjects/{subject}")["limits"]}

    def reserve(self, hold: str, *subjects: Subject, usd: int = 1) -> object:
        command = Reserve(hold, PROJECT, subjects, ("gpt-4o",), Amounts(usd, 1, 1), 60 * SECOND)
        return ask(self.server.site.ledger.store, command)

    def charge(self, hold: str, cost: int, *subjects: Subject, model: str = "gpt-4o") -> None:
        payers = (*subjects, Subject("project", PROJECT))
        ask(self.server.site.ledger.store, Settle(hold, PROJECT, payers, (model,), cost, model, 100, 20))


ALICE = Subject("user", "alice")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def script(url: str) -> Iterator[Script]:
    key = key_for(url)
    with running(url) as server:
        yield Script(server, key)


def test_limits_are_set_as_a_list_and_told_with_what_is_left(script: Script) -> None:
    script.charge("h0", USD // 4, ALICE)
    said = script.good("PUT", "/subjects/alice/limits", {"limits": ["$1/day", "$10 per month", "100 calls/hour"]})
    assert (said["subject"], said["blocked"], said["set_by_hand"], said["balance"]) == ("user:alice", False, True, None)
    assert isinstance(script.reserve("h1", ALICE, usd=USD // 2), Granted)
    limits = script.limits("alice")
    assert list(limits) == ["100 calls per hour", "$1 per day", "$10 per month"]
    # The totals of a calendar window count.
    day = limits["$1 per day"]
    assert (day["unit"], day["spent"], day["held"], day["remaining"]) == ("usd", "0.25", "0.50", "0.25")
    assert day["resets_at"].endswith("T00:00:00Z") and day["raised_by"] is None
    hour = limits["100 calls per hour"]
    assert (hour["unit"], hour["spent"], hour["held"], hour["remaining"]) == ("calls", "0", "1", "99")
    # The sentences can be sent back unchanged.
    assert list(script.limits("user:alice")) == list(limits)
    script.good("PUT", "/subjects/alice/limits", {"limits": list(limits)})
    assert script.limits("alice") == limits
    said = script.good("DELETE", "/subjects/alice/limits")
    assert (said["limits"], said["set_by_hand"]) == ([], False)


@pytest.mark.parametrize("subject", ["team:search", "tag:batch", "run:42", "project", "user:x", "a/b c?d=e#f", "日本"])
def test_every_kind_of_subject_is_blocked_and_unblocked(script: Script, subject: str) -> None:
    path = f"/subjects/{quote(subject, safe=':')}"
    script.good("PUT", f"{path}/limits", {"limits": ["$5"]})
    said = script.good("POST", f"{path}/block", {})
    assert said["blocked"] and said["subject"].removeprefix("user:") == subject.removeprefix("user:")
    scope, _, name = said["subject"].partition(":")
    payer = Subject(scope, name or PROJECT)
    refused = script.reserve("h1", payer)
    assert isinstance(refused, Refused) and (refused.reason, refused.account.scope) == ("blocked", scope)
    assert not script.good("POST", f"{path}/unblock", {})["blocked"]
    assert isinstance(script.reserve("h2", payer), Granted)
    listed = script.good("GET", "/subjects", scope=scope)
    assert [each["subject"] for each in listed["subjects"]] == [said["subject"]] and listed["after"] is None


def test_limits_are_raised_and_reset(script: Script) -> None:
    script.good("PUT", "/subjects/alice/limits", {"limits": ["$1", "$2 for o3"]})
    script.charge("h0", USD, ALICE)
    until = {"amount": "$5", "until": "2090-01-01T14:00:00+02:00"}
    limits = {each["limit"]: each for each in script.good("POST", "/subjects/alice/raise", until)["limits"]}
    assert (limits["$1"]["remaining"], limits["$1"]["raised_by"]) == ("5.00", "5.00")
    assert limits["$1"]["raised_until"] == "2090-01-01T12:00:00Z" and limits["$2 for o3"]["raised_by"] is None
    script.good("POST", "/subjects/alice/reset", {})
    assert script.limits("alice")["$1"]["spent"] == "0.00"


def test_a_change_with_an_id_is_made_once(script: Script) -> None:
    script.good("PUT", "/subjects/alice/limits", {"limits": ["$1"], "id": "a"})
    script.charge("h0", USD, ALICE)
    script.good("POST", "/subjects/alice/reset", {"id": "r"})
    script.charge("h1", USD // 2, ALICE)
    script.good("POST", "/subjects/alice/reset", {"id": "r"})
    assert script.limits("alice")["$1"]["spent"] == "0.50"
    answer = script.ask("PUT", "/subjects/alice/limits", {"limits": ["$2"], "id": "a"})
    assert answer.status_code == 422 and "another change" in answer.json()["message"]


def test_a_balance_is_topped_up_and_refunded_once(script: Script) -> None:
    for _ in range(2):
        said = script.good("POST", "/subjects/alice/top-up", {"amount": "$10.50", "id": "invoice-17"})
    assert said["balance"] == "10.50"
    assert [(each["id"], each["amount"], each["refunded"]) for each in said["payments"]] == [
        ("invoice-17", "10.50", False)
    ]
    script.charge("h0", USD, ALICE)
    for _ in range(2):
        assert script.good("POST", "/refunds", {"id": "invoice-17"}) == {"id": "invoice-17", "refunded": True}
    said = script.good("GET", "/subjects/alice")
    assert said["balance"] == "-1.00" and said["payments"][0]["refunded"]
    assert script.ask("POST", "/refunds", {"id": "invoice-18"}).status_code == 422


def test_usage_by_day_model_and_subject(script: Script) -> None:
    team, bob = Subject("team", "search"), Subject("user", "bob")
    script.charge("h0", USD, ALICE, team)
    script.charge("h1", USD // 2, bob, team, model="o3")
    day = time.strftime("%Y-%m-%d", time.gmtime())
    total = {"spent": "1.50", "calls": 2, "input_tokens": 200, "output_tokens": 40, "refusals": 0, "unsettled": 0}
    assert script.good("GET", "/usage") == {"by": "day", "rows": [{"key": day, **total}]}
    assert [(row["key"], row["spent"]) for row in script.good("GET", "/usage", by="model")["rows"]] == [
        ("gpt-4o", "1.00"),
        ("o3", "0.50"),
    ]
    rows = script.good("GET", "/usage", by="user", since=day, until=day)["rows"]
    assert [(row["key"], row["spent"]) for row in rows] == [("alice", "1.00"), ("bob", "0.50")]
    assert script.good("GET", "/usage", by="team")["rows"] == [{"key": "search", **total}]
    rows = script.good("GET", "/usage", by="model", subject="bob")["rows"]
    assert [(row["key"], row["calls"]) for row in rows] == [("o3", 1)]
    assert script.good("GET", "/usage", until="2020-01-01")["rows"] == []


BAD = [
    ("PUT", "/subjects/alice/limits", {"limits": ["ten dollars"]}, "budgets are written like '$10 per month'"),
    ("PUT", "/subjects/alice/limits", {"limits": []}, "at least one sentence"),
    ("PUT", "/subjects/alice/limits", {"limits": "$1"}, "must be a list of up to 100 sentences"),
    ("PUT", "/subjects/alice/limits", {"limits": ["$1"] * 101}, "must be a list of up to 100 sentences"),
    ("PUT", "/subjects/alice/limits", {"limits": [5]}, "a budget must be a sentence"),
    ("PUT", "/subjects/alice/limits", {"limit": ["$1"]}, "limits and perhaps id"),
    ("PUT", "/subjects/alice/limits", {"limits": ["$1/day", "$2/day"]}, "limit the same thing"),
    ("PUT", "/subjects/alice/limits", {"limits": ["$1"], "id": " "}, "printable characters"),
    ("POST", "/subjects/alice/raise", {"amount": "$1", "until": "tomorrow"}, "2030-12-31T18:00:00Z"),
    ("POST", "/subjects/alice/raise", {"amount": "$1", "until": "2090-01-01T00:00:00"}, "2030-12-31T18:00:00Z"),
    ("POST", "/subjects/alice/raise", {"amount": "$1", "until": "9090-01-01T00:00:00Z"}, "2030-12-31T18:00:00Z"),
    ("POST", "/subjects/alice/raise", {"amount": "$1", "until": "2090-01-01T00:00:00Z"}, "has no limit"),
    ("POST", "/subjects/alice/raise", {"amount": [1], "until": "2090-01-01T00:00:00Z"}, "a budget must be a sentence"),
    ("POST", "/subjects/alice/top-up", {"amount": "$1"}, "amount and id"),
    ("POST", "/subjects/alice/top-up", {"amount": "$1 per day", "id": "i"}, "written like '$10'"),
    ("POST", "/subjects/alice/block", {"why": "x"}, "perhaps id"),
    ("POST", "/subjects/team:/block", {}, "team must have 1 to 256 characters"),
    ("GET", f"/subjects/{'x' * 257}", None, "1 to 256 characters"),
    ("GET", "/subjects?scope=session", None, "a scope must be one of user, team, tag, run, project"),
    ("GET", "/usage?by=week", None, "by must be one of day, model"),
    ("GET", "/usage?since=yesterday", None, "since must be a day like 2026-11-01"),
    ("GET", "/usage?until=9999-12-31", None, "until must be a day like 2026-11-01"),
    ("GET", "/usage?since=1999-01-01", None, "at most 400 days"),
    ("GET", "/usage?by=team&subject=alice", None, "a user has no totals by team"),
    ("POST", "/refunds", {"id": 5.5}, "whole numbers"),
]


@pytest.mark.parametrize(("method", "path", "body", "why"), BAD)
def test_an_error_says_what_was_wrong_and_what_is_accepted(
    script: Script, method: str, path: str, body: JSON | None, why: str
) -> None:
    answer = script.ask(method, path, body)
    assert answer.status_code == 422 and why in answer.json()["message"], answer.text
    assert script.good("GET", "/subjects/alice")["limits"] == []


def test_rights_are_those_of_the_other_routes(script: Script, url: str) -> None:
    script.good("PUT", "/subjects/alice/limits", {"limits": ["$1"]})
    reader = Script(script.server, key_for(url, access="read-only"))
    other = Script(script.server, key_for(url, "another"))
    assert list(reader.limits("alice")) == ["$1"] and reader.good("GET", "/usage")["rows"] == []
    changes: list[tuple[str, str, JSON | None]] = [
        ("PUT", "/subjects/alice/limits", {"limits": ["$2"]}),
        ("DELETE", "/subjects/alice/limits", None),
        *(("POST", f"/subjects/alice/{each}", {}) for each in ("block", "unblock", "reset")),
        ("POST", "/subjects/alice/raise", {"amount": "$1", "until": "2090-01-01T00:00:00Z"}),
        ("POST", "/subjects/alice/top-up", {"amount": "$1", "id": "i"}),
        ("POST", "/refunds", {"id": "i"}),
    ]
    for method, path, body in changes:
        assert reader.ask(method, path, body).status_code == 403, path
        assert other.ask(method, path, body, project=PROJECT).status_code == 403, path
        assert Script(script.server, "").ask(method, path, body).status_code == 401, path
    assert other.good("GET", "/subjects/alice")["limits"] == [] and list(script.limits("alice")) == ["$1"]
    for hidden in ("litellm-budget:keys", history.HISTORY_PROJECT):
        assert script.ask("GET", "/subjects/alice", project=hidden).status_code == 403
    answer = script.ask("POST", "/subjects/alice")
    assert answer.status_code == 405 and "GET" in answer.headers["allow"]


def test_a_form_of_another_site_changes_nothing_on_a_server_without_keys(url: str) -> None:
    """A browser sends such bodies without a preflight, but not JSON."""
    with running(url, open_access=True) as server:
        address = f"{server.url}/v1/subjects/alice/block?project=p"
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            headers = {"content-type": kind} if kind else {}
            assert httpx.post(address, content=b"{}", headers=headers).status_code == 415
        assert httpx.post(address, json={}).json()["blocked"]
        answer = httpx.get(f"{server.url}/v1/subjects/alice")
        assert answer.status_code == 422 and "?project=" in answer.json()["message"]
        assert "p" in httpx.get(f"{server.url}/v1/projects").json()["projects"]
        assert history.HISTORY_PROJECT not in httpx.get(f"{server.url}/v1/projects").json()["projects"]


def test_changes_are_in_the_history(script: Script) -> None:
    script.good("PUT", "/subjects/team:search/limits", {"limits": ["$5/day"]})
    script.good("POST", "/subjects/team:search/block", {})
    store = script.server.site.ledger.store
    found = history.changes_of(store, PROJECT, Subject("team", "search"))
    assert [(each.who, each.what) for each in found] == [("key", "blocked"), ("key", "limits: $5 per day")]


def test_the_servers_settings_are_what_is_told_of_others(url: str, tmp_path: Path) -> None:
    file = tmp_path / "budgets.toml"
    text = '[user]\nlimits = ["$1/day"]\n[team.search]\nlimits = ["$500/month"]\n[class.pro]\nusers = ["*@corp"]\nlimits = ["$9/week"]\n'
    file.write_text(text)
    key = key_for(url)
    with running(url, settings=BudgetSettings(file=str(file), run_limits="$0.50", timezone="Europe/Berlin")) as server:
        script = Script(server, key)
        assert list(script.limits("alice")) == ["$1 per day@Europe/Berlin"]
        assert list(script.limits("team:search")) == ["$500 per month@Europe/Berlin"]
        assert list(script.limits("team:other")) == [] and list(script.limits("run:1")) == ["$0.50"]
        assert list(script.limits("a@corp")) == ["$9 per week@Europe/Berlin"]
        assert not script.good("GET", "/subjects/alice")["set_by_hand"]
        page = Tab(server.url, key).page("/subject", id="a@corp")
        assert '<span class="badge">class <bdi>pro</bdi></span>' in page and "$9 per week@Europe/Berlin" in page
        assert "$0.50" in Tab(server.url, key).page("/subject", scope="run", id="1")
        script.good("POST", "/subjects/a@corp/raise", {"amount": "$1", "until": "2090-01-01T00:00:00Z"})
        assert script.limits("a@corp")["$9 per week@Europe/Berlin"]["remaining"] == "10.00"
        script.good("PUT", "/subjects/alice/limits", {"limits": ["$2/day"]})
        assert list(script.limits("alice")) == ["$2 per day"]
        file.write_text(text.replace("$500", "$600"))
        until = time.monotonic() + 30
        while list(script.limits("team:search")) != ["$600 per month@Europe/Berlin"]:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_commands_and_rows_of_scopes_that_there_are_not_are_refused(script: Script) -> None:
    """A limit that applies to nobody must not look like one that applies. Payments cannot be made up either."""
    ghost = Subject("session", "x")
    paid = Subject("credit:user", "alice")
    commands: list[Command] = [
        PutBudget("p", PROJECT, ghost, limit=1),
        SetLimits("s", PROJECT, ghost, (Limit(1),)),
        DropBudget("d", PROJECT, ghost),
        Reset("r", PROJECT, ghost),
        TopUp("t", PROJECT, ghost, 5),
        Reserve("h", PROJECT, (ALICE, ghost), ("m",), Amounts(1), 60 * SECOND),
        Reserve("h", PROJECT, (ALICE,), ("m",), Amounts(1), 60 * SECOND, (Default("session", "none", 5),)),
        Settle("h", PROJECT, (ghost,), ("m",), 1, "m"),
        Reserve("h", PROJECT, (ALICE, Subject(ESTIMATED, PROJECT)), ("m",), Amounts(1), 60 * SECOND),
        SetLimits("s", PROJECT, Subject(ESTIMATED, PROJECT), (Limit(1),)),
        Read(PROJECT, "session"),
        ReadUsage(PROJECT, "session", "x"),
        PutBudget("p", PROJECT, paid, model="made-up", limit=5),
        DropBudget("d", PROJECT, paid),
    ]
    for command in commands:
        answer = script.ask("POST", "/command", wire.encode(command))
        assert answer.status_code == 422 and "a scope must be one of user, team, tag, run, project" in answer.text, (
            command
        )
    (outcome,) = script.good("POST", "/commands", {"commands": [wire.encode(commands[0])]})["outcomes"]
    assert outcome["type"] == "BudgetInputError"
    told = Settle("told", PROJECT, (ALICE, Subject(ESTIMATED, PROJECT)), ("m",), 0, "m")
    script.good("POST", "/command", wire.encode(told))
    good = account("alice")
    for ref, status in ((good.ref, 204), (Ref(*paid, "invoice-17"), 204), (Ref(*ghost), 422)):
        rows = rows_to(Rows((replace(good, ref=ref),), (), ()))
        assert script.ask("POST", "/rows/write", {"project": PROJECT, "rows": rows}).status_code == status, ref
    # Managers also send these.
    assert script.ask("POST", "/command", wire.encode(Read(PROJECT, "credit:user", "alice"))).status_code == 200
    mark = Subject("user_cost.json", "0123")
    for command in (PutBudget("m", PROJECT, mark, limit=None), Read(PROJECT, *mark)):
        assert script.ask("POST", "/command", wire.encode(command)).status_code == 200


@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"http"}))
def test_it_is_the_same_on_every_engine(engine: str, tmp_path: Path) -> None:
    with running(ENGINES[engine](tmp_path), open_access=True) as server:
        script = Script(server, "")

        def good(method: str, path: str, body: JSON | None = None, **parameters: str) -> JSON:
            return script.good(method, path, body, project=PROJECT, **parameters)

        for number in range(105):
            good("PUT", f"/subjects/tag:{number:03}/limits", {"limits": ["$1/day", "$5 per month for gpt-4o*"]})
        names, after = [], ""
        while after is not None:
            page = good("GET", "/subjects", scope="tag", after=after)
            names += [each["subject"] for each in page["subjects"]]
            after = page["after"]
        assert names == [f"tag:{number:03}" for number in range(105)]
        script.charge("h0", USD // 8, Subject("tag", "007"))
        good("POST", "/subjects/tag:007/top-up", {"amount": "$3", "id": "i"})
        said = good("GET", "/subjects/tag:007")
        assert {each["limit"]: each["remaining"] for each in said["limits"]} == {
            "credit": "3.00", "$1 per day": "0.875", "$5 per month for gpt-4o*": "4.875",
        }  # fmt: skip
        assert [each.what for each in history.changes_of(server.site.ledger.store, PROJECT, Subject("tag", "007"))] == [
            "topped up by $3: i",
            "limits: $1 per day, $5 per month for gpt-4o*",
        ]
