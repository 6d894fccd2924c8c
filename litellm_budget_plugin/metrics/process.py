"""The metrics of this process: the events that `manager.observing` reports, and gauges that are computed when they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from litellm_budget_plugin.core.commands import Settle
from litellm_budget_plugin.core.money import usd_float
from litellm_budget_plugin.metrics.families import Families, gauge, held_gauge, register, runs_out_gauge, updating
from litellm_budget_plugin.metrics.standing import Source, Standing

_IN_REGISTRY = "_litellm_budget_metrics"
_HELD = (
    "US dollars that this process holds: for calls in flight (calls), and ahead in slices for later calls (slices). The ledger "
    "also holds the money of an ended call until its charge is delivered."
)


class ProcessMetrics:
    """The metrics of this process's ledgers, in one registry. An `Observer`; any thread may call it.

    Gauges are refreshed when the registry is read. For prometheus_client's multi-process mode, the worker also refreshes them about
    once a second.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics. Call `in_registry` instead, because a registry can have each family only once."""
        self.registry = registry
        self._sources: list[Source] = []
        self._labels: set[str] = set()
        self._families = Families()
        self._held = held_gauge(_HELD)
        self._calls = gauge("open_holds", "Calls of this process that are in flight and hold money.", ("project",))
        self._waiting = gauge(
            "waiting_charges",
            "Charges and releases that the ledger has not acknowledged yet: in memory (for a moment, on a networked ledger), or "
            "in the journal because the store does not take them.",
            ("place",),
        )
        self._breaker = gauge(
            "breaker_open", "1 while a store cannot be reached and calls do not wait for it.", (), "livemax"
        )
        # A registry is read in the order of registration: _Refreshing comes first and refreshes the gauges.
        self._runs_out = runs_out_gauge()
        gauges = (self._held, self._calls, self._waiting, self._breaker, self._runs_out)
        register(registry, (_Refreshing(self), *self._families.all, *gauges))
        self.refresh()

    @staticmethod
    def in_registry(registry: CollectorRegistry) -> ProcessMetrics:
        """Return the metrics in `registry`, created at the first call. They stay if this module is reloaded.

        Raises ValueError if another collector has one of their names, and OSError if prometheus_client's directory for several
        processes cannot be written.
        """
        with updating:
            found: ProcessMetrics | None = vars(registry).get(_IN_REGISTRY)
            if found is None:
                found = ProcessMetrics(registry)
                vars(registry)[_IN_REGISTRY] = found
            return found

    def watch(self, source: Source) -> None:
        """Include `source` in the gauges until it says that it is closed."""
        with updating:
            if source not in self._sources:
                self._sources.append(source)

    def charged(self, command: Settle) -> None:
        """Count a charge that was acknowledged for the first time."""
        with updating:
            self._families.charged(command.project, command.model, command.cost)

    def refused(self, project: str, scope: str, reason: str, mode: str) -> None:
        """Count a call that was refused or, in shadow mode, would have been."""
        with updating:
            self._families.refused(project, scope, reason, mode)

    def reserved(self, project: str, source: str, seconds: float) -> None:
        """Count an answered request for a hold, and the seconds that it took."""
        with updating:
            self._families.reserved(project, source, seconds)

    def store_failed(self, kind: str) -> None:
        """Count a request that the store did not answer or could not serve."""
        with updating:
            self._families.store_failed(kind)

    def expired(self, project: str, seen_by: str, holds: int) -> None:
        """Count expired holds."""
        with updating:
            self._families.expired(project, seen_by, holds)

    def refresh(self) -> None:
        """Set the gauges to the present state."""
        with updating:
            found = [(source, source.standing()) for source in self._sources]
            self._sources = [source for source, standing in found if not standing.closed]
            self._show([standing for _, standing in found if not standing.closed])

    def _show(self, standings: list[Standing]) -> None:
        held = self._by_label(standing.held for standing in standings)
        calls = self._by_label(standing.calls for standing in standings)
        ahead = self._by_label(standing.ahead for standing in standings)
        # A label that no source reports any more is set to zero.
        for label in self._labels:
            self._held.labels(label, "calls").set(usd_float(held[label]))
            self._held.labels(label, "slices").set(usd_float(ahead[label]))
            self._calls.labels(label).set(calls[label])
        self._waiting.labels("memory").set(sum(standing.in_memory for standing in standings))
        self._waiting.labels("journal").set(sum(standing.in_journal for standing in standings))
        soonest: dict[str, float] = {}
        for project, at in (item for standing in standings for item in standing.runs_out.items()):
            label = self._families.project(project)
            soonest[label] = min(at, soonest.get(label, at))
        for label, at in soonest.items():
            self._runs_out.labels(label).set(at)
        self._breaker.set(any(standing.breaker_open for standing in standings))

    def _by_label(self, amounts: Iterable[Mapping[str, int]]) -> Counter[str]:
        found: Counter[str] = Counter()
        for by_project in amounts:
            for project, amount in by_project.items():
                found[self._families.project(project)] += amount
        self._labels.update(found)
        return found


class _Refreshing:
    """A collector without families. Its `collect` is called when the registry is read."""

    def __init__(self, metrics: ProcessMetrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        """Return no family."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Refresh the gauges, and return no family."""
        self._metrics.refresh()
        return ()
