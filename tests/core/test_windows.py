"""Windows: the meaning of their text, and that successive ones neither overlap nor leave a gap."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from litellm_budget_plugin.core.windows import DAY, SECOND, Window, bounds, checked_zone, parse_window
from litellm_budget_plugin.errors import BudgetInputError

HOUR = 3_600 * SECOND
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo",
    "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Kiritimati", "America/St_Johns", "Africa/Casablanca",
    "Europe/Dublin", "America/Godthab", "Asia/Gaza",
)  # fmt: skip


def micros(text: str) -> int:
    """A time in UTC, written in ISO 8601, in microseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()) * SECOND


def utc(time: int) -> str:
    return datetime.fromtimestamp(time // SECOND, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M")


YEARS = st.integers(micros("2008-01-01"), micros("2045-01-01"))
# The days around changes of the clocks, where windows go wrong.
CHANGES = [
    micros(day)
    for day in (
        "2011-12-30", "2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-10-04", "2026-04-05",
        "2026-04-24", "2026-10-30", "2017-10-15", "2018-02-18", "2028-02-29", "2026-12-31",
    )
]  # fmt: skip
TIMES = YEARS | st.builds(lambda day, off: day + off, st.sampled_from(CHANGES), st.integers(-3 * DAY, 3 * DAY))


@st.composite
def calendar_texts(draw: st.DrawFn) -> str:
    period = draw(st.sampled_from(["day", "week", "month", "year"]))
    start = ""
    if period == "week":
        start = f":{draw(st.integers(1, 7))}"
    elif period == "month":
        start = f":{draw(st.sampled_from([1, 2, 15, 28, 29, 30, 31]))}"
    elif period == "year":
        day = datetime(2000, 1, 1) + timedelta(days=draw(st.integers(0, 365) | st.just(59)))
        start = f":{day:%m-%d}"
    hour = draw(st.sampled_from(["", "T00", "T01", "T02", "T03", "T06", "T23"]))
    return f"{period}{draw(st.sampled_from(['', start]))}{hour}@{draw(st.sampled_from(ZONES))}"


FIXED_TEXTS = st.builds(lambda n, unit: f"{n}{unit}", st.integers(60, 400), st.sampled_from("smhdw"))


@given(calendar_texts(), TIMES)
def test_calendar_windows_partition_time(text: str, now: int) -> None:
    window = parse_window(text)
    start, end = bounds(window, now)
    assert end is not None
    assert start <= now < end
    assert bounds(window, start) == bounds(window, end - 1) == (start, end)
    assert bounds(window, end)[0] == end
    assert bounds(window, start - 1)[1] == start


@given(calendar_texts(), TIMES, TIMES)
def test_an_earlier_window_of_the_account_does_not_move_the_calendar(text: str, now: int, start: int) -> None:
    assert bounds(parse_window(text), now, start) == bounds(parse_window(text), now)


@given(calendar_texts(), TIMES)
def test_a_calendar_window_begins_at_its_hour_on_its_day_where_that_exists(text: str, now: int) -> None:
    window = parse_window(text)
    start, _ = bounds(window, now)
    zone = ZoneInfo(window.zone)
    local = datetime.fromtimestamp(start // SECOND, tz=zone)
    naive = datetime(local.year, local.month, local.day, window.hour)
    skipped = naive.replace(tzinfo=zone).astimezone(timezone.utc).astimezone(zone).replace(tzinfo=None) != naive
    assume(not skipped and window.zone != "Pacific/Apia")
    assert (local.hour, local.minute, local.second, local.fold) == (window.hour, 0, 0, 0)
    if window.period == "week":
        assert local.isoweekday() == window.day
    if window.period in ("month", "year"):
        month_length = (datetime(local.year + local.month // 12, local.month % 12 + 1, 1) - timedelta(days=1)).day
        assert local.day == min(window.day, month_length)
    if window.period == "year":
        assert local.month == window.month


@given(FIXED_TEXTS, YEARS, st.integers(0, 10 * 365 * DAY))
def test_fixed_windows_go_on_from_their_start_without_drift(text: str, start: int, later: int) -> None:
    window = parse_window(text)
    begin, end = bounds(window, start + later, start)
    assert end is not None
    assert begin <= start + later < end
    assert end - begin == window.length
    assert (begin - start) % window.length == 0
    assert bounds(window, end, begin) == (end, end + window.length)
    assert bounds(window, start + later, begin) == (begin, end)


@given(FIXED_TEXTS, YEARS)
def test_a_fixed_window_of_a_new_account_begins_now(text: str, now: int) -> None:
    window = parse_window(text)
    assert bounds(window, now) == (now, now + window.length)


def test_a_clock_that_went_back_begins_a_fixed_window_now() -> None:
    assert bounds(parse_window("7d"), 5 * DAY, 6 * DAY) == (5 * DAY, 12 * DAY)


def test_no_window_never_ends_and_keeps_its_start() -> None:
    assert bounds(parse_window("none"), 5) == (5, None)
    assert bounds(parse_window("none"), 5, 3) == (3, None)


def starts(text: str, first: str, count: int) -> list[str]:
    """The starts of successive windows from the one open at `first`."""
    window, time, found = parse_window(text), micros(first), []
    for _ in range(count):
        start, end = bounds(window, time)
        assert end is not None
        found.append(utc(start))
        time = end
    return found


@pytest.mark.parametrize(
    ("text", "first", "expected"),
    [
        # Clocks go from 02:00 to 03:00 on 29 March 2026, and from 03:00 to 02:00 on 25 October.
        ("day@Europe/Berlin", "2026-03-28T12:00", ["2026-03-27T23:00", "2026-03-28T23:00", "2026-03-29T22:00"]),
        ("dayT02@Europe/Berlin", "2026-03-28T12:00", ["2026-03-28T01:00", "2026-03-29T01:00", "2026-03-30T00:00"]),
        ("dayT02@Europe/Berlin", "2026-10-24T12:00", ["2026-10-24T00:00", "2026-10-25T00:00", "2026-10-26T01:00"]),
        ("dayT02@America/New_York", "2026-03-07T12:00", ["2026-03-07T07:00", "2026-03-08T07:00", "2026-03-09T06:00"]),
        ("dayT01@America/New_York", "2026-10-31T12:00", ["2026-10-31T05:00", "2026-11-01T05:00", "2026-11-02T06:00"]),
        # Half an hour of daylight saving.
        (
            "dayT02@Australia/Lord_Howe",
            "2026-10-03T00:00",
            ["2026-10-02T15:30", "2026-10-03T15:30", "2026-10-04T15:00"],
        ),
        (
            "dayT02@Australia/Lord_Howe",
            "2026-04-04T00:00",
            ["2026-04-03T15:00", "2026-04-04T15:30", "2026-04-05T15:30"],
        ),
        # Clocks that change at midnight: the day of the change has no 00:00.
        ("day@Africa/Cairo", "2026-04-23T12:00", ["2026-04-22T22:00", "2026-04-23T22:00", "2026-04-24T21:00"]),
        ("day@Africa/Cairo", "2026-10-29T12:00", ["2026-10-28T21:00", "2026-10-29T22:00", "2026-10-30T22:00"]),
        # Samoa had no 30 December 2011.
        ("day@Pacific/Apia", "2011-12-30T09:00", ["2011-12-29T10:00", "2011-12-30T10:00", "2011-12-31T10:00"]),
        ("dayT06@Pacific/Apia", "2011-12-30T09:00", ["2011-12-29T16:00", "2011-12-30T16:00", "2011-12-31T16:00"]),
    ],
)
def test_changes_of_the_clocks_neither_lose_nor_double_a_day(text: str, first: str, expected: list[str]) -> None:
    assert starts(text, first, 3) == expected


@pytest.mark.parametrize("hour", ["", "T01", "T02", "T03", "T23"])
@pytest.mark.parametrize(
    ("zone", "year", "days"),
    [
        ("Europe/Berlin", 2026, 365),
        ("America/New_York", 2028, 366),
        ("Australia/Lord_Howe", 2026, 365),
        ("Africa/Cairo", 2026, 365),
        ("Pacific/Apia", 2011, 364),
    ],
)
def test_a_year_has_as_many_daily_windows_as_days(zone: str, year: int, days: int, hour: str) -> None:
    window = parse_window(f"day{hour}@{zone}")
    first = datetime(year, 1, 1, window.hour, tzinfo=ZoneInfo(zone))
    last = datetime(year + 1, 1, 1, window.hour, tzinfo=ZoneInfo(zone))
    time, count = int(first.timestamp()) * SECOND, 0
    while time < int(last.timestamp()) * SECOND:
        start, end = bounds(window, time)
        assert start == time
        assert end is not None
        assert 23 * HOUR <= end - start <= 25 * HOUR
        time, count = end, count + 1
    assert count == days


@pytest.mark.parametrize(
    ("text", "first", "expected"),
    [
        (
            "month:31",
            "2027-01-31T00:00",
            ["2027-01-31T00:00", "2027-02-28T00:00", "2027-03-31T00:00", "2027-04-30T00:00"],
        ),
        ("month:30", "2028-02-10T00:00", ["2028-01-30T00:00", "2028-02-29T00:00", "2028-03-30T00:00"]),
        ("month:15T06", "2026-12-15T05:59", ["2026-11-15T06:00", "2026-12-15T06:00", "2027-01-15T06:00"]),
        ("month", "2026-12-31T23:59", ["2026-12-01T00:00", "2027-01-01T00:00"]),
        ("year", "2026-06-01T00:00", ["2026-01-01T00:00", "2027-01-01T00:00"]),
        ("year:02-29", "2027-12-01T00:00", ["2027-02-28T00:00", "2028-02-29T00:00", "2029-02-28T00:00"]),
        ("year:04-06", "2026-04-05T23:59", ["2025-04-06T00:00", "2026-04-06T00:00"]),
        ("week", "2026-11-22T23:59", ["2026-11-16T00:00", "2026-11-23T00:00"]),
        ("week:7", "2026-11-22T00:00", ["2026-11-22T00:00", "2026-11-29T00:00"]),
        ("week:4T12", "2026-11-26T11:59", ["2026-11-19T12:00", "2026-11-26T12:00"]),
    ],
)
def test_calendar_windows_begin_where_their_text_says(text: str, first: str, expected: list[str]) -> None:
    assert starts(text, first, len(expected)) == expected


@pytest.mark.parametrize("weekday", range(1, 8))
def test_every_weekday_can_begin_a_week(weekday: int) -> None:
    start, end = bounds(parse_window(f"week:{weekday}"), micros("2026-11-23T10:00"))
    assert datetime.fromtimestamp(start // SECOND, tz=timezone.utc).isoweekday() == weekday
    assert end == start + 7 * DAY


@pytest.mark.parametrize(("word", "days"), [("daily", 1), ("weekly", 7), ("monthly", 28), ("yearly", 365)])
def test_the_words_of_litellm_are_fixed_lengths(word: str, days: int) -> None:
    assert parse_window(word) == Window(f"{days}d", length=days * DAY)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("none", "none"), ("90s", "90s"), ("60s", "1m"), ("120m", "2h"), ("24h", "1d"), ("2w", "14d"), ("week:1", "week@UTC"),
        ("month:01", "month@UTC"), ("month:05", "month:5@UTC"), ("year:01-01", "year@UTC"), ("year:01-02", "year:01-02@UTC"),
        ("dayT00", "day@UTC"), ("dayT06", "dayT06@UTC"), ("day@UTC", "day@UTC"),
        ("month:15T06@Europe/Berlin", "month:15T06@Europe/Berlin"),
    ],
)  # fmt: skip
def test_equal_windows_have_one_text(text: str, canonical: str) -> None:
    assert parse_window(text).text == canonical


@given(calendar_texts() | FIXED_TEXTS | st.sampled_from(["none", "daily", "weekly", "monthly", "yearly"]))
def test_the_canonical_text_means_the_same_and_is_its_own(text: str) -> None:
    window = parse_window(text)
    assert parse_window(window.text) == window


@given(calendar_texts(), st.sampled_from(ZONES))
def test_a_window_without_a_zone_takes_the_default_one_into_its_text(text: str, zone: str) -> None:
    bare = text.partition("@")[0]
    assert parse_window(bare, zone) == parse_window(f"{bare}@{zone}") == parse_window(parse_window(bare, zone).text)
    assert parse_window(text, zone) == parse_window(text)


@pytest.mark.parametrize(
    "bad",
    [
        "", " ", "None", "1s", "59s", "0d", "00d", "01d", "-1d", "1.5h", "5", "d", "1y", "1D", "7 d", "7d ", "1d\n", "36601d", "999999999w",
        "Daily", "hourly", "day:1", "day:2", "week:0", "week:8", "month:0", "month:32", "month:-1", "month:1-2", "year:13-01",
        "year:02-30", "year:00-10", "year:5", "year:0101", "year:-", "year:4-6", "dayT24", "dayT6", "dayT", "day@", "day@Mars/Olympus",
        "day@/etc/localtime", "day@localtime", "day@posix/UTC", "day@right/UTC", "day@../UTC", "day@Europe", "day@Europe/", "day@//", "month@Europe/Berlin@UTC", "month:٣", "T06",
    ],
)  # fmt: skip
def test_what_is_no_window_is_an_input_error(bad: str) -> None:
    with pytest.raises(BudgetInputError, match="window|time zone"):
        parse_window(bad)


@given(
    st.from_regex(
        r"(day|week|month|year|[0-9]{1,3}[a-z])(:[0-9-]{0,5})?(T[0-9]{1,2})?(@[A-Za-z/+_-]{0,12})?", fullmatch=True
    )
)
def test_near_windows_are_windows_or_input_errors(text: str) -> None:
    try:
        window = parse_window(text)
    except BudgetInputError:
        return
    start, end = bounds(window, micros("2026-11-23"))
    assert end is not None
    assert start <= micros("2026-11-23") < end
    assert parse_window(window.text) == window


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "Europe", "..", "/etc/localtime", "a\x00b", "Europe/Berlin ", "x" * 300]
)
def test_an_unknown_time_zone_is_an_input_error(zone: str) -> None:
    with pytest.raises(BudgetInputError, match="time zone"):
        checked_zone(zone)


def test_a_known_time_zone_is_itself() -> None:
    assert checked_zone("America/New_York") == "America/New_York"
