"""The computation of amounts, times, totals and charts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from litellm_budget_plugin.core.accounts import Default, Subject, Usage, UsageKey
from litellm_budget_plugin.core.commands import Accounts, PutBudget, Read, SetLimits, Settle
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.server.dashboard import charts, wording
from litellm_budget_plugin.server.dashboard.people import counting, person_of, share_of
from litellm_budget_plugin.server.dashboard.totals import (
    DAYS,
    MOST_MODELS,
    OTHERS,
    Adding,
    by_day,
    refusal_rate,
    summed,
)
from litellm_budget_plugin.stores.protocol import ask
from litellm_budget_plugin.stores.registry import open_store
from tests.server.dashboard.desk import PROJECT, USD, put, state_of


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "$0.00"),
        (1, "<$0.000001"),
        (500, "<$0.000001"),
        (1_500, "$0.000002"),
        (999_999, "$0.001"),
        (1_234_567, "$0.0012"),
        (USD // 2, "$0.50"),
        (USD, "$1.00"),
        (1_234_567_890_123, "$1,234.57"),
        (-USD, "-$1.00"),
    ],
)
def test_amounts_on_pages(nanos: int, text: str) -> None:
    assert wording.usd(nanos) == text


def test_amounts_in_other_units() -> None:
    assert wording.amount(1, "calls") == "1 call"
    assert wording.whole(1234, "tokens") == "1,234 tokens"
    assert wording.whole(1) == "$0.000000001"
    assert wording.exact(1_234_567_890_123) == "1234.567890123"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (0.2, "1 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (90_061, "1 d 1 h"),
        (172_800, "2 d"),
    ],
)
def test_time_to_a_reset(seconds: float, text: str) -> None:
    assert wording.until(1_000_000 + round(seconds * 1_000_000), 1_000_000) == text


def test_times_that_no_calendar_has() -> None:
    assert wording.when(2**53) == "2255-06-05 23:47 UTC"
    assert wording.when(2**62) == "9999-12-31 23:59 UTC"


def test_what_is_used_is_never_rounded_up() -> None:
    assert [wording.percent(part, 1000) for part in (0, 9, 999, 1000, 2500)] == [0, 0, 99, 100, 250]
    assert wording.percent(0, 0) == 100


def test_a_limit_of_nothing_is_used_up_and_the_nearest_account_counts() -> None:
    store = open_store("memory://")
    put(store, "zero", 0)
    assert share_of(state_of(store, "zero")) == 1.0
    put(store, "free", None)
    assert share_of(state_of(store, "free")) == -1.0
    free, zero = state_of(store, "free"), state_of(store, "zero")
    assert person_of(Subject("user", "free"), [free], (), 0).limit is None
    both = [free, replace(zero, ref=free.ref._replace(window="day@UTC"))]
    nearest = person_of(Subject("user", "free"), both, (), 0)
    assert (nearest.limit, nearest.full, nearest.near) == (0, True, True)
    store.close()


def test_a_left_over_account_does_not_count() -> None:
    """The user followed defaults of two windows before getting a limit of their own."""
    store, defaults = open_store("memory://"), (Default("user", "7d", 1000),)
    user = Subject("user", "a")
    ask(store, Settle("h", PROJECT, (user,), ("m",), 990, "m", defaults=(Default("user", "1d", 1000),)))
    ask(store, Settle("i", PROJECT, (user,), ("m",), 1000, "m", defaults=defaults))
    ask(store, PutBudget("p", PROJECT, user, window="28d", limit=5000))
    reply = ask(store, Read(PROJECT, "user", "a", defaults=defaults))
    assert isinstance(reply, Accounts)
    assert {state.ref.window for state in reply.accounts} == {"28d", "7d"}
    counted = counting(user, reply.accounts, defaults, reply.now)
    assert [(state.ref.window, share_of(state)) for state in counted] == [("28d", 0.198)]
    assert person_of(user, reply.accounts, defaults, reply.now).window == "28d"
    store.close()


def test_limits_of_one_subject_take_the_place_of_its_scopes() -> None:
    """This holds whatever defaults the ledger was asked with; and the whole mark is not an account."""
    store, user = open_store("memory://"), Subject("user", "a")
    scope = (Default("user", "1d", 1000),)
    ask(store, Settle("h", PROJECT, (user,), ("m",), 90, "m", defaults=scope))
    own = (*scope, Default("user", "1d", 100, subject="a"), Default("user", "day@UTC", 7, "gpt-4o", subject="a"))

    def counted(defaults: tuple[Default, ...]) -> list[tuple[str, int | None, int]]:
        reply = ask(store, Read(PROJECT, "user", "a", defaults=scope))
        assert isinstance(reply, Accounts)
        found = counting(user, reply.accounts, defaults, reply.now, coming=True)
        return [(state.ref.model, state.limit, state.spent) for state in found]

    assert counted(scope) == [("", 1000, 90)]
    assert counted(own) == [("", 100, 90), ("gpt-4o", 7, 0)]
    assert counted(()) == [("", None, 90)]
    ask(store, SetLimits("s", PROJECT, user, (Limit(5, "month@UTC"),)))
    assert counted(own) == [("", 5, 90)]
    ask(store, SetLimits("t", PROJECT, user, ()))
    assert counted(own) == []
    store.close()


def _row(day: int, spent: int, user: str = "a", model: str = "m") -> tuple[UsageKey, Usage]:
    return UsageKey("user", user, day, model), Usage(spent, 1)


def test_days_that_are_read_again_count_once() -> None:
    adding = Adding(100)
    adding.put([_row(99, 5), _row(100, 1)], 99, 100)
    adding.put([_row(100, 3), _row(100, 9, "b")], 100, 100)
    adding.put([_row(99, 6), _row(100, 4), _row(100, 10, "b")], 99, 100)
    assert not adding.complete
    adding.put([_row(80, 7, "b"), _row(98, 1, "c")], adding.first, 98)
    assert adding.complete
    assert adding.top() == (("b", 17), ("a", 10), ("c", 1))
    assert adding.today - adding.first == DAYS - 1


def test_made_up_models_do_not_fill_the_memory() -> None:
    days = by_day(_row(100, 1, model=f"m{number}") for number in range(5 * MOST_MODELS))
    assert len(days[100]) == MOST_MODELS + 1
    assert days[100][OTHERS].spent == 4 * MOST_MODELS
    assert summed(days[100].values()).spent == 5 * MOST_MODELS


def test_a_rate_of_nothing_is_nothing() -> None:
    assert refusal_rate(Usage()) == 0.0
    assert refusal_rate(Usage(calls=3, refusals=1)) == 0.25


def test_bars_stand_on_each_other_and_fit() -> None:
    chart = charts.by_day({10: {"a": Usage(30), "b": Usage(70)}, 11: {"b": Usage(20)}, 9: {"a": Usage(999)}}, 10, 12)
    assert chart.ticks == ["$0.0000001", "$0.00000005", "$0"]
    (b, first), (a, second) = chart.names
    assert (first, second) == ("b", "a") and a != b
    assert [(bar.series, float(bar.y), float(bar.height)) for bar in chart.bars] == [
        (b, 54.0, 126.0),
        (a, 0.0, 54.0),
        (b, 144.0, 36.0),
    ]
    assert [(row.day, row.spent) for row in chart.rows] == [(12, 0), (11, 20), (10, 100)]
    assert all(float(bar.x[:-1]) >= 0 and float(bar.x[:-1]) + float(bar.width[:-1]) <= 100 for bar in chart.bars)


def test_a_projects_models_have_their_colours_whatever_else_is_there() -> None:
    ranked = [f"m{number}" for number in range(20)]
    everywhere = charts.colours(ranked, ())
    for others in (["x", "y"], ["m3", "z"], ["m12", "m13", "m14", "m15", "m16", "m17"]):
        found = charts.colours(ranked, others)
        assert everywhere.items() <= found.items() and len(set(found.values())) == len(found)
        assert max(found.values()) < charts.COLOURS


@pytest.mark.parametrize(
    ("amounts", "texts"),
    [
        ([4 * USD, USD // 4, 0], ["$4.00", "$0.25", "$0.00"]),
        ([1_234_567_890_123, USD // 1000], ["$1,234.5679", "$0.0010"]),
        ([USD, 1_500, 1], ["$1.000000", "$0.000002", "<$0.000001"]),
        ([-USD, USD], ["-$1.00", "$1.00"]),
        ([], []),
    ],
)
def test_amounts_of_a_column_have_their_points_below_each_other(amounts: list[int], texts: list[str]) -> None:
    places = wording.column(amounts)
    assert [wording.usd(nanos, places) for nanos in amounts] == texts


def test_a_chart_of_nothing() -> None:
    chart = charts.by_day({}, 10, 12)
    assert (chart.bars, chart.names, chart.summary) == ([], [], "$0.00 in 3 days")
