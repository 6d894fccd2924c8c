"""The payer of a call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import BudgetInputError, BudgetUserMissing, budget_context
from litellm_budget_plugin.hooks import principal
from tests.hooks.desk import WORTH, Desk
from tests.upstream import Upstream


@pytest.fixture
def rich(open_desk: Callable[..., Desk]) -> Desk:
    """A desk whose users have room for every call."""
    return open_desk(default_limit="10")


def _call(desk: Desk, **more: Any) -> None:
    arguments = desk.arguments("")
    del arguments["user"]
    litellm.completion(**{**arguments, **more})


def test_the_user_argument(rich: Desk) -> None:
    _call(rich, user="alice")
    assert rich.spent("alice") == WORTH


def test_a_number_becomes_text(rich: Desk) -> None:
    _call(rich, metadata={"budget_user": 17})
    assert rich.spent("17") == WORTH


@pytest.mark.parametrize("name", ["metadata", "litellm_metadata"])
def test_metadata_comes_before_the_user_argument(rich: Desk, name: str) -> None:
    _call(rich, user="alice", **{name: {"budget_user": "bob"}})
    assert (rich.spent("alice"), rich.spent("bob")) == (0, WORTH)


def test_the_context_comes_first(rich: Desk) -> None:
    with budget_context(user="carol"):
        _call(rich, user="alice", metadata={"budget_user": "bob"})
    _call(rich, user="alice")
    assert (rich.spent("alice"), rich.spent("bob"), rich.spent("carol")) == (WORTH, 0, WORTH)


def test_the_context_holds_in_tasks_and_their_threads(rich: Desk) -> None:
    async def calls() -> None:
        with budget_context(user="carol"):
            await asyncio.gather(*[litellm.acompletion(**rich.arguments("x")) for _ in range(2)])
            await asyncio.to_thread(litellm.completion, **rich.arguments("x"))

    asyncio.run(calls())
    assert rich.calm("carol") == 3 * WORTH


def test_the_order_is_a_setting(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit="10", user_from="user,context")
    with budget_context(user="carol"):
        _call(desk, user="alice")
    assert (desk.spent("alice"), desk.spent("carol")) == (WORTH, 0)


def test_a_call_without_a_user_is_charged_to_the_default_with_one_warning(
    open_desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(principal, "_warned", set())
    monkeypatch.setattr(budget_context, "_used", False)
    desk = open_desk(default_limit="10", default_user="nobody")
    _call(desk)
    _call(desk, user="")
    assert desk.spent("nobody") == 2 * WORTH
    (record,) = [record for record in caplog.records if "names no user" in record.message]
    assert "budget_context" not in record.message


def test_a_call_without_a_user_can_be_refused(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_desk(default_limit="10", on_missing_user="reject")
    with pytest.raises(BudgetUserMissing, match="names no user") as caught:
        _call(desk)
    assert caught.value.status_code == 422
    assert upstream.requests == 0


@pytest.mark.parametrize("bad", ["x" * 257, "tab\there", " alice", ["alice"], 1.5, True])
def test_an_absurd_id_is_a_clear_error(rich: Desk, upstream: Upstream, bad: Any) -> None:
    with pytest.raises(BudgetInputError, match="user"):
        _call(rich, metadata={"budget_user": bad})
    assert upstream.requests == 0


def test_an_absurd_context_is_a_clear_error() -> None:
    with pytest.raises(BudgetInputError, match="256"), budget_context(user="x" * 257):
        pass


def test_nothing_of_ours_is_added_to_what_the_provider_receives(rich: Desk, upstream: Upstream) -> None:
    with budget_context(user="carol"):
        _call(rich, litellm_metadata={"budget_user": "bob"})
    body = upstream.bodies[0]
    assert set(body) == {"model", "messages", "max_tokens"}
    assert "bob" not in json.dumps(body)
    assert "carol" not in json.dumps(body)
