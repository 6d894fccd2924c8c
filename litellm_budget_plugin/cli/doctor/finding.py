"""What a check of `litellm-budget doctor` has found."""

from __future__ import annotations

from typing import Literal, NamedTuple

State = Literal["ok", "warning", "failed"]
CODES: dict[State, int] = {"ok": 0, "warning": 1, "failed": 2}
"""The exit code that stands for each state."""


class Finding(NamedTuple):
    """One line: what was looked at, how it is, in words, and what to do about it ("": nothing)."""

    check: str
    state: State
    said: str
    advice: str = ""


def ok(check: str, said: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", said)


def warning(check: str, said: str, advice: str) -> Finding:
    """Budgets hold, and somebody should look at it."""
    return Finding(check, "warning", said, advice)


def failed(check: str, said: str, advice: str) -> Finding:
    """Budgets do not hold, or calls are refused, until it is repaired."""
    return Finding(check, "failed", said, advice)


def printable(text: str, most: int = 200) -> str:
    """A text on one line, cut short."""
    shown = text if text.isprintable() else repr(text)
    return shown if len(shown) <= most else f"{shown[:most]}…"
