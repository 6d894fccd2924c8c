"""The metrics of a server that answers commands: the same families, computed only from the commands and their replies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, multiprocess, values
from prometheus_client.exposition import choose_encoder

from litellm_budget_plugin.core.commands import (
    MICROS,
    Command,
    Granted,
    Refused,
    Release,
    Renew,
    Renewed,
    Reply,
    Reserve,
    Settle,
    Settled,
    Sweep,
    Swept,
    is_claim,
)
from litellm_budget_plugin.core.money import usd_float
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.metrics.families import Families, gauge, held_gauge, register, runs_out_gauge, updating
from litellm_budget_plugin.metrics.recent import Recent

_HELD = (
    "US dollars that this server has granted since it started and that were not settled or released and have not expired since. "
    "Reliable with one worker only: with several, each sees only some of the ends."
)
_KINDS = ("unavailable", "error")


class ServerMetrics:
    """The metrics of the commands that a server answers. Any thread may call it.

    A single worker shows everything. Several workers must share a directory that is empty at their start. PROMETHEUS_MULTIPROC_DIR
    must name it before they start, as prometheus_client requires. Then each worker shows the metrics of all, but not the held money,
    which no worker knows. Without that variable each of several workers shows only its own metrics.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._families = Families()
        self._runs_out = runs_out_gauge()
        register(self._registry, (*self._families.all, self._runs_out))
        self._several = bool(getattr(values.ValueClass, "_multiprocess", False))
        self._charges = Recent()
        self._holds = None if self._several else _Holds(self._registry)

    def observe_reply(self, command: Command, reply: Reply, seconds: float) -> None:
        """Count a command that was answered after `seconds`. A patient Reserve that will be asked again is not a refusal."""
        with updating:
            self._count(command, reply, seconds)

    def _count(self, command: Command, reply: Reply, seconds: float) -> None:
        if is_claim(command):
            return
        families, new = self._families, True
        if isinstance(command, Reserve):
            families.reserved(command.project, "store", seconds)
            if isinstance(reply, Refused) and not (command.patient and reply.reason == "held"):
                families.refused(command.project, reply.account.scope, reply.reason, "unknown")
        elif isinstance(command, Settle) and isinstance(reply, Settled):
            # A client that did not get the reply sends the charge again.
            new = self._charges.is_new(command.hold)
            if new:
                families.charged(command.project, command.model, command.cost)
        elif isinstance(command, Sweep) and isinstance(reply, Swept) and reply.expired:
            families.expired(command.project, "sweep", reply.expired)
        if self._holds is not None and new:
            gone = self._holds.apply(command, reply)
            if gone:
                families.expired(command.project, "renewal", gone)

    def observe_error(self, kind: Literal["unavailable", "error"]) -> None:
        """Count that the server's store did not answer in time (unavailable), or cannot serve (error)."""
        if kind not in _KINDS:
            raise BudgetInputError(f"the kind of a store's error must be one of {', '.join(_KINDS)}, got {kind!r}")
        with updating:
            self._families.store_failed(kind)

    def show_run_out(self, project: str, seconds: float) -> None:
        """Show when the project's own budgets run out, in seconds since 1970; infinity if they do not."""
        with updating:
            self._runs_out.labels(self._families.project(project)).set(seconds)

    def exposition(self, accept_header: str | None = None) -> tuple[bytes, str]:
        """Return the metrics and their content type, in the format that the scraper's Accept header asks for."""
        encode, content_type = choose_encoder(accept_header or "")
        registry = self._registry
        if self._several:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no annotations
        elif self._holds is not None:
            with updating:
                self._holds.show(self._families)
        return encode(registry), content_type


@dataclass(slots=True)
class _Hold:
    project: str
    nanos: int
    until: float


class _Holds:
    """The open holds that this server has granted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._open: dict[str, _Hold] = {}
        self._held = held_gauge(_HELD)
        self._count = gauge("open_holds", "Holds that make up held_usd.", ("project",))
        register(registry, (self._held, self._count))
        self._labels: set[str] = set()

    def apply(self, command: Command, reply: Reply) -> int:
        """Update the holds from a command and its reply. Returns how many of these holds a renewal has found expired."""
        if isinstance(command, Reserve) and isinstance(reply, Granted):
            if command.replaces:
                self._open.pop(command.replaces, None)
            until = time.monotonic() + command.expires_after / MICROS
            self._open[command.hold] = _Hold(command.project, reply.amounts.usd, until)
        elif isinstance(command, (Settle, Release)):
            ended = self._open.pop(command.hold, None)
            if ended is None and isinstance(command, Settle) and isinstance(reply, Settled):
                self._draw(command)
        elif isinstance(command, Renew) and isinstance(reply, Renewed):
            until = time.monotonic() + command.expires_after / MICROS
            for id_ in command.holds:
                if id_ in self._open:
                    self._open[id_].until = max(until, self._open[id_].until)
            return sum(self._open.pop(id_, None) is not None for id_ in reply.missing)
        elif isinstance(command, Sweep):
            # Clients send a Sweep regularly, so expired holds are forgotten even if nobody reads the metrics.
            self._forget_expired()
        return 0

    def _forget_expired(self) -> None:
        now = time.monotonic()
        self._open = {id_: hold for id_, hold in self._open.items() if hold.until > now}

    def _draw(self, command: Settle) -> None:
        parent = self._open.get(command.parent or "")
        if parent is not None:
            parent.nanos -= min(command.cost, parent.nanos)

    def show(self, families: Families) -> None:
        """Set the gauges to the holds that are open now."""
        self._forget_expired()
        held: dict[str, int] = dict.fromkeys(self._labels, 0)
        count = dict.fromkeys(self._labels, 0)
        for hold in self._open.values():
            label = families.project(hold.project)
            held[label] = held.get(label, 0) + hold.nanos
            count[label] = count.get(label, 0) + 1
        self._labels.update(held)
        for label, nanos in held.items():
            self._held.labels(label, "calls").set(usd_float(nanos))
            self._count.labels(label).set(count[label])
