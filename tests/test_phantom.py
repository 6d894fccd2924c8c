"""The benchmark of phantom refusals: the same seed gives the same figures, and the figures are counted correctly."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.phantom import Asked, Result, mix, replay

USERS = 4


def _figures(settings: dict[str, Any], seed: int = 5) -> tuple[Any, ...]:
    result, phantoms, beyond = replay(settings, seed, USERS)
    return result.calls, result.refused, dict(result.spent), result.shortened, result.waited, phantoms, beyond


@pytest.mark.parametrize(
    "settings", [{}, {"wait_for_held": 60, "cap_output": True}, {"slices": True}], ids=["strict", "waiting", "slices"]
)
def test_the_same_seed_gives_the_same_figures(settings: dict[str, Any]) -> None:
    assert _figures(settings) == _figures(settings)


def test_what_is_counted_would_have_fitted() -> None:
    calls, limits = mix(5, USERS)
    result, phantoms, _ = replay({}, 5, USERS)
    assert (result.calls, {call.user for call in result.refused} <= limits.keys()) == (len(calls), True)
    served = [call for call in calls if call not in result.refused]
    for user, limit in limits.items():
        assert result.spent[user] == sum(call.cost(call.limit) for call in served if call.user == user) <= limit
    assert 0 < phantoms < len(result.refused)


def test_waiting_refuses_fewer_needlessly() -> None:
    """Otherwise the benchmark would measure nothing."""
    strict, waiting = _figures({}), _figures({"wait_for_held": 60})
    assert waiting[5] < strict[5]
    assert waiting[4] and all(0 < seconds <= 60.1 for seconds in waiting[4])


def test_a_rest_is_given_to_one_refused_call_only() -> None:
    call = Asked(0.0, "alice", "gpt-4o", 1, 100, None, 0)
    cost = call.cost(None)
    result = Result(4, [call] * 3, {"alice": 10 * cost}, 0, [])
    assert [result.phantoms({"alice": 10 * cost + rest}) for rest in (0, cost - 1, cost, 2 * cost, 9 * cost)] == [
        0,
        0,
        1,
        2,
        3,
    ]
