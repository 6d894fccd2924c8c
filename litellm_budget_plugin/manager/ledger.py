"""One project's ledger in one process; the callback and the manager share it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from litellm_budget_plugin.core.accounts import Default, Ref, Subject
from litellm_budget_plugin.core.commands import (
    MICROS,
    BaseCommand,
    Closed,
    Granted,
    Read,
    Release,
    ReplyT_co,
    Reserve,
    ReserveReply,
    Settle,
)
from litellm_budget_plugin.core.money import charge_nanos
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.sentences import Limit, parse_limits
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError, BudgetRefused, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.manager.alerts.alert import Alert
from litellm_budget_plugin.manager.alerts.watch import AlertWatch
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.live_holds import LiveHold
from litellm_budget_plugin.manager.policies import Policies
from litellm_budget_plugin.manager.principal import Given, Principal
from litellm_budget_plugin.manager.sharing import acquire, store_key
from litellm_budget_plugin.manager.slice_keeper import SliceKeeper
from litellm_budget_plugin.manager.waiting_line import WaitingLine
from litellm_budget_plugin.metrics import process_metrics
from litellm_budget_plugin.metrics.recent import Recent
from litellm_budget_plugin.policy import smaller
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.http.store import HttpStore
from litellm_budget_plugin.stores.lazy import LazyStore
from litellm_budget_plugin.stores.net.places import NoPlace, Places
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import masked

_logger = logging.getLogger("litellm_budget_plugin")
_until: ContextVar[float | None] = ContextVar("litellm_budget_until", default=None)
_GATHER_SECONDS = 0.25
"""How long charges are gathered if there are slices. Their slice holds the money until they are delivered."""
_PATIENCE = 8
"""How many times longer than a call all other operations may wait for the store."""
DAYS_KEPT = 400
"""How many days the totals by day are kept."""
_HOUR = 3600 * MICROS


class BudgetLedger:
    """One project's accounts on the store that the settings name.

    Ledgers of one process with the same URL share one store and one worker, `memory://` included. With `charging`, a read-only key
    raises BudgetStoreError.
    """

    def __init__(
        self, settings: BudgetSettings, *, charging: bool = False, on_alert: Callable[[Alert], object] | None = None
    ) -> None:
        self.settings = settings
        self.project = settings.project
        self.policies = Policies(settings)
        self.hold_ttl = round(settings.hold_ttl * MICROS)
        self.patience = settings.store_timeout * _PATIENCE
        """How many seconds an operation outside a call may wait for the store."""
        self._key = store_key(settings.url)
        self.worker = acquire(self._key, self.patience, settings)
        self.client = self.worker.client
        try:
            self._check_key(charging)
        except BaseException:
            self.worker.release()
            raise
        kept = round(settings.retention * DAY)
        # A ledger in memory gets no charges from a journal or from another process.
        marks_kept = min(kept, _HOUR) if self._key.startswith("memory:") else kept
        self.worker.set_retention(self.project, marks_kept, DAYS_KEPT * DAY, kept)
        self.observing = self.client.observing
        self.observing.add(self.project, process_metrics() if settings.metrics else None, self.worker)
        self.refusal_listeners: list[Callable[[BudgetRefused], None]] = []
        """Functions that are called with each refusal before LiteLLM's caller gets it."""
        self.reported = Recent()
        """The jobs whose reported cost was charged. A ledger in memory forgets them sooner than providers stop reporting them."""
        self.waiting_line = WaitingLine()
        """The calls that wait for money that calls in flight hold."""
        self._slices: SliceKeeper | None = None
        if settings.slice and self.store.remote:
            self._slices = SliceKeeper(self, charge_nanos(settings.slice))
            self.worker.add_task(self._slices)
            self.worker.gather_seconds = _GATHER_SECONDS
        elif settings.slice:
            _logger.warning("LITELLM_BUDGET_SLICE has no effect: this ledger is on this machine and is asked directly")
        self.alerts: AlertWatch | None = None
        if settings.alert_per_cents is not None and charging and settings.mode != "off":
            self._watch(on_alert)
        self._pid, self._turns = os.getpid(), Places(1)
        self._closed = False

    def _watch(self, on_alert: Callable[[Alert], object] | None) -> None:
        self.alerts = AlertWatch(self.settings, self.policies, self.worker, self.patience, on_alert)
        self.worker.add_task(self.alerts)
        self.client.watched.append(self.alerts)
        # prometheus_client creates a family's file when the family is first shown. That must not happen while the directory is read.
        self.observing.refresh()
        if len(self.alerts.sender.channels) > 1:
            # Alerts that an earlier process did not send must be sent soon.
            self.worker.ensure_running()

    def _check_key(self, charging: bool) -> None:
        """Stop the start if the key does not open this project. An unreachable endpoint is tried again at every call."""
        if self._key.startswith(("http:", "https:")) and not isinstance(self.store, LazyStore):
            try:
                self.client.ask(Read(self.project, "user", ""), self.patience)
            except BudgetStoreUnavailable as error:
                _logger.error("the store does not answer at the start, and is tried again: %s", error)
            if charging and isinstance(self.store, HttpStore) and self.store.read_only:
                raise BudgetStoreError(
                    f"{masked(self._key)}: the key is read-only, and calls must be charged; give a key that may write "
                    "(LITELLM_BUDGET_API_KEY)"
                )

    @property
    def defaults(self) -> tuple[Default, ...]:
        """The limits of whole scopes that are set outside the ledger, in the form that commands carry."""
        return self.policies.current().defaults

    @property
    def store(self) -> Store:
        """The store itself."""
        return self.client.store

    def principal(self, user: str, given: Given | None = None) -> Principal:
        """Return the subjects whose budgets a call of `user` counts against, with their limits. One policy applies to the whole call."""
        given = given or Given()
        # Always included: another process can set a budget of the project at any time.
        named = [Subject("user", checked_id(user, "user")), Subject("project", self.project)]
        if given.team is not None:
            named.append(Subject("team", given.team))
        named += [Subject("tag", tag) for tag in given.tags]
        named += [Subject("run", run) for run in given.runs]
        policy = self.policies.current()
        limits: dict[Subject, tuple[Limit, ...]] = {}
        for subject, texts in given.limits:
            limits[subject] = smaller(limits.get(subject, ()), parse_limits(texts, self.settings.timezone))
        defaults = policy.defaults_of(named, given.user_class, limits)
        return Principal(tuple(named), defaults, policy, given.user_class, limits)

    def defaults_now(self, principal: Principal) -> tuple[Default, ...]:
        """Return the limits that count for a principal by the present policy. A charge also counts on accounts that other processes have
        created meanwhile.
        """
        policy = self.policies.current()
        if policy is principal.policy:
            return principal.defaults
        try:
            return policy.defaults_of(principal.subjects, principal.user_class, principal.limits)
        except BudgetInputError:
            # The class no longer exists. The call is charged by the limits that counted when it began.
            return principal.defaults

    @contextmanager
    def one_call(self) -> Iterator[None]:
        """Limit the total wait of all commands to a networked store within this context to STORE_TIMEOUT."""
        token = _until.set(time.monotonic() + self.settings.store_timeout)
        try:
            yield
        finally:
            _until.reset(token)

    @property
    def seconds_left(self) -> float:
        """The seconds that the call may still wait for a networked store; for a local store, the seconds that each command may wait."""
        until = _until.get()
        # Threads queue for a local file and are served one after the other; that time does not count.
        if until is None or not self.store.remote:
            return self.settings.store_timeout
        return max(0.0, until - time.monotonic())

    def ask_in_call(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        """Return the store's reply within `seconds_left`, for a waiting call. Raises BudgetStoreUnavailable, at once while a networked store
        is known to be unreachable.
        """
        seconds = self.seconds_left
        if not seconds:
            # The store is not asked, so this is not its failure.
            raise BudgetStoreUnavailable(f"the call has waited for the store for {self.settings.store_timeout:g} s")
        return self.client.ask(command, seconds, in_call=True)

    def reserve(self, command: Reserve) -> ReserveReply:
        """Hold money for an attempt: from a slice that has enough, else from the store, like `ask_in_call`."""
        slices, begun = self._slices, time.perf_counter()
        sliced = None if slices is None else slices.reserve(command)
        if slices is not None and slices.wanted:
            self.worker.wake()
        reply = sliced or self.ask_in_call(command)
        if self.observing.any:
            self.observing.reserved(self.project, "slice" if sliced else "store", time.perf_counter() - begun)
        if command.replaces and sliced:
            self.release_later(command.replaces)
        elif command.replaces and slices is not None and isinstance(reply, (Granted, Closed)):
            slices.finish(Release(command.replaces, self.project))
        return reply

    def refused_by(self, account: Ref, defaults: tuple[Default, ...]) -> None:
        """Report to alerts that `account` has refused a call, or would have in shadow mode."""
        if self.alerts is not None:
            self.alerts.refused(account, defaults)

    def refused(self, scope: str, reason: str) -> None:
        """Report to metrics that a call was refused because of `scope` and `reason`, or would have been in shadow mode."""
        if self.observing.any:
            self.observing.refused(self.project, scope, reason, self.settings.mode)

    def tell_refusal(self, error: BudgetRefused) -> None:
        """Pass a refusal that will be raised to the listeners."""
        for listener in self.refusal_listeners:
            listener(error)

    @property
    def of_a_test(self) -> bool:
        """Whether this is the ledger of a single test, which uses no files and shares no other ledger."""
        return self._key.startswith("memory://") and self._key != "memory://"

    def deliver(self, command: Settle | Release) -> None:
        """Settle or release an attempt's hold, at once or as soon as possible."""
        if self._slices is None or not self._slices.finish(command):
            self.worker.deliver(command, self.settings.store_timeout)

    def release_later(self, hold: str) -> None:
        """Release a hold in the background, whether or not it was granted."""
        command = Release(hold, self.project)
        if self._slices is None or not self._slices.finish(command):
            self.worker.deliver_later(command)

    def track(self, hold: str, abandon: Callable[[], None], held: int) -> None:
        """Renew the hold of an attempt, which holds `held` nano-dollars, and keep the store open until the attempt ends."""
        sliced = self._slices is not None and self._slices.holds(hold)
        self.worker.track(hold, LiveHold(self.project, None if sliced else self.hold_ttl, abandon, held))

    def can_reclaim(self) -> bool:
        """Whether `reclaim` may free money."""
        return self.worker.can_reclaim() or (self._slices is not None and self._slices.any)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let one thread at a time check how much is left and take a part of it, in the order of arrival. Two at once would both count on
        all that is left. A thread that has waited for `seconds_left` enters without a turn.
        """
        if self._pid != os.getpid():
            # In a forked child: the thread that has the turn belongs to the parent.
            self._pid, self._turns = os.getpid(), Places(1)
        turns = self._turns
        try:
            place = turns.enter(time.monotonic() + self.seconds_left)
        except NoPlace:
            yield
            return
        try:
            yield
        finally:
            turns.leave(place)

    def reclaim(self, subjects: Iterable[Subject]) -> None:
        """Settle waiting charges and release the slices of `subjects`, within `seconds_left`, so that this money does not cause a refusal
        of this process's own calls.
        """
        if self._slices is not None:
            self._slices.retire(subjects)
        self.worker.reclaim(self.seconds_left)

    def ask(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        """Return the store's reply. Raises BudgetStoreUnavailable after 8 times STORE_TIMEOUT."""
        self.worker.ensure_running()
        return self.client.ask(command, self.patience)

    def ask_settled(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        """Like `ask`, but first settle and deliver this process's waiting charges."""
        self.worker.settle_waiting()
        return self.ask(command)

    def defaults_of(self, *subjects: Subject) -> tuple[Default, ...]:
        """Return the limits of whole scopes and of these subjects that are set outside the ledger, as they are at this moment."""
        return self.policies.look().defaults_of(subjects)

    @property
    def timezone(self) -> str:
        """The time zone of calendar windows that name none."""
        return self.settings.timezone

    new_id = staticmethod(new_id)

    def flush(self) -> None:
        """Deliver every charge known to this process to the ledger, and sync, so that it survives a power cut. Raises BudgetStoreError."""
        self.worker.flush()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Settle waiting charges and release the store. May be called twice."""
        if not self._closed:
            self._closed = True
            self.waiting_line.wake_all()
            if self._slices is not None:
                self._slices.retire()
            if self.alerts is not None:
                self._stop_watching(self.alerts)
            self.observing.forget(self.project)
            self.worker.release()

    def _stop_watching(self, alerts: AlertWatch) -> None:
        alerts.retire()
        self.client.watched = [each for each in self.client.watched if each is not alerts]
        self.worker.remove_task(alerts)
