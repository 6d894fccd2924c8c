"""How amounts, times, totals and charts are worked out."""

from __future__ import annotations

import pytest

from litellm_budget_plugin.core.accounts import Default, Subject, Usage, UsageKey
from litellm_budget_plugin.core.commands import Accounts, PutBudget, Read, Settle
from litellm_budget_plugin.server.dashboard import charts, wording
from litellm_budget_plugin.server.dashboard.people import person_of, share_of
from litellm_budget_plugin.server.dashboard.totals import DAYS, MOST_MODELS, OTHERS, Adding, refusal_rate
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
    assert person_of("free", [state_of(store, "free")]).limit is None
    nearest = person_of("both", [state_of(store, "free"), state_of(store, "zero")])
    assert (nearest.limit, nearest.full, nearest.near) == (0, True, True)
    store.close()


def test_a_left_over_account_does_not_count() -> None:
    """Somebody followed defaults of two windows before getting a limit of their own."""
    store, defaults = open_store("memory://"), (Default("user", "7d", 1000),)
    user = Subject("user", "a")
    ask(store, Settle("h", PROJECT, (user,), ("m",), 990, "m", defaults=(Default("user", "1d", 1000),)))
    ask(store, Settle("i", PROJECT, (user,), ("m",), 1000, "m", defaults=defaults))
    ask(store, PutBudget("p", PROJECT, user, window="28d", limit=5000))
    reply = ask(store, Read(PROJECT, "user", "a", defaults=defaults))
    assert isinstance(reply, Accounts)
    assert [(state.ref.window, share_of(state)) for state in reply.accounts] == [("28d", 0.198), ("7d", 1.0)]
    assert person_of("a", reply.accounts).window == "28d"
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
    totals = adding.totals()
    assert adding.complete and totals.complete
    assert (totals.sum.spent, totals.of_today.spent, totals.sum.calls) == (28, 14, 5)
    assert totals.top == (("b", 17), ("a", 10), ("c", 1))
    assert totals.today - totals.first == DAYS - 1


def test_made_up_models_do_not_fill_the_memory() -> None:
    adding = Adding(100)
    adding.put([_row(100, 1, model=f"m{number}") for number in range(5 * MOST_MODELS)], 100, 100)
    totals = adding.totals()
    assert len(totals.days[100]) == MOST_MODELS + 1
    assert totals.sum.spent == 5 * MOST_MODELS
    assert totals.days[100][OTHERS].spent == 4 * MOST_MODELS


def test_a_rate_of_nothing_is_nothing() -> None:
    assert refusal_rate(Usage()) == 0.0
    assert refusal_rate(Usage(calls=3, refusals=1)) == 0.25


def test_bars_stand_on_each_other_and_fit() -> None:
    chart = charts.by_day({10: {"a": Usage(30), "b": Usage(70)}, 11: {"b": Usage(20)}, 9: {"a": Usage(999)}}, 10, 12)
    assert chart.ticks == ["$0.0000001", "$0.00000005", "$0"]
    assert [(bar.series, float(bar.y), float(bar.height)) for bar in chart.bars] == [
        (0, 54.0, 126.0),
        (1, 0.0, 54.0),
        (0, 144.0, 36.0),
    ]
    assert chart.names == ["b", "a"]
    assert [(row.day, row.spent) for row in chart.rows] == [(12, 0), (11, 20), (10, 100)]
    assert all(float(bar.x[:-1]) >= 0 and float(bar.x[:-1]) + float(bar.width[:-1]) <= 100 for bar in chart.bars)


def test_a_chart_of_nothing() -> None:
    chart = charts.by_day({}, 10, 12)
    assert (chart.bars, chart.names, chart.summary) == ([], [], "$0.00 in 3 days")
