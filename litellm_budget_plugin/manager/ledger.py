"""One project's ledger as one process uses it: what the callback and the manager share."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import MICROS, Closed, Command, Granted, Read, Release, Reply, Reserve, Settle
from litellm_budget_plugin.core.money import charge_nanos
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.manager.policies import Given, Policies, Principal
from litellm_budget_plugin.manager.settler import LiveHold
from litellm_budget_plugin.manager.sharing import acquire, let_go, store_key
from litellm_budget_plugin.manager.slices import Slices
from litellm_budget_plugin.metrics import process_metrics
from litellm_budget_plugin.metrics.recent import Recent
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.http.store import HttpStore
from litellm_budget_plugin.stores.net.places import NoPlace, Places
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import masked
from litellm_budget_plugin.stores.reopening import Reopening

_logger = logging.getLogger("litellm_budget_plugin")
_until: ContextVar[float | None] = ContextVar("litellm_budget_until", default=None)
_LOOK_SECONDS = 1.0
"""How often slices are looked after: so long may a budget that was blocked or is short still be spent from one."""
_GATHER_SECONDS = 0.25
"""How long charges are gathered where there are slices: until they are delivered, their slice still holds the money."""
_PATIENCE = 8
"""How many times longer than a call everything else may wait for the store."""
_DAYS_KEPT = 400
_HOUR = 3600 * MICROS


class BudgetLedger:
    """One project's accounts on the store that the settings name.

    Ledgers of one process that name the same URL share one store and one settler, `memory://` included. With `charging`, a key
    that only reads is refused: BudgetStoreError.
    """

    def __init__(self, settings: BudgetSettings, *, charging: bool = False) -> None:
        self.settings = settings
        self.project = settings.project
        self.policies = Policies(settings)
        self.hold_ttl = round(settings.hold_ttl * MICROS)
        self._patience = settings.store_timeout * _PATIENCE
        self._key = store_key(settings.url)
        self._way, self.settler = acquire(self._key, self._patience, settings)
        self.client = self.settler.client
        try:
            self._greet(charging)
        except BaseException:
            let_go(self._way)
            raise
        kept = round(settings.retention * DAY)
        # In memory nothing comes back from a journal, nor from another process.
        self.settler.keep(self.project, min(kept, _HOUR) if self._key == "memory://" else kept, _DAYS_KEPT * DAY)
        self.observing = self.client.observing
        self.observing.add(self.project, process_metrics() if settings.metrics else None, self.settler)
        self.reported = Recent()
        """What was charged by a report of its cost: a ledger in memory forgets that sooner than providers report it again."""
        self._slices: Slices | None = None
        if settings.slice and self.store.remote:
            size = charge_nanos(settings.slice)
            self._slices = Slices(self.project, size, self.hold_ttl, self.defaults, new_id, self.settler.deliver_later)
            self.settler.attend(self)
            self.settler.gather = _GATHER_SECONDS
        elif settings.slice:
            _logger.warning("LITELLM_BUDGET_SLICE has no effect: this ledger is on this machine and answers by itself")
        self._look_at = 0.0
        self._pid, self._turns = os.getpid(), Places(1)
        self._closed = False

    def _greet(self, charging: bool) -> None:
        """A key that does not open this project must stop the start. An endpoint that is away is tried again at every call."""
        if self._key.startswith(("http:", "https:")) and not isinstance(self.store, Reopening):
            try:
                self.client.ask(Read(self.project, "user", ""), self._patience)
            except BudgetStoreUnavailable as error:
                _logger.error("the store does not answer at the start, and is tried again: %s", error)
            if charging and isinstance(self.store, HttpStore) and self.store.read_only:
                raise BudgetStoreError(
                    f"{masked(self._key)}: the key is read-only, and calls have to be charged; give one that writes "
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
        limits = {subject: parse_limits(texts, self.settings.timezone) for subject, texts in given.limits}
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

    def one_call(self) -> AbstractContextManager[None]:
        """All that is asked of a networked store inside of this waits for STORE_TIMEOUT at most, taken together."""
        return self._until_timeout() if self.store.remote else nullcontext()

    @contextmanager
    def _until_timeout(self) -> Iterator[None]:
        token = _until.set(time.monotonic() + self.settings.store_timeout)
        try:
            yield
        finally:
            _until.reset(token)

    @property
    def seconds_left(self) -> float:
        """How long the call may still wait for a networked store; for a local one, how long each question may."""
        until = _until.get()
        # Threads that queue for a local file are being served one after the other: that time does not count.
        if until is None or not self.store.remote:
            return self.settings.store_timeout
        return max(0.0, until - time.monotonic())

    def ask_in_call(self, command: Command) -> Reply:
        """Have the store answer in the `seconds_left`, for a call that waits. Raises BudgetStoreUnavailable, and at once while
        a networked store is known to be away.
        """
        seconds = self.seconds_left
        if not seconds:
            # Not the store's failure: it is not asked.
            raise BudgetStoreUnavailable(f"the call has waited for the store for {self.settings.store_timeout:g} s")
        return self.client.ask(command, seconds, in_call=True)

    def reserve(self, command: Reserve) -> Reply:
        """Hold for an attempt, from a slice if there is one with room, else like `ask_in_call`."""
        slices = self._slices
        if slices is None:
            return self._ask_for_hold(command)
        begun = time.perf_counter()
        reply: Reply | None = slices.reserve(command)
        if reply is not None and self.observing.any:
            self.observing.reserved(self.project, "slice", time.perf_counter() - begun)
        if slices.wanted:
            self.settler.hurry()
        if reply is None:
            reply = self._ask_for_hold(command)
            if command.replaces and isinstance(reply, (Granted, Closed)):
                slices.ended(Release(command.replaces, self.project))
        elif command.replaces:
            self.release_later(command.replaces)
        return reply

    def _ask_for_hold(self, command: Reserve) -> Reply:
        begun = time.perf_counter()
        reply = self.ask_in_call(command)
        if self.observing.any:
            self.observing.reserved(self.project, "store", time.perf_counter() - begun)
        return reply

    def refused(self, scope: str, reason: str) -> None:
        """A call was refused by what `scope` and `reason` say, or would have been in shadow mode: for metrics."""
        if self.observing.any:
            self.observing.refused(self.project, scope, reason, self.settings.mode)

    def deliver(self, command: Settle | Release) -> None:
        """Have the end of an attempt in the ledger, at once or as soon as it can be."""
        if self._slices is None or not self._slices.ended(command):
            self.settler.deliver(command, self.settings.store_timeout)

    def release_later(self, hold: str) -> None:
        """Give a hold back that may never have been granted, without waiting."""
        command = Release(hold, self.project)
        if self._slices is None or not self._slices.ended(command):
            self.settler.deliver_later(command)

    def track(self, hold: str, abandon: Callable[[], None], held: int) -> None:
        """An attempt goes on, and holds `held` nano-dollars: renew its hold, and keep the ledger open until it is over."""
        sliced = self._slices is not None and self._slices.holds(hold)
        self.settler.track(hold, LiveHold(self.project, None if sliced else self.hold_ttl, abandon, held))

    def begin(self) -> None:
        """In a forked child: the slices are the parent's."""
        if self._slices is not None:
            self._slices.begin()

    def attend(self) -> None:
        """Take the slices that calls have wanted, and look after those that there are. For the settler's thread."""
        slices, now = self._slices, time.monotonic()
        if slices is None:
            return
        slices.take(lambda command: self.client.ask(command, self._patience))
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            slices.look(lambda commands: self.client.ask_all(commands, self._patience))

    def ahead(self) -> tuple[str, int]:
        """The project, and the nano-dollars that its slices hold and no call uses."""
        return self.project, 0 if self._slices is None else self._slices.ahead

    def end(self) -> None:
        """Give back what is held ahead and no call uses."""
        if self._slices is not None:
            self._slices.retire()

    def may_free(self) -> bool:
        """Whether `free` could give money back."""
        return self.settler.may_free() or (self._slices is not None and self._slices.any)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """What looks for room and then takes a part of it does so one thread after the other, in the order in which they came:
        two that look at once would share all that is left. After the `seconds_left` it goes on beside the others.
        """
        if self._pid != os.getpid():
            # The thread whose turn it was is the parent's.
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

    def free(self, subjects: Iterable[Subject]) -> None:
        """Settle what this process has yet to settle and give back what it holds ahead for `subjects`, in the `seconds_left`:
        that must not refuse this process's own calls.
        """
        if self._slices is not None:
            self._slices.retire(subjects)
        self.settler.free(self.seconds_left)

    def ask(self, command: Command) -> Reply:
        """Have the store answer; raises BudgetStoreUnavailable after 8 times STORE_TIMEOUT."""
        self.settler.keep_synced()
        return self.client.ask(command, self._patience)

    def ask_settled(self, command: Command) -> Reply:
        """Like `ask`, after what this process has charged and can deliver now."""
        self.settler.settle_waiting()
        return self.ask(command)

    def defaults_of(self, *subjects: Subject) -> tuple[Default, ...]:
        """The limits of whole scopes and of these subjects that are set outside of the ledger, as they are at this moment."""
        return self.policies.look().defaults_of(subjects)

    @property
    def timezone(self) -> str:
        """Where calendar windows that name no zone begin and end."""
        return self.settings.timezone

    def new_id(self) -> str:
        """An id for a command."""
        return new_id()

    def flush(self) -> None:
        """Return when every charge known to this process is in the ledger and would survive a power cut."""
        self.settler.flush()

    def close(self) -> None:
        """Settle what waits and let go of the store. May be called twice."""
        if not self._closed:
            self._closed = True
            self.end()
            self.observing.forget(self.project)
            let_go(self._way)


# Not the module's own generator, which an application may seed: two processes would make the same ids.
_ids = random.Random()  # noqa: S311  # ids must differ, and need not be secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)


def new_id() -> str:
    """An id for a command: unique, and growing with time, so that the rows of recent calls lie side by side."""
    return f"{time.time_ns() // 1_000_000:011x}{_ids.getrandbits(80):020x}"
