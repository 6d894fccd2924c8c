"""The budgets that a call counts against: user, team, tags, runs and class, from contexts, metadata and the proxy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import litellm
import pytest
from litellm.proxy._types import UserAPIKeyAuth

from litellm_budget_plugin import BudgetExceeded, BudgetInputError, budget_context
from litellm_budget_plugin.hooks import settlement
from litellm_budget_plugin.hooks.call_binding import mark_free
from litellm_budget_plugin.hooks.jobs import started
from litellm_budget_plugin.hooks.principal import principal_of
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.principal import Principal
from tests.hooks.desk import WORTH, Desk

FILE = """\
[user]
limits = ["$10"]
[class.pro]
users = ["zoe"]
limits = ["$20"]
[class.trial]
limits = ["$0.03"]
[team.red]
limits = ["$30"]
[run]
limits = ["$40"]
"""


@pytest.fixture
def desk(open_desk: Callable[..., Desk], tmp_path: Path) -> Desk:
    path = tmp_path / "budgets.toml"
    path.write_text(FILE)
    return open_desk(default_limit=None, file=str(path))


@pytest.fixture
def ledger(desk: Desk) -> BudgetLedger:
    found = desk.callback.budget_ledger
    assert found is not None
    return found


Named = tuple[list[str], set[str]]


def named(principal: Principal) -> Named:
    """Return the subjects of a call as text, and the limits that apply only to them."""
    own = {f"${each.limit / 1e9:g}" for each in principal.defaults if each.subject and each.limit is not None}
    return [f"{scope}:{name}" for scope, name in principal.subjects if scope != "project"], own


def here(ledger: BudgetLedger, **params: Any) -> list[str]:
    return named(principal_of(ledger, params))[0]


def test_contexts_nest(ledger: BudgetLedger) -> None:
    """An inner user and team replace the outer ones. Tags and runs add up, each once."""
    with budget_context(user="ann", team="red", tags=["a", "b"], run="r1"):
        with budget_context(tags="b", run="r2"), budget_context(run="r1", tags=["c"]):
            assert here(ledger) == ["user:ann", "team:red", "tag:a", "tag:b", "tag:c", "run:r1", "run:r2"]
        with budget_context(user="bob"):
            assert here(ledger) == ["user:bob", "team:red", "tag:a", "tag:b", "run:r1"]
            with budget_context(team="blue"):
                assert here(ledger) == ["user:bob", "team:blue", "tag:a", "tag:b", "run:r1"]
        assert here(ledger) == ["user:ann", "team:red", "tag:a", "tag:b", "run:r1"]
    assert here(ledger, user="x") == ["user:x"]


def test_the_class_is_of_the_user_that_it_was_given_with(ledger: BudgetLedger) -> None:
    def limits(**params: Any) -> set[str]:
        return named(principal_of(ledger, params))[1]

    with budget_context(user="ann", user_class="pro"):
        assert limits() == {"$20"}
        with budget_context(run="r"):
            assert limits() == {"$20"}
        with budget_context(user="bob"):
            assert limits() == set()
        with budget_context(user_class="trial", tags="t"):
            assert limits() == {"$0.03"}
        assert limits(metadata={"budget_class": "trial", "budget_user": "bob"}) == {"$20"}
    assert limits(user="zoe") == {"$20"}
    assert limits(user="ann", metadata={"budget_class": "trial"}) == {"$0.03"}
    with pytest.raises(BudgetInputError, match="no class of users 'gold'"):
        principal_of(ledger, {"user": "ann", "metadata": {"budget_class": "gold"}})


def test_limits_of_a_context_are_for_the_run_else_the_user_else_the_team(ledger: BudgetLedger) -> None:
    def limits() -> set[tuple[str, str, int]]:
        return {
            (each.scope, each.subject, each.limit // 10**9)
            for each in principal_of(ledger, {}).defaults
            if each.subject and each.limit is not None
        }

    with budget_context(user="ann", limits="$1/day"):
        assert limits() == {("user", "ann", 10), ("user", "ann", 1)}
        with budget_context(run="r", limits=["$2"]):
            assert limits() == {("user", "ann", 10), ("user", "ann", 1), ("run", "r", 2)}
        with budget_context(user="ann", limits="$3"):
            assert limits() == {("user", "ann", 3), ("user", "ann", 1)}
    with budget_context(team="red", limits="$50, $4/day"):
        assert limits() == {("team", "red", 30), ("team", "red", 4)}
    with pytest.raises(BudgetInputError, match="run, a user or a team"):
        budget_context(tags="x", limits="$1")
    with pytest.raises(BudgetInputError, match="elephant"):
        budget_context(user="x", limits="1 elephant")
    with pytest.raises(BudgetInputError, match="names nobody"):
        budget_context()


METADATA: dict[str, tuple[dict[str, Any], list[str]]] = {
    "all": (
        {"budget_user": "ann", "budget_team": "red", "budget_tags": ["a", 7, "a"], "budget_run": 9},
        ["user:ann", "team:red", "tag:a", "tag:7", "run:9"],
    ),
    "one tag": ({"budget_tags": "a"}, ["user:x", "tag:a"]),
    "nothing said": (
        {"budget_user": None, "budget_team": "", "budget_tags": [], "budget_run": None, "budget_class": ""},
        ["user:x"],
    ),
    "no tags of others": ({"tags": ["a"], "team": "red", "run": "r"}, ["user:x"]),
}


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("where", ["metadata", "litellm_metadata"])
def test_metadata(ledger: BudgetLedger, where: str, name: str) -> None:
    metadata, subjects = METADATA[name]
    assert here(ledger, user="x", **{where: metadata}) == subjects


def test_both_kinds_of_metadata_and_the_context_add_up(ledger: BudgetLedger) -> None:
    params = {
        "user": "x",
        "metadata": {"budget_user": "m", "budget_team": "blue", "budget_tags": ["m"], "budget_run": "m"},
        "litellm_metadata": {"budget_user": "l", "budget_tags": ["l"], "budget_run": "l"},
    }
    assert here(ledger, **params) == ["user:l", "team:blue", "tag:m", "tag:l", "run:m", "run:l"]
    with budget_context(user="c", team="red", tags=["c", "m"], run="c"):
        assert here(ledger, **params) == [
            *("user:c", "team:red", "tag:m", "tag:l", "tag:c", "run:m", "run:l", "run:c"),
        ]


@pytest.mark.parametrize(
    "metadata",
    [
        {"budget_team": 1.5},
        {"budget_team": "x" * 257},
        {"budget_tags": 1.5},
        {"budget_tags": ["a", None]},
        {"budget_tags": [["a"]]},
        {"budget_run": ["r"]},
        {"budget_run": "r\n"},
        {"budget_class": 5.5},
    ],
    ids=str,
)
def test_metadata_that_cannot_be_read_refuses(ledger: BudgetLedger, metadata: dict[str, Any]) -> None:
    with pytest.raises(BudgetInputError, match="budget_"):
        principal_of(ledger, {"user": "x", "metadata": metadata})


def test_it_is_carried_into_threads_tasks_and_generators(ledger: BudgetLedger) -> None:
    expected = ["user:ann", "team:red", "tag:a", "run:r"]
    found: list[list[str]] = []

    def look() -> None:
        found.append(here(ledger, user="x"))

    def steps() -> Generator[list[str], None, None]:
        yield here(ledger, user="x")
        with budget_context(tags="inner"):
            yield here(ledger, user="x")

    async def tasks() -> None:
        async def one() -> list[str]:
            await asyncio.sleep(0)
            return here(ledger, user="x")

        with budget_context(run="r2"):
            found.extend(each[:-1] for each in await asyncio.gather(one(), one(), asyncio.to_thread(here, ledger)))

    with budget_context(user="ann", team="red", tags="a", run="r"):
        carried = budget_context.carry(look)
        generator = budget_context.iterate(steps())
        threading.Thread(target=look).start()
        asyncio.run(tasks())
    with ThreadPoolExecutor(1) as pool:
        pool.submit(carried).result()
        assert pool.submit(next, generator).result() == expected
    assert next(generator) == [*expected[:3], "tag:inner", "run:r"]
    assert found.count(expected) == 4 and found.count(["user:x"]) == 1


def caller(**more: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"api_key": "sk-1", "user_id": "ann", "team_id": "red", **more}
    return {"metadata": {"user_api_key_auth": UserAPIKeyAuth(**known)}}


def test_in_the_proxy_the_key_says_it_and_the_body_does_not(ledger: BudgetLedger) -> None:
    forged = {"budget_user": "v", "budget_team": "v", "budget_tags": ["v"], "budget_run": "v", "budget_class": "trial"}
    params = caller(metadata={"tags": ["k", 5, ""]}, team_metadata={"tags": ["t", "k"]})
    params["metadata"] |= {**forged, "tags": ["v"]}
    params |= {"litellm_metadata": forged, "user": "v", "tags": ["v"]}
    assert named(principal_of(ledger, params)) == (["user:ann", "team:red", "tag:k", "tag:t"], {"$30"})
    with budget_context(user="c", team="blue", tags="c", run="c"):
        assert here(ledger, **params) == ["user:ann", "team:red", "tag:c", "tag:k", "tag:t", "run:c"]
    assert here(ledger, **caller(team_id=None, metadata={"tags": "text"})) == ["user:ann"]


def test_a_key_with_a_tag_that_cannot_be_kept_is_refused(ledger: BudgetLedger) -> None:
    with pytest.raises(BudgetInputError, match="a tag of this key"):
        principal_of(ledger, caller(metadata={"tags": ["x" * 300]}))
    with pytest.raises(BudgetInputError, match="the team of this key"):
        principal_of(ledger, caller(team_id="x\n"))


def test_a_call_is_refused_by_each_of_them(desk: Desk) -> None:
    manager = desk.callback.manager
    given = {"metadata": {"budget_team": "red", "budget_tags": ["a", "b"], "budget_run": "r"}}
    for subject in ("alice", "team:red", "tag:a", "tag:b", "run:r", "project"):
        manager.set_limits(subject, "$0.01 for gate-chat", "$50")
        with pytest.raises(BudgetExceeded) as caught:
            litellm.completion(**desk.arguments("alice", **given))
        scope, _, name = subject.rpartition(":")
        assert (caught.value.scope, caught.value.subject, caught.value.budget) == (
            *((scope or ("project" if name == "project" else "user")), "default" if name == "project" else name),
            "$0.01 for gate-chat",
        )
        manager.clear_limits(subject)
    litellm.completion(**desk.arguments("alice", **given))
    desk.callback.flush()
    for period, key in (("user", "alice"), ("team", "red"), ("tag", "a"), ("run", "r"), ("project", "default")):
        assert manager.usage(by=period)[0][:2] == (key, manager.usage()[0].spent)
    assert desk.spent("alice") == WORTH


def test_a_refusal_names_its_budget_in_a_sentence(desk: Desk) -> None:
    desk.callback.manager.set_limits("team:red", "$0.02 per month for gate-c*")
    arguments = desk.arguments("alice", metadata={"budget_team": "red"})
    litellm.completion(**arguments)
    with pytest.raises(
        BudgetExceeded, match=r"team 'red' has spent \$0.0125 of \$0.02 per month for gate-c\*.*; resets \d{4}-\d\d-01"
    ) as caught:
        litellm.completion(**arguments)
    assert caught.value.budget == "$0.02 per month for gate-c*"
    desk.callback.manager.set_limits("team:red", "$500/year for gate-chat", "1 call/day")
    with pytest.raises(BudgetExceeded, match=r"team 'red' has spent 1 call of 1 call per day; this"):
        litellm.completion(**arguments)
    desk.callback.manager.set_limits("team:red", "credit")
    with pytest.raises(BudgetExceeded, match=r"team 'red' has spent \$0.00 of a balance of \$0; this"):
        litellm.completion(**arguments)


def test_a_job_is_paid_by_who_started_it(desk: Desk, ledger: BudgetLedger) -> None:
    with budget_context(user="ann", team="red", tags="a", run="r"):
        started(principal_of(ledger, {}), "batch_1")
    _report("batch_1", {"budget_user": "other"})
    _report("batch_2", {"budget_user": "ann", "budget_run": "r"})
    desk.callback.flush()
    manager = desk.callback.manager
    spent = {
        period: [(row.key, float(row.spent)) for row in manager.usage(by=period)] for period in ("user", "team", "run")
    }
    assert spent == {"user": [("ann", 1.0)], "team": [("red", 0.5)], "run": [("r", 1.0)]}


def _report(job: str, metadata: dict[str, Any]) -> None:
    details: dict[str, Any] = {"litellm_params": {"metadata": metadata}, "litellm_call_id": job}
    logging_obj = SimpleNamespace(model_call_details=details)
    mark_free(logging_obj, "batches.main:retrieve_batch")
    settlement._charge_reported(logging_obj, {"id": job}, 0.5)


def test_limits_of_nested_contexts_add_up(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit="10")
    outer, inner = budget_context(user="alice", limits="$0.001/day"), budget_context(user="alice", limits="$100/day")
    with outer, inner, pytest.raises(BudgetExceeded):
        litellm.completion(**desk.arguments("alice"))


def test_a_model_without_a_price_needs_no_room_for_money_under_limits_of_calls(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit=None, user_limits="1 call/day")
    call = desk.arguments("alice", model="openai/nobody-knows-this-one")
    litellm.completion(**call)
    with pytest.raises(BudgetExceeded, match="1 call per day"):
        litellm.completion(**call)
