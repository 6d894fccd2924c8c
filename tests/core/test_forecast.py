"""Forecasts, from daily totals, of when a limit is used up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Ref, Usage, UsageKey
from litellm_budget_plugin.core.forecast import HISTORY_DAYS, by_day, daily_rate, runs_out
from litellm_budget_plugin.core.windows import DAY

TODAY = 20_000
NOW = TODAY * DAY + DAY // 2
MONTH = (TODAY * DAY - 9 * DAY, TODAY * DAY + 21 * DAY)


def steady(days: int, amount: int = 10) -> dict[int, int]:
    """`days` whole days before today with a spend, half a day today, and a first day that does not count."""
    return {TODAY - days - 1: 1} | {TODAY - before: amount for before in range(1, days + 1)} | {TODAY: amount // 2}


def test_a_steady_rate_ends_when_it_must() -> None:
    for days in (2, 3, 6, 7, 13, 14, 26):
        at = runs_out(steady(days), 105, 300, *MONTH, NOW)
        assert at == NOW + 195 * DAY // 10, days
        assert runs_out(steady(days), 95, 300, *MONTH, NOW) is None  # at the last moment of the window


def test_a_limit_that_lasts_its_window_has_none() -> None:
    assert runs_out(steady(7), 95, 310, *MONTH, NOW) is None
    assert runs_out(steady(7), 95, None, *MONTH, NOW) is None
    assert runs_out(steady(7), 95, 0, *MONTH, NOW) is None


def test_a_balance_ends_without_a_window() -> None:
    assert runs_out(steady(7), 95, 1095, 0, None, NOW) == NOW + 100 * DAY
    assert runs_out(steady(7), 95, 10**6, 0, None, NOW) is None  # in more than ten years


def test_a_limit_that_is_used_up_has_ended() -> None:
    assert runs_out({}, 300, 300, *MONTH, NOW) == NOW


def test_there_must_be_three_days_of_history() -> None:
    """Too little history: none, an hour, yesterday and today, or a single burst at any time."""
    for days in (
        {},
        {TODAY: 100},
        {TODAY - 1: 100, TODAY: 100},
        {TODAY - 2: 100, TODAY - 1: 100},
        {TODAY - 2: 100, TODAY: 1},
        {TODAY - 20: 100},
        {TODAY - 20: 5, TODAY - 3: 100},
    ):
        assert runs_out(days, 90, 100, *MONTH, NOW) is None, days
    assert runs_out({TODAY - 3: 1, TODAY - 2: 10, TODAY - 1: 10}, 90, 100, *MONTH, NOW) is not None


def test_a_window_shorter_than_a_day_has_none() -> None:
    for hours in (1, 12, 22):
        start = NOW - DAY // 24
        assert runs_out(steady(7, 1000), 90, 100, start, start + hours * DAY // 24, NOW) is None
    assert runs_out(steady(7, 1000), 90, 100, NOW - DAY // 2, NOW + DAY // 2, NOW) is not None


def test_it_makes_no_difference_whether_a_weekend_has_just_passed() -> None:
    """Ten on working days, nothing on two days of each week: the rate is the same on every day of the week."""
    rates = set()
    for today in range(TODAY, TODAY + 7):
        days = {day: 10 * (day % 7 < 5) for day in range(today - HISTORY_DAYS, today)}
        rate = daily_rate(days, today * DAY)
        assert rate is not None
        rates.add(rate[0] * DAY / rate[1])
    assert rates == {50 / 7}


def test_days_are_those_of_the_models_and_the_unit() -> None:
    rows = [
        (UsageKey("user", "a", TODAY, "gpt-4o"), Usage(5, 2, 3, 4)),
        (UsageKey("user", "a", TODAY, "other"), Usage(7, 1, 1, 1)),
        (UsageKey("user", "a", 0, "gpt-4o"), Usage(1000, 1000, 1000, 1000)),
    ]
    assert by_day(rows, Ref("user", "a")) == {TODAY: 12}
    assert by_day(rows, Ref("user", "a", "gpt-4o*", unit="calls")) == {TODAY: 2}
    assert by_day(rows, Ref("user", "a", "gpt-4o", unit="tokens")) == {TODAY: 7}


@given(
    st.dictionaries(st.integers(TODAY - 40, TODAY + 1), st.integers(-5, 10**12), max_size=30),
    st.integers(0, 10**13), st.integers(1, 10**13), st.integers(0, DAY - 1), st.none() | st.integers(0, 400),
)  # fmt: skip
def test_it_lies_between_now_and_the_end(
    days: dict[int, int], used: int, limit: int, moment: int, length: int | None
) -> None:
    now = TODAY * DAY + moment
    end = None if length is None else now + length * DAY
    at = runs_out(days, used, limit, now - DAY, end, now)
    assert at is None or now <= at < (now + 3650 * DAY if end is None else end)
    if used >= limit and (end is None or end > now):
        assert at == now
