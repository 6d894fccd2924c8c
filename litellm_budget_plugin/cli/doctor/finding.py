"""The result of a check of `litellm-budget doctor`."""

from __future__ import annotations

from typing import Literal, NamedTuple

State = Literal["ok", "warning", "failed"]
CODES: dict[State, int] = {"ok": 0, "warning": 1, "failed": 2}
"""The exit code for each state."""


class Finding(NamedTuple):
    """One line: the check, its state, a description, and advice ("" if there is nothing to do)."""

    check: str
    state: State
    said: str
    advice: str = ""


def ok(check: str, said: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check, "ok", said)


def warning(check: str, said: str, advice: str) -> Finding:
    """Return a finding that budgets hold, but that somebody should look at."""
    return Finding(check, "warning", said, advice)


def failed(check: str, said: str, advice: str) -> Finding:
    """Return a finding that budgets do not hold, or that calls are refused, until the fault is repaired."""
    return Finding(check, "failed", said, advice)


def printable(text: str, most: int = 200) -> str:
    """Return a text on one line, cut after `most` characters."""
    shown = text if text.isprintable() else repr(text)
    return shown if len(shown) <= most else f"{shown[:most]}…"
