"""Functions to read metrics as a scrape does."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

PREFIX = "litellm_budget_"


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return the samples of an exposition by name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


class Shown:
    """The metrics in a registry, read in the format of Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

    def all(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        return samples(generate_latest(self.registry).decode())

    def __call__(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with these labels."""
        wanted = labels.items()
        return sum(value for found, value in self.all().get(PREFIX + name, []) if wanted <= found.items())

    def nanos(self, name: str, **labels: str) -> int:
        """Return a sum in US dollars as nano-dollars."""
        return round(self(name, **labels) * 1e9)


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until `holds` returns true. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)
