"""Windows: how long a limit counts, as a pure function of (window, time).

A window is written as text, and its canonical text is part of an account's key:

    none                          never ends
    credit                        never ends either: that of a prepaid balance
    90s  30m  12h  7d  2w         fixed lengths of at least a minute, from the account's creation, without drift
    daily weekly monthly yearly   LiteLLM's words: fixed lengths of 1, 7, 28 and 365 days, as LiteLLM counts them
    day week month year           calendar periods in a time zone, with an optional start:
        dayT06                    days that begin at 06:00
        week:7                    weeks that begin on Sunday (ISO: 1 is Monday)
        month:15T06               months that begin on the 15th at 06:00; a day that a month lacks is its last day
        year:04-06                years that begin on the 6th of April
        month@Europe/Berlin       the same in that IANA time zone; without one, in the default zone

Times are integer microseconds since 1970-01-01 UTC.
"""

from __future__ import annotations

import calendar
import re
from datetime import date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from litellm_budget_plugin.errors import BudgetInputError

SECOND = 1_000_000
DAY = 86_400 * SECOND
CREDIT = "credit"
ENDLESS = ("none", CREDIT)
"""The windows that never end."""

_LENGTHS = {"s": SECOND, "m": 60 * SECOND, "h": 3_600 * SECOND, "d": DAY, "w": 7 * DAY}
_LITELLM_WORDS = {"daily": "1d", "weekly": "7d", "monthly": "28d", "yearly": "365d"}
_FIXED = re.compile(r"([1-9][0-9]{0,8})([smhdw])")
_CALENDAR = re.compile(r"(day|week|month|year)(?::([0-9-]{1,5}))?(?:T([0-9]{2}))?(?:@([A-Za-z0-9_+/-]{1,64}))?")
_ACCEPTED = "none, a length like 90s, 12h, 7d, daily, weekly, monthly, yearly, or day, week, month, year"
_SHORTEST_FIXED = 60 * SECOND
_LONGEST_FIXED = 36_600 * DAY


class Window(NamedTuple):
    """A parsed window. `length` is set for fixed ones (microseconds), `period` for calendar ones."""

    text: str
    length: int = 0
    period: str = ""
    month: int = 1
    day: int = 1
    hour: int = 0
    zone: str = "UTC"


@lru_cache(maxsize=512)
def parse_window(text: str, default_zone: str = "UTC") -> Window:
    """Parse `text`; `default_zone` applies to calendar windows that name no zone.

    Raises BudgetInputError for anything that the module's docstring does not list.
    """
    if text in ENDLESS:
        return Window(text)
    if match := _FIXED.fullmatch(_LITELLM_WORDS.get(text, text)):
        return _fixed_window(text, int(match[1]) * _LENGTHS[match[2]])
    if match := _CALENDAR.fullmatch(text):
        return _calendar_window(text, match, default_zone)
    raise BudgetInputError(f"unknown window {text!r}; accepted are {_ACCEPTED} (calendar, in a time zone)")


def _fixed_window(text: str, length: int) -> Window:
    if not _SHORTEST_FIXED <= length <= _LONGEST_FIXED:
        raise BudgetInputError(f"window {text!r} must be from 60 seconds to 100 years long")
    unit = next(unit for unit in "dhms" if length % _LENGTHS[unit] == 0)
    return Window(f"{length // _LENGTHS[unit]}{unit}", length=length)


def _calendar_window(text: str, match: re.Match[str], default_zone: str) -> Window:
    period, start, hour_text, zone = match[1], match[2], match[3], match[4] or default_zone
    month, day, hour = 1, 1, int(hour_text or 0)
    try:
        if start is not None and period == "year":
            first = date.fromisoformat(f"2000-{start}")
            month, day = first.month, first.day
        elif start is not None:
            day = int(start)
    except ValueError:
        raise BudgetInputError(
            f"window {text!r} has the start {start!r}; the start of a year is written MM-DD"
        ) from None
    last_day = {"day": 1, "week": 7, "month": 31, "year": 31}[period]
    if not 1 <= day <= last_day or hour > 23 or (period == "day" and start is not None):
        raise BudgetInputError(
            f"window {text!r} has no such start: a {period} begins on day 1 to {last_day}, hour 0 to 23"
        )
    checked_zone(zone)
    canonical = period
    if start is not None and (month, day) != (1, 1):
        canonical += f":{month:02d}-{day:02d}" if period == "year" else f":{day}"
    canonical += f"T{hour:02d}" if hour else ""
    return Window(f"{canonical}@{zone}", period=period, month=month, day=day, hour=hour, zone=zone)


def checked_zone(name: str) -> str:
    """`name` if it is an IANA time zone known here, else BudgetInputError."""
    try:
        if name.startswith(("posix/", "right/")) or name in ("localtime", "Factory"):
            raise KeyError(name)
        _zone(name)
    except (KeyError, ValueError, OSError):
        raise BudgetInputError(
            f"unknown time zone {name!r}; an IANA name is accepted, like UTC or Europe/Berlin"
        ) from None
    return name


def bounds(window: Window, now: int, start: int | None = None) -> tuple[int, int | None]:
    """The start and end of the window that is open at `now`.

    `start` is where an earlier window of the same account began; fixed windows continue from it without drift.
    Promises start <= now < end, and that the windows of successive times neither overlap nor leave a gap.
    """
    if window.length:
        first = now if start is None or start > now else start
        begin = first + (now - first) // window.length * window.length
        return begin, begin + window.length
    if window.period:
        return _calendar_bounds(window, now)
    return (now if start is None else start), None


def _calendar_bounds(window: Window, now: int) -> tuple[int, int]:
    local = datetime.fromtimestamp(now // SECOND, tz=timezone.utc).astimezone(_zone(window.zone))
    index = _period_index(window, local.date())
    while _period_start(window, index) > now:
        index -= 1
    while (end := _period_start(window, index + 1)) <= now:
        index += 1
    return _period_start(window, index), end


def _period_index(window: Window, day: date) -> int:
    if window.period in ("day", "week"):
        days = day.toordinal()
        return days if window.period == "day" else (days - window.day) // 7
    return day.year if window.period == "year" else day.year * 12 + day.month - 1


def _period_start(window: Window, index: int) -> int:
    if window.period == "day":
        first = date.fromordinal(index)
    elif window.period == "week":
        # Ordinal 1 is Monday, 0001-01-01, so the ISO weekday is the remainder by which a week's first day exceeds 7 * n.
        first = date.fromordinal(index * 7 + window.day)
    else:
        year, month = (index, window.month) if window.period == "year" else (index // 12, index % 12 + 1)
        first = date(year, month, min(window.day, calendar.monthrange(year, month)[1]))
    # An hour that daylight saving skips is read with the offset before the change (fold=0), one that it repeats as the
    # first of the two: either way the starts of successive periods stay in order, and no day is lost or doubled.
    wall = datetime(first.year, first.month, first.day, window.hour, tzinfo=_zone(window.zone))
    return int((wall.astimezone(timezone.utc) - _EPOCH) / timedelta(microseconds=1))


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    return timezone.utc if name == "UTC" else ZoneInfo(name)
