"""The metric families: their names, labels and meaning, once, for this process's metrics and for a server's.

No family carries a user. A project or model beyond the first MOST_NAMES that a process has seen is shown as OTHER.
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
"""Held around every change of a metric, and by code that forks: prometheus_client's own locks must be free in the child."""


class Names:
    """The first names that come along; every later one is OTHER. Not for several threads at once."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self._known: set[str] = set()

    def shown(self, name: str) -> str:
        """The label for `name`."""
        if name in self._known:
            return name
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(name)
        return name


class Families:
    """The families that everybody shows; `register` them. Each method is one thing that has happened; amounts are nano-dollars.

    To be called with `updating` held.
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
        # What every call adds to: looked up once, for prometheus_client takes its time over it.
        self._spend_of = cache(self._spend.labels)
        self._reserve_of = cache(self._reserve.labels)
        for kind in ("unavailable", "error"):
            self._errors.labels(kind)
        self.all = (self._spend, self._refusals, self._reserve, self._errors, self._expired)

    def project(self, name: str) -> str:
        """The label for a project."""
        return self._projects.shown(name)

    def charged(self, project: str, model: str, nanos: int) -> None:
        """A charge is in the ledger."""
        self._spend_of(self.project(project), self._models.shown(model)).inc(usd_float(nanos))

    def refused(self, project: str, scope: str, reason: str, mode: str) -> None:
        """A call was refused or, in shadow mode, would have been."""
        self._refusals.labels(self.project(project), self._scopes.shown(scope), reason, mode).inc()

    def reserved(self, project: str, source: str, seconds: float) -> None:
        """A question for a hold was answered."""
        self._reserve_of(self.project(project), source).observe(seconds)

    def store_failed(self, kind: str) -> None:
        """The store left a question without an answer."""
        self._errors.labels(kind).inc()

    def expired(self, project: str, seen_by: str, holds: int) -> None:
        """Holds have expired."""
        self._expired.labels(self.project(project), seen_by).inc(holds)


def held_gauge(meaning: str) -> Gauge:
    """The gauge of what is held, in US dollars, which a process and a server each mean in their own way."""
    return gauge("held_usd", meaning, ("project", "use"))


def runs_out_gauge() -> Gauge:
    """The gauge of when a project's own budgets run out, which processes and servers show alike."""
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
    """A gauge. `together` is how prometheus_client puts those of several processes together, by its own names."""
    return Gauge(f"{_PREFIX}{name}", meaning, labels, registry=None, multiprocess_mode=together)


def register(registry: CollectorRegistry, collectors: Iterable[Collector]) -> None:
    """Show the collectors in `registry`, in their order. Raises ValueError, and shows none, if it has one of their names."""
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
