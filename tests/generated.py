"""The number of examples that a generated test runs: its own number, times a factor of the Hypothesis profile.

conftest.py registers two profiles. "fixed", the default, runs the same examples every time, so that only a change of the code
can make a test fail. "search" draws new examples in each run, twenty times as many:

    python -m pytest -n 2 -m hypothesis --hypothesis-profile=search --timeout=0
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

_USUAL = 100
_COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


def register_profiles() -> None:
    """Register both profiles, without deadlines, because a slow machine must not fail a property."""
    settings.register_profile("fixed", max_examples=_USUAL, derandomize=True, **_COMMON)
    settings.register_profile("search", max_examples=20 * _USUAL, **_COMMON)
    settings.load_profile("fixed")


def times(number: int) -> int:
    """Return `number` in the profile "fixed", and twenty times as many in "search"."""
    return number * settings.default.max_examples // _USUAL


def examples(number: int, **more: Any) -> Callable[[Any], Any]:
    """Return settings for a test that runs `number` examples in the profile "fixed", and twenty times as many in "search"."""
    return settings(max_examples=times(number), **more)
