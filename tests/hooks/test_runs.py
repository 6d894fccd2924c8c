"""Budgets of an agent's run: every call inside counts, wherever the run continues, and it can be stopped from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import (
    BudgetError,
    BudgetExceeded,
    BudgetInputError,
    BudgetManager,
    BudgetSettings,
    budget_context,
    budget_run,
)
from litellm_budget_plugin.testing import disabled
from tests.hooks.desk import CHAT, OTHER, WORTH, Desk
from tests.stores.processes import Child
from tests.upstream import Upstream

CALL = Decimal(WORTH).scaleb(-9)
HALF = Decimal("0.5")
INSIDE = 40
"""The number of calls that $0.50 pays for."""


@pytest.fixture
def rich(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk(default_limit="100")


@pytest.fixture
def manager(rich: Desk) -> Iterator[BudgetManager]:
    made = BudgetManager(rich.callback.settings.project, settings=rich.callback.settings)
    yield made
    made.close()


def call(desk: Desk, **more: Any) -> None:
    arguments = desk.arguments("")
    del arguments["user"]
    litellm.completion(**{**arguments, **more})


def until_refused(desk: Desk) -> BudgetExceeded:
    while True:
        try:
            call(desk)
        except BudgetExceeded as refused:
            return refused


def test_an_agent_with_two_sub_agents_on_threads(rich: Desk, upstream: Upstream, manager: BudgetManager) -> None:
    """Sixty calls are tried, and forty leave."""
    refused: list[BudgetExceeded] = []

    def agent(name: str) -> None:
        with budget_run("$0.40", id=name), ThreadPoolExecutor(4) as pool:
            for each in [pool.submit(budget_context.carry(call), rich) for _ in range(30)]:
                if isinstance(error := each.exception(), BudgetExceeded):
                    refused.append(error)
                elif error is not None:
                    raise error

    with budget_run("$0.50", user="alice") as run, ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(budget_context.carry(agent), name) for name in ("left", "right")]:
            each.result()
        rich.callback.flush()
        assert (run.spent, run.remaining) == (HALF, 0)
        assert run.by_model == {"gate-chat": HALF}
    assert upstream.requests == INSIDE == 60 - len(refused)
    assert {error.subject for error in refused} == {run.id} and {error.budget for error in refused} == {"$0.50"}
    assert rich.calm("alice") == INSIDE * WORTH
    assert manager.run("left").spent + manager.run("right").spent == HALF


def test_an_agent_with_two_sub_agents_on_asyncio(rich: Desk, upstream: Upstream) -> None:
    async def one() -> Any:
        return await litellm.acompletion(**rich.arguments("x"))

    async def agent(name: str) -> list[Any]:
        async with budget_run("$0.40", id=name):
            return list(await asyncio.gather(*(one() for _ in range(30)), return_exceptions=True))

    async def top() -> tuple[list[Any], budget_run]:
        async with budget_run("$0.50", user="alice") as run:
            both = await asyncio.gather(agent("left"), agent("right"))
        return [*both[0], *both[1]], run

    answers, run = asyncio.run(top())
    assert rich.calm("alice") == INSIDE * WORTH and upstream.requests == INSIDE
    assert sum(isinstance(answer, BudgetExceeded) for answer in answers) == 60 - INSIDE
    assert (run.spent, run.remaining) == (HALF, 0)


def test_a_run_inside_of_a_run_has_what_is_left(rich: Desk) -> None:
    with budget_run("$0.05", user="alice") as outer:
        call(rich)
        with budget_run("$0.03") as inner:
            refused = until_refused(rich)
            assert (refused.subject, refused.budget) == (inner.id, "$0.03")
            assert inner.spent == 2 * CALL
        with budget_run("$1") as inner:
            assert until_refused(rich).subject == outer.id
            assert (inner.spent, inner.remaining) == (CALL, 0)
        assert (outer.spent, outer.remaining) == (4 * CALL, 0)
    call(rich, user="alice")
    assert (outer.spent, rich.calm("alice")) == (4 * CALL, 5 * WORTH)


def test_it_is_stopped_from_another_process_at_the_next_call(rich: Desk, upstream: Upstream) -> None:
    settings = rich.callback.settings

    def stop(child: Child) -> str:
        manager = BudgetManager(settings.project, settings=BudgetSettings(store_url=settings.url))
        (run,) = manager.runs()
        manager.block(f"run:{run.id}")
        manager.close()
        return f"{run.spent:f} {run.limits}"

    with budget_run("$0.50", user="alice"):
        call(rich)
        rich.callback.flush()
        assert Child(stop).result() == f"{CALL.normalize():f} ['$0.50']"
        with pytest.raises(BudgetExceeded, match="is blocked"), budget_run("$1"):
            call(rich)
    assert upstream.requests == 1
    call(rich, user="alice")


def test_it_goes_on_in_another_process(rich: Desk) -> None:
    def spend(child: Child) -> str:
        with budget_context(run="agent-7"):
            refused = until_refused(rich)
        rich.callback.flush()
        return f"{refused.subject} {refused.spent:g}"

    with budget_run("$0.05", user="alice", id="agent-7") as run:
        call(rich)
        rich.callback.flush()
        assert Child(spend).result() == "agent-7 0.05"
        assert run.spent == 4 * CALL
        with pytest.raises(BudgetExceeded):
            call(rich)


def test_the_same_run_twice_goes_on(rich: Desk) -> None:
    with budget_run("$0.03", id="again") as first:
        call(rich)
    with budget_run(id="again") as second:
        call(rich)
        with pytest.raises(BudgetExceeded, match=r"of \$0.03"):
            call(rich)
    with budget_run("$0.05", id="again") as third:
        call(rich)
        assert third.remaining == Decimal("0.05") - 3 * CALL
    assert first.spent == second.spent == third.spent == 3 * CALL


def test_a_run_that_was_stopped_stays_stopped_when_it_is_entered_again(rich: Desk, manager: BudgetManager) -> None:
    with budget_run("$1", id="again") as run:
        run.stop()
    for limits in ((), ("$2",), ("$2/day for gate-*",)):
        with budget_run(*limits, id="again"), pytest.raises(BudgetExceeded, match="is blocked"):
            call(rich)
    manager.unblock("run:again")
    with budget_run(id="again"):
        call(rich)


def test_an_error_inside_ends_it(rich: Desk) -> None:
    with pytest.raises(ZeroDivisionError), budget_run("$0.02", user="alice") as run:
        call(rich)
        raise ZeroDivisionError
    call(rich, user="bob")
    assert run.spent == CALL
    with pytest.raises(RuntimeError, match="once"), run:
        pass


def test_limits_of_every_run_count_beside_its_own(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit=None, run_limits="$0.03, 1 calls for gate-other")
    with budget_run("$5", user="alice") as run:
        assert run.state.limits == ["$0.03", "1 call for gate-other"]
        call(desk, model=OTHER)
        with pytest.raises(BudgetExceeded, match="1 call for gate-other"):
            call(desk, model=OTHER)
        call(desk)
        assert until_refused(desk).budget == "$0.03"
    with budget_run("$0.02") as run:
        assert run.state.limits == ["$0.02", "1 call for gate-other"]


def test_a_run_without_limits_is_seen_and_has_those_of_every_run(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit=None, run_limits="$0.02")
    with budget_run(user="alice") as run:
        assert run.remaining == Decimal("0.02")
        manager = BudgetManager(desk.callback.settings.project, settings=desk.callback.settings)
        assert [(each.id, each.limits) for each in manager.runs()] == [(run.id, ["$0.02"])]
        manager.close()
        call(desk)
        assert until_refused(desk).subject == run.id


def test_what_it_cost_by_model(rich: Desk) -> None:
    with budget_run("$1", user="alice", team="search", tags=["batch"]) as run:
        call(rich, model=CHAT)
        call(rich, model=OTHER)
        call(rich, model=OTHER)
    assert run.by_model == {"gate-chat": CALL, "gate-other": Decimal("0.005")}
    assert sum(run.by_model.values()) == run.spent


def test_a_run_counts_wherever_users_are_looked_for(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit="10", user_from="user")
    with budget_run("$0.02", user="bob") as run:
        call(desk, user="alice")
        with pytest.raises(BudgetExceeded):
            call(desk, user="alice")
    assert (run.spent, desk.spent("alice"), desk.spent("bob")) == (CALL, WORTH, 0)


def test_without_a_callback_it_is_an_error() -> None:
    with pytest.raises(BudgetError, match="BudgetCallback"), budget_run("$1"):
        pass
    with pytest.raises(BudgetError, match="entered"):
        _ = budget_run("$1").spent


def test_what_cannot_be_read_is_an_error_at_once() -> None:
    for bad in ({"id": " x"}, {"user": ""}, {"tags": [1.5]}):
        with pytest.raises(BudgetInputError):
            budget_run("$1", **bad)  # type: ignore[arg-type]
    with pytest.raises(BudgetInputError, match="elephant"):
        budget_run("1 elephant")


def test_where_nothing_is_enforced_a_run_limits_nothing(open_desk: Callable[..., Desk]) -> None:
    """An application must not fail because of a block that its tests or its settings switch off."""
    desk = open_desk(store_url="memory://", mode="off")
    with budget_run("$0", user="alice") as run:
        call(desk)
    assert run.spent == 0
    desk.callback.close()
    desk = open_desk(store_url="memory://")
    with disabled(), budget_run("$0", user="alice") as run:
        call(desk)
    assert run.spent == 0
