"""The messages of refusals: every kind of budget, call and reason, and the effect of hostile names."""

from __future__ import annotations

import copy
import itertools
import logging
import pickle
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import BudgetExceeded, BudgetManager, BudgetPriceUnknown, BudgetRefused, BudgetUserMissing
from litellm_budget_plugin.core.accounts import SCOPES, UNITS, Ref
from litellm_budget_plugin.core.commands import Refused
from litellm_budget_plugin.core.sentences import Limit, parse_limit
from litellm_budget_plugin.core.wire import dumps, loads
from litellm_budget_plugin.hooks.exceptions import WaysOut
from tests.hooks.desk import CHAT, EMBED, Desk

RESETS = datetime(2026, 12, 1, tzinfo=timezone.utc)
MOST = 900
"""The most characters of a message."""
HOSTILE_ID = "i" * 256
HOSTILE_MODEL = "m\n\x1b[31m\u202e" * 2_000
WAYS = (
    None,
    WaysOut(4096),
    WaysOut(4096, ("give max_tokens",)),
    WaysOut(4096, ("give max_tokens", "set A=1", "set B")),
)
AMOUNTS = {"usd": (30_000_000_000, 10_000_000_000, 2_000_000), "calls": (30, 10, 2), "tokens": (3_000_000, 1000, 20)}


def _cases() -> list[Any]:
    windows = ("none", "month@UTC", "1h", "credit")
    cases = itertools.product(
        ("blocked", "spent", "held"), UNITS, windows, SCOPES, WAYS, ("gpt-4o", ""), (0, 1), (0, 1)
    )
    return [
        case
        for case in cases
        if not (case[2] == "credit" and (case[1] != "usd" or case[6] or case[7]))
        and not (case[4] and case[1] == "calls")
    ]


def _refused(reason: Any, unit: str, window: str, scope: str, raised: int, carried: int, model: str = "") -> Refused:
    own, added, small = AMOUNTS[unit]
    limit = own + raised * added + carried * small
    end = None if window in ("none", "credit") else round(RESETS.timestamp() * 1_000_000)
    spent = limit if reason != "held" else limit - small
    account = Ref(scope, "alice", model, window, unit)
    held = small if reason == "held" else 0
    return Refused("h", account, reason, limit, spent, held, small, end, raised * added, carried * small)


@pytest.mark.parametrize("reason", ["blocked", "spent", "held"])
def test_every_refusal_explains_itself(reason: str) -> None:
    for case in [case for case in _cases() if case[0] == reason]:
        _, unit, window, scope, ways, model, raised, carried = case
        refused = _refused(reason, unit, window, scope, raised, carried)
        error = BudgetExceeded(refused, model, None if reason == "blocked" else ways)
        said = str(error)
        sentence = str(Limit(AMOUNTS[unit][0], window, "", unit))
        assert said.startswith(f"{scope} 'alice' "), case
        assert ("this gpt-4o call" if model else "this call, which names no model,") in said
        assert error.suggestion and error.suggestion[0].isupper() and error.suggestion.endswith("."), case
        if reason == "blocked":
            assert (error.budget, error.resets_at, error.remaining) == ("blocked", None, 0.0)
            assert "is blocked" in said and "resets" not in said and "unblock" in error.suggestion
            continue
        assert error.budget == sentence, case
        assert sentence in said or window == "credit"
        assert ("balance of" in said) == (window == "credit")
        assert (error.raised > 0, "raised by" in said) == (bool(raised), bool(raised)), case
        assert (error.carried > 0, "carried over" in said) == (bool(carried), bool(carried)), case
        assert ("4,096 output tokens are held" in said) == (ways is not None)
        for way in ways.ways if ways is not None else ():
            assert way in said and way[1:] in error.suggestion
        assert ("calls in flight" in said) == (reason == "held")
        ends = window not in ("none", "credit")
        assert ("resets 2026-12-01 00:00 UTC" in said, error.resets_at) == ((True, RESETS) if ends else (False, None))
        assert error.limit - error.raised - error.carried == pytest.approx(
            AMOUNTS[unit][0] / (1e9 if unit == "usd" else 1)
        )


def test_no_amount_is_shown_as_a_float(desk: Desk) -> None:
    for nanos in (1, 9, 10**9 // 3, 100_000_000, 300_000_001, 2**53 - 1):
        refused = Refused("h", Ref("user", "alice"), "spent", nanos, nanos, 0, nanos, None)
        said = str(BudgetExceeded(refused, "gpt-4o"))
        assert not re.search(r"\d[eE][-+]?\d|0000000|99999999", said.replace(f"{nanos / 1e9:,.9f}", "")), said
        assert f"{nanos // 10**9:,}.{nanos % 10**9:09d}".rstrip("0") in said


@pytest.mark.parametrize("reason", ["blocked", "spent", "held"])
def test_hostile_names_leave_a_message_that_can_be_read(reason: str) -> None:
    for unit, scope in itertools.product(UNITS, SCOPES):
        refused = _refused(reason, unit, "month@Europe/Berlin", scope, 1, 1, HOSTILE_ID)
        refused = Refused(
            **{name: getattr(refused, name) for name in refused.__slots__}
            | {"account": refused.account._replace(subject=HOSTILE_ID)}
        )
        error = BudgetExceeded(refused, HOSTILE_MODEL, WAYS[-1])
        for text in (str(error), error.suggestion or ""):
            assert text.isprintable() and len(text) <= MOST, len(text)
        assert (error.subject, error.model) == (HOSTILE_ID, HOSTILE_MODEL)


@pytest.mark.parametrize(
    "error",
    [
        BudgetExceeded(_refused("spent", "usd", "month@UTC", "user", 1, 1), "gpt-4o", WAYS[-1]),
        BudgetExceeded(_refused("blocked", "calls", "none", "run", 0, 0), ""),
        BudgetPriceUnknown("no price", "Give one."),
        BudgetUserMissing("no user", "Name one."),
        BudgetRefused("refused"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_copy_says_the_same(error: BudgetRefused) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert (str(twin), twin.suggestion, twin.status_code) == (str(error), error.suggestion, 422)
        shown = [name for name in vars(error) if not name.startswith("_")]
        assert {name: getattr(twin, name) for name in shown} == {name: getattr(error, name) for name in shown}


def test_an_earlier_client_reads_a_refusal_without_a_raise() -> None:
    plain = _refused("spent", "usd", "none", "user", 0, 0)
    assert "raised" not in dumps(plain)
    for refused in (
        plain,
        _refused("spent", "usd", "none", "user", 1, 0),
        _refused("held", "usd", "none", "user", 0, 1),
    ):
        assert loads(dumps(refused)) == refused


# Through the gate.


def _refusal(call: Callable[..., Any] = litellm.completion, **arguments: Any) -> BudgetRefused:
    with pytest.raises(BudgetRefused) as caught:
        call(**arguments)
    return caught.value


def _without_limit(desk: Desk, **more: Any) -> dict[str, Any]:
    arguments = desk.arguments("alice", **more)
    del arguments["max_tokens"]
    return arguments


GIVE, CAP, ALLOW = "give max_tokens", "set LITELLM_BUDGET_CAP_OUTPUT=true", "set LITELLM_BUDGET_OUTPUT_ALLOWANCE below"


@pytest.mark.parametrize(
    ("settings", "tokens", "ways"),
    [
        ({}, 4096, {GIVE, CAP, ALLOW}),
        ({"output_allowance": 3000, "default_limit": "0.02"}, 3000, {GIVE, CAP, ALLOW}),
        # The model's own maximum was held for.
        ({"output_allowance": 100_000}, 4096, {GIVE, CAP}),
        # Less is left than MIN_OUTPUT costs.
        ({"default_limit": "0.003"}, 4096, {GIVE, ALLOW}),
        # Not even one token fits.
        ({"default_limit": "0.00001"}, 4096, set()),
        ({"default_limit": "0"}, 4096, set()),
        # It was already capped, down to MIN_OUTPUT.
        ({"default_limit": "0.003", "cap_output": True}, 4096, {GIVE}),
    ],
)
def test_the_ways_out_are_those_that_help(
    open_desk: Callable[..., Desk], settings: dict[str, Any], tokens: int, ways: set[str]
) -> None:
    desk = open_desk(**{"default_limit": "0.05", **settings})
    entry = {**litellm.model_cost[CHAT], "max_output_tokens": 4096}
    litellm.register_model({"openai/gate-short": entry})
    error = _refusal(**_without_limit(desk, model="openai/gate-short"))
    assert f"without max_tokens, {tokens:,} output tokens are held for it" in str(error)
    assert {way for way in (GIVE, CAP, ALLOW) if way in str(error)} == ways
    assert {way for way in (GIVE, CAP, ALLOW) if way[1:] in str(error.suggestion)} == ways


@pytest.mark.parametrize("way", [GIVE, CAP, ALLOW])
def test_each_way_out_is_one(open_desk: Callable[..., Desk], way: str) -> None:
    settings = {CAP: {"cap_output": True}, ALLOW: {"output_allowance": 1000}}.get(way, {})
    desk = open_desk(default_limit="0.05", **settings)
    litellm.completion(**(desk.arguments("alice") if way == GIVE else _without_limit(desk)))


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (litellm.completion, lambda desk: desk.arguments("alice", max_tokens=100_000)),
        (litellm.completion, lambda desk: desk.arguments("alice", max_tokens=None, max_completion_tokens=100_000)),
        (litellm.embedding, lambda desk: desk.embedding("alice", model=EMBED, input=[1] * 9000)),
    ],
)
def test_a_call_that_states_its_limit_or_writes_nothing_is_not_told_to(
    open_desk: Callable[..., Desk], call: Any, arguments: Any
) -> None:
    assert "max_tokens" not in str(_refusal(call, **arguments(open_desk(default_limit="0.05"))))


def test_a_limit_of_calls_says_nothing_of_tokens(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit=None, user_limits="1 call per day")
    litellm.completion(**_without_limit(desk))
    error = _refusal(**_without_limit(desk))
    assert "max_tokens" not in str(error)
    assert "has spent 1 call of 1 call per day; this openai/gate-chat call may take 1 call" in str(error)


def test_a_raise_and_a_block_are_named(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit="0.01", default_window="month")
    manager: BudgetManager = desk.callback.manager
    manager.raise_limit("alice", "$0.001", until=datetime.now(timezone.utc) + timedelta(days=1))
    error = _refusal(**desk.arguments("alice"))
    assert isinstance(error, BudgetExceeded)
    assert (error.budget, error.raised, error.limit) == ("$0.01 per month", 0.001, 0.011)
    assert "of $0.01 per month (raised by $0.001);" in str(error)
    manager.block("alice")
    error = _refusal(**desk.arguments("alice"))
    assert isinstance(error, BudgetExceeded)
    assert (error.reason, error.resets_at, error.budget) == ("blocked", None, "blocked")


@pytest.mark.parametrize("model", ["", None, "  "])
@pytest.mark.parametrize("allow", ["reject", "allow"])
def test_a_call_without_a_model_says_so(open_desk: Callable[..., Desk], model: str | None, allow: str) -> None:
    desk = open_desk(on_unknown_price=allow, user_limits="0 calls")
    assert "names no model" in str(_refusal(**desk.arguments("alice", model=model)))


@pytest.mark.parametrize(
    ("model", "meant"),
    [
        ("gtp-4o", "gpt-4o"),
        ("openai/gtp-4o", "openai/gpt-4o"),
        ("claude-sonet-4-5", "claude-sonnet-4-5"),
        ("zzz-9", None),
    ],
)
def test_a_near_miss_is_named(desk: Desk, model: str, meant: str | None) -> None:
    error = _refusal(**desk.arguments("alice", model=model))
    assert isinstance(error, BudgetPriceUnknown)
    assert f"no price is known for '{model}'" in str(error)
    assert ("did you mean" in str(error)) == (meant is not None)
    assert meant is None or (f"(did you mean {meant!r}?)" in str(error) and meant in str(error.suggestion))
    assert error.suggestion is not None and "register_model" in error.suggestion


def test_a_hostile_model_without_a_price_leaves_a_message_that_can_be_read(desk: Desk) -> None:
    error = _refusal(**desk.arguments(HOSTILE_ID, model=f"openai/{HOSTILE_MODEL}"))
    assert isinstance(error, BudgetPriceUnknown)
    for text in (str(error), error.suggestion or ""):
        assert text.isprintable() and len(text) <= MOST


def test_a_model_that_nobody_serves_is_litellms_error_where_nothing_is_limited(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit=None)
    with pytest.raises(litellm.BadRequestError, match="LLM Provider NOT provided"):
        litellm.completion(**desk.arguments("alice", model="gtp-4o"))


def test_a_missing_user_is_told_how_to_name_one(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(on_missing_user="reject")
    assert "user=" in str(
        _refusal(
            **desk.arguments(""),
        ).suggestion
    )


def test_a_limit_for_a_model_that_does_not_exist_is_noticed(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "litellm_budget_plugin"):
        desk.callback.manager.set_limits("alice", "$1 for gtp-4o", f"$2 for {CHAT}")
    assert [record.message for record in caplog.records] == [
        "some limits may have no effect: LiteLLM knows no model 'gtp-4o'; did you mean 'gpt-4o'?"
    ]
    assert parse_limit("$1 for gtp-4o").model == "gtp-4o"
