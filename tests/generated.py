"""How many examples a generated test runs: a number of its own, times what the profile of Hypothesis says.

Two profiles are registered in conftest.py. "fixed", the default, runs the same examples every time, so that a change alone
can make a test fail. "search" draws others in each run, twenty times as many:

    python -m pytest -n 2 -m hypothesis --hypothesis-profile=search --timeout=0
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

_USUAL = 100
_COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


def register_profiles() -> None:
    """Time is no measure in either: a slow machine must not fail a property."""
    settings.register_profile("fixed", max_examples=_USUAL, derandomize=True, **_COMMON)
    settings.register_profile("search", max_examples=20 * _USUAL, **_COMMON)
    settings.load_profile("fixed")


def times(number: int) -> int:
    """`number` by the profile "fixed", and twenty times as many by "search"."""
    return number * settings.default.max_examples // _USUAL


def examples(number: int, **more: Any) -> Callable[[Any], Any]:
    """Settings for a test that runs `number` examples by the profile "fixed", and twenty times as many by "search"."""
    return settings(max_examples=times(number), **more)
