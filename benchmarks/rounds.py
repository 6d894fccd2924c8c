"""Measurement of several things in turn, so that other load on the machine slows all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Timings:
    """The seconds that each arm took in each round."""

    rounds: Mapping[str, list[float]]

    def seconds(self, arm: str) -> float:
        """Return the seconds of the median round."""
        return median(self.rounds[arm])

    def ratio(self, arm: str, other: str) -> float:
        """Return the median of the ratios of each round. A slow minute affects both arms or neither."""
        return median(mine / theirs for mine, theirs in zip(self.rounds[arm], self.rounds[other]))


def in_turn(arms: Mapping[str, Callable[[], float]], rounds: int) -> Timings:
    """Run every arm once in each round, in a different order each time. An arm returns the seconds of one operation.

    A first round warms up and does not count.
    """
    found: dict[str, list[float]] = {name: [] for name in arms}
    order = list(arms)
    for number in range(rounds + 1):
        for name in order:
            gc.collect()
            seconds = arms[name]()
            if number:
                found[name].append(seconds)
        order = order[1:] + order[:1]
    return Timings(found)


def each(action: Callable[[T], object], given: Iterable[T]) -> float:
    """Return the median seconds of `action` over all items of `given`."""
    taken = []
    for item in given:
        begun = time.perf_counter()
        action(item)
        taken.append(time.perf_counter() - begun)
    return median(taken)


def together(action: Callable[[T], object], given: Iterable[T]) -> float:
    """Return the mean seconds of `action` over all items of `given`, run back to back."""
    items = list(given)
    begun = time.perf_counter()
    for item in items:
        action(item)
    return (time.perf_counter() - begun) / len(items)


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the values lie."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
