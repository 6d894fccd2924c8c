"""Amounts and times as text. Exports and forms never round. Pages round where many digits would hide the amount."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Decimal

from litellm_budget_plugin.core.money import NANOS_PER_USD, usd_text
from litellm_budget_plugin.core.windows import SECOND

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
LAST_YEAR = 2200
"""The last year that is accepted. Later times may be larger numbers than a ledger keeps."""
_WINDOWS = {
    "none": "no window",
    "1d": "1 day",
    "7d": "7 days",
    "28d": "28 days",
    "365d": "365 days",
    "day@UTC": "calendar day",
    "week@UTC": "calendar week",
    "month@UTC": "calendar month",
    "year@UTC": "calendar year",
}


def usd(nanos: int, places: int | None = None) -> str:
    """Return nano-dollars as text for a page, rounded to `places` decimals. By default they are rounded to cents from $1 on, to
    four decimals from $0.001 on, and to six below, without trailing zeros.
    """
    size, sign = abs(nanos), "-" if nanos < 0 else ""
    shown = places or (2 if size >= NANOS_PER_USD else 4 if size >= NANOS_PER_USD // 1000 else 6)
    rounded = (Decimal(size) / NANOS_PER_USD).quantize(Decimal(1).scaleb(-shown), ROUND_HALF_EVEN)
    if size and not rounded:
        return f"<${Decimal(1).scaleb(-shown):f}"
    return f"{sign}${rounded:,f}" if places else f"{sign}${usd_text(int(rounded * NANOS_PER_USD))}"


def column(amounts: Iterable[int]) -> int:
    """Return the number of decimals for all amounts of a column, so that the decimal points align: the fewest (of 2, 4 and 6)
    that show something of the smallest amount.
    """
    smallest = min((abs(each) for each in amounts if each), default=NANOS_PER_USD)
    return 2 if smallest >= NANOS_PER_USD // 100 else 4 if smallest >= NANOS_PER_USD // 10_000 else 6


def amount(value: int, unit: str = "usd", places: int | None = None) -> str:
    """Return an amount in its account's unit, rounded."""
    return usd(value, places) if unit == "usd" else _counted(value, unit)


def whole(value: int, unit: str = "usd") -> str:
    """Return an amount in its account's unit, with every digit."""
    return f"${usd_text(value)}" if unit == "usd" else _counted(value, unit)


def exact(value: int | None, unit: str = "usd") -> str:
    """Return an amount for programs: US dollars or a count, never rounded; "" for no limit."""
    if value is None:
        return ""
    return usd_text(value).replace(",", "") if unit == "usd" else str(value)


def percent(part: int, whole: int) -> int:
    """Return `part` of `whole` in whole per cent, rounded down: 100 means that nothing is left."""
    return part * 100 // whole if whole > 0 else 100


def when(micros: int) -> str:
    """Return a time in UTC for people."""
    return _at(micros).strftime("%Y-%m-%d %H:%M UTC")


def clock(micros: int) -> str:
    """Return the time of day with seconds, in UTC."""
    return _at(micros).strftime("%H:%M:%S UTC")


def iso(micros: int) -> str:
    """Return a time in UTC for programs."""
    return _at(micros).strftime("%Y-%m-%dT%H:%M:%SZ")


def date_of(day: int) -> str:
    """Return the date of a day of the totals, counted since 1970-01-01. Day 0 holds the sum of folded days."""
    return (_EPOCH + timedelta(days=day)).strftime("%Y-%m-%d") if day else "earlier"


def until(end: int, now: int) -> str:
    """Return the time from `now` to `end` (microseconds) as text, in its two largest units."""
    seconds = max(0, -(-(end - now) // SECOND))
    parts: list[str] = []
    for name, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count or parts or name == "s":
            parts.append(f"{count} {name}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 ")) or "0 s"


def window(text: str) -> str:
    """Return a window in words, or its canonical text if there are none."""
    return _WINDOWS.get(text, text)


def _counted(value: int, unit: str) -> str:
    return f"{value:,} {unit if value != 1 else unit.removesuffix('s')}"


def _at(micros: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:  # a command may contain any number
        return datetime.max.replace(tzinfo=timezone.utc) if micros > 0 else _EPOCH
