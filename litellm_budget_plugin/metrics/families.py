"""The metric families, their names, labels and meaning, for the metrics of a process and of a server.

No family has a label for users. A project or model beyond the first MOST_NAMES that a process has seen is shown as OTHER.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.registry import Collector

from litellm_budget_plugin.core.money import usd_float

MOST_NAMES = 100
"""How many projects, and how many models, a process shows by their names."""
OTHER = "other"
_BUCKETS = (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_PREFIX = "litellm_budget_"

updating = threading.RLock()
"""The lock around every change of a metric. It is also held during a fork, so that prometheus_client's locks are free in the child."""


class Names:
    """The first names that were seen; every later one is OTHER. Not thread-safe."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self._known: set[str] = set()

    def shown(self, name: str) -> str:
        """Return the label for `name`."""
        if name in self._known:
            return name
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(name)
        return name


class Families:
    """The families that processes and servers share; `register` shows them. Each method counts one event; amounts are nano-dollars.

    The caller must hold `updating`.
    """

    def __init__(self) -> None:
        self._projects, self._models, self._scopes = Names(), Names(), Names()
        self._spend = Counter(
            f"{_PREFIX}spend_usd",
            "US dollars charged, counted once, when the ledger has acknowledged the charge. Expired holds, which the ledger "
            "itself charges for their input side, are not included.",
            ["project", "model"],
            registry=None,
        )
        self._refusals = Counter(
            f"{_PREFIX}refusals",
            "Calls refused, counted once, by scope (user, team, tag, run or project for a budget; model, user, store) and "
            "reason. mode=shadow: calls that went out and would have been refused.",
            ["project", "scope", "reason", "mode"],
            registry=None,
        )
        self._reserve = Histogram(
            f"{_PREFIX}reserve_seconds",
            "Seconds until a request for a hold was answered, by the store or by a slice in this process's memory. A call can "
            "send several requests. Requests without an answer are in store_errors.",
            ["project", "source"],
            registry=None,
            buckets=_BUCKETS,
        )
        self._errors = Counter(
            f"{_PREFIX}store_errors",
            "Requests that the store did not answer in time (unavailable) or cannot serve until it is repaired (error).",
            ["kind"],
            registry=None,
        )
        self._expired = Counter(
            f"{_PREFIX}expired_holds",
            "Holds that expired unsettled and were charged their input side, if noticed by a renewal (the call was still going "
            "on) or by an hourly sweep (mostly of ended processes). Holds that another call's request expires are not counted "
            "here; the ledger's totals count all.",
            ["project", "seen_by"],
            registry=None,
        )
        # Every call updates these. They are cached, because prometheus_client's lookup is slow.
        self._spend_of = cache(self._spend.labels)
        self._reserve_of = cache(self._reserve.labels)
        for kind in ("unavailable", "error"):
            self._errors.labels(kind)
        self.all = (self._spend, self._refusals, self._reserve, self._errors, self._expired)

    def project(self, name: str) -> str:
        """Return the label for a project."""
        return self._projects.shown(name)

    def charged(self, project: str, model: str, nanos: int) -> None:
        """Count a charge that is in the ledger."""
        self._spend_of(self.project(project), self._models.shown(model)).inc(usd_float(nanos))

    def refused(self, project: str, scope: str, reason: str, mode: str) -> None:
        """Count a call that was refused or, in shadow mode, would have been."""
        self._refusals.labels(self.project(project), self._scopes.shown(scope), reason, mode).inc()

    def reserved(self, project: str, source: str, seconds: float) -> None:
        """Count an answered request for a hold, and the seconds that it took."""
        self._reserve_of(self.project(project), source).observe(seconds)

    def store_failed(self, kind: str) -> None:
        """Count a request that the store did not answer or could not serve."""
        self._errors.labels(kind).inc()

    def expired(self, project: str, seen_by: str, holds: int) -> None:
        """Count expired holds."""
        self._expired.labels(self.project(project), seen_by).inc(holds)


def held_gauge(meaning: str) -> Gauge:
    """Return the gauge of held money, in US dollars. Its `meaning` differs between a process and a server."""
    return gauge("held_usd", meaning, ("project", "use"))


def runs_out_gauge() -> Gauge:
    """Return the gauge of when a project's own budgets run out, for processes and servers."""
    return gauge(
        "runs_out_timestamp_seconds",
        "When the first of the project's own budgets runs out if spending goes on at the rate of the last four weeks, in seconds "
        "since 1970. +Inf: all last until their windows end, or there is too little history. Up to an hour old.",
        ("project",),
        "livemin",
    )


def gauge(
    name: str,
    meaning: str,
    labels: Sequence[str] = (),
    together: Literal["livesum", "livemax", "livemin"] = "livesum",
) -> Gauge:
    """Return a gauge. `together` is prometheus_client's name for the way it combines the values of several processes."""
    return Gauge(f"{_PREFIX}{name}", meaning, labels, registry=None, multiprocess_mode=together)


def register(registry: CollectorRegistry, collectors: Iterable[Collector]) -> None:
    """Show the collectors in `registry`, in their order. Raises ValueError, and shows none, if the registry has one of their names."""
    shown: list[Collector] = []
    try:
        for collector in collectors:
            registry.register(collector)
            shown.append(collector)
    except ValueError:
        for collector in shown:
            registry.unregister(collector)
        raise


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=updating.acquire, after_in_parent=updating.release, after_in_child=updating.release)
