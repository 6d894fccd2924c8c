"""One project's ledger as one process uses it: what the callback and the manager share."""

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
"""How long charges are gathered where there are slices. Their slice holds the money until they are delivered."""
_PATIENCE = 8
"""How many times longer than a call everything else may wait for the store."""
DAYS_KEPT = 400
"""How many days the totals by day stay."""
_HOUR = 3600 * MICROS


class BudgetLedger:
    """One project's accounts on the store that the settings name.

    Ledgers of one process with the same URL share one store and one worker, `memory://` included. With `charging`, a key that
    can only read raises BudgetStoreError.
    """

    def __init__(
        self, settings: BudgetSettings, *, charging: bool = False, on_alert: Callable[[Alert], object] | None = None
    ) -> None:
        self.settings = settings
        self.project = settings.project
        self.policies = Policies(settings)
        self.hold_ttl = round(settings.hold_ttl * MICROS)
        self.patience = settings.store_timeout * _PATIENCE
        """How many seconds everything but a call may wait for the store."""
        self._key = store_key(settings.url)
        self.worker = acquire(self._key, self.patience, settings)
        self.client = self.worker.client
        try:
            self._check_key(charging)
        except BaseException:
            self.worker.release()
            raise
        kept = round(settings.retention * DAY)
        # A ledger in memory gets nothing from a journal or from another process.
        marks_kept = min(kept, _HOUR) if self._key.startswith("memory:") else kept
        self.worker.set_retention(self.project, marks_kept, DAYS_KEPT * DAY, kept)
        self.observing = self.client.observing
        self.observing.add(self.project, process_metrics() if settings.metrics else None, self.worker)
        self.refusal_listeners: list[Callable[[BudgetRefused], None]] = []
        """Called with each refusal before the caller of LiteLLM gets it."""
        self.reported = Recent()
        """The jobs whose reported cost was charged. A ledger in memory forgets them before providers stop reporting."""
        self.waiting_line = WaitingLine()
        """The calls that wait for money of calls in flight."""
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
        # prometheus_client makes a file for a family when it is first shown: not while somebody reads the directory.
        self.observing.refresh()
        if len(self.alerts.sender.channels) > 1:
            # Somebody waits for what an earlier process did not send.
            self.worker.ensure_running()

    def _check_key(self, charging: bool) -> None:
        """Stop the start if the key does not open this project. An endpoint that is away is tried again at every call."""
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
        """The limits of whole scopes that are set outside of the ledger, as commands carry them."""
        return self.policies.current().defaults

    @property
    def store(self) -> Store:
        """The store itself."""
        return self.client.store

    def principal(self, user: str, given: Given | None = None) -> Principal:
        """Whose budgets a call of `user` counts against, and by which limits: one policy, from its beginning to its end."""
        given = given or Given()
        # A budget of the project can be set at any time, by anybody.
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
        """The limits that count for a principal as the policy is now: a charge counts on accounts that others have made meanwhile."""
        policy = self.policies.current()
        if policy is principal.policy:
            return principal.defaults
        try:
            return policy.defaults_of(principal.subjects, principal.user_class, principal.limits)
        except BudgetInputError:
            # The class is gone. What was promised when the call began is charged all the same.
            return principal.defaults

    @contextmanager
    def one_call(self) -> Iterator[None]:
        """Within this context all commands to a networked store together wait for STORE_TIMEOUT at most."""
        token = _until.set(time.monotonic() + self.settings.store_timeout)
        try:
            yield
        finally:
            _until.reset(token)

    @property
    def seconds_left(self) -> float:
        """How long the call may still wait for a networked store; for a local one, how long each command may wait."""
        until = _until.get()
        # Threads that queue for a local file are served one after the other: that time does not count.
        if until is None or not self.store.remote:
            return self.settings.store_timeout
        return max(0.0, until - time.monotonic())

    def ask_in_call(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        """The store's reply within `seconds_left`, for a call that waits. Raises BudgetStoreUnavailable; at once while a networked
        store is known to be away.
        """
        seconds = self.seconds_left
        if not seconds:
            # The store is not asked, so this is not its failure.
            raise BudgetStoreUnavailable(f"the call has waited for the store for {self.settings.store_timeout:g} s")
        return self.client.ask(command, seconds, in_call=True)

    def reserve(self, command: Reserve) -> ReserveReply:
        """Hold for an attempt: from a slice with room, else like `ask_in_call`."""
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
        """Tell alerts that `account` has refused a call, or would have in shadow mode."""
        if self.alerts is not None:
            self.alerts.refused(account, defaults)

    def refused(self, scope: str, reason: str) -> None:
        """Tell metrics that a call was refused because of `scope` and `reason`, or would have been in shadow mode."""
        if self.observing.any:
            self.observing.refused(self.project, scope, reason, self.settings.mode)

    def tell_refusal(self, error: BudgetRefused) -> None:
        """Tell the listeners of a refusal that is about to be raised."""
        for listener in self.refusal_listeners:
            listener(error)

    @property
    def of_a_test(self) -> bool:
        """Whether this is the ledger of one test, which knows nothing of files and of other ledgers."""
        return self._key.startswith("memory://") and self._key != "memory://"

    def deliver(self, command: Settle | Release) -> None:
        """Apply the end of an attempt, at once or as soon as possible."""
        if self._slices is None or not self._slices.finish(command):
            self.worker.deliver(command, self.settings.store_timeout)

    def release_later(self, hold: str) -> None:
        """Release a hold in the background. It may never have been granted."""
        command = Release(hold, self.project)
        if self._slices is None or not self._slices.finish(command):
            self.worker.deliver_later(command)

    def track(self, hold: str, abandon: Callable[[], None], held: int) -> None:
        """An attempt that holds `held` nano-dollars goes on: renew its hold, and keep the store open until it is over."""
        sliced = self._slices is not None and self._slices.holds(hold)
        self.worker.track(hold, LiveHold(self.project, None if sliced else self.hold_ttl, abandon, held))

    def can_reclaim(self) -> bool:
        """Whether `reclaim` could free money."""
        return self.worker.can_reclaim() or (self._slices is not None and self._slices.any)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One thread at a time looks for room and takes a part of it, in the order of arrival: two at once would share all that is
        left. A thread that has waited for `seconds_left` enters beside the others.
        """
        if self._pid != os.getpid():
            # The thread that has the turn belongs to the parent.
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
        """Settle what waits and release what slices hold for `subjects`, within `seconds_left`, so that it does not refuse this
        process's own calls.
        """
        if self._slices is not None:
            self._slices.retire(subjects)
        self.worker.reclaim(self.seconds_left)

    def ask(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        """The store's reply. Raises BudgetStoreUnavailable after 8 times STORE_TIMEOUT."""
        self.worker.ensure_running()
        return self.client.ask(command, self.patience)

    def ask_settled(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        """Like `ask`, after what this process has charged and can deliver now."""
        self.worker.settle_waiting()
        return self.ask(command)

    def defaults_of(self, *subjects: Subject) -> tuple[Default, ...]:
        """The limits of whole scopes and of these subjects that are set outside of the ledger, as they are at this moment."""
        return self.policies.look().defaults_of(subjects)

    @property
    def timezone(self) -> str:
        """Where calendar windows that name no zone begin and end."""
        return self.settings.timezone

    new_id = staticmethod(new_id)

    def flush(self) -> None:
        """Return when every charge known to this process is in the ledger and would survive a power cut."""
        self.worker.flush()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Settle what waits and release the store. May be called twice."""
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
