"""The sender of alerts. It uses its own thread, so that no call waits for a receiver."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from litellm_budget_plugin.errors import BudgetError, BudgetStoreError
from litellm_budget_plugin.manager.alerts.alert import Alert
from litellm_budget_plugin.manager.alerts.channels import Channel, NotSent
from litellm_budget_plugin.manager.alerts.claims import Claim, Claims
from litellm_budget_plugin.manager.alerts.formats import readable

_logger = logging.getLogger("litellm_budget_plugin")
MOST_WAITING = 1000
"""How many alerts may wait in one process; each channel counts separately."""
_SEND_SECONDS = 10.0
_TRIES = 5
_PAUSE, _MOST_PAUSE = 1.0, 600.0
_IDLE_SECONDS = 60.0


@dataclass
class _Sending:
    """An alert that is being sent through one channel."""

    alert: Alert
    channel: Channel
    at: float
    claim: Claim | None = None
    claimed_at: float = 0.0
    tries: int = 0

    @property
    def name(self) -> str:
        return f"{self.alert.id} {self.channel.name}"


class _Failing(NamedTuple):
    """The state of a failing channel: its failures in a row, and the time until which nothing is sent to it."""

    times: int = 0
    until: float = 0.0


_FINE = _Failing()


class Sender:
    """A sender of each alert through each channel. If a channel fails, the alert is tried again there, and then left to a later scan. The
    other channels do not send it again. `clock` is in seconds, like time.monotonic.
    """

    def __init__(
        self, claims: Claims, channels: Sequence[Channel], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.claims = claims
        self.channels = channels
        self._clock = clock
        self._dice = random.Random()  # noqa: S311  # not a secret
        self.reset()

    def reset(self) -> None:
        """Start empty. Called at the start, and in a forked child, where the waiting alerts belong to the parent."""
        self._waiting: dict[str, _Sending] = {}
        self._over: set[str] = set()
        self._failing: dict[str, _Failing] = {}
        self._lock, self._stepping = threading.Lock(), threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = self._said_full = False

    @property
    def waiting(self) -> int:
        """The number of waiting alerts; each channel counts separately."""
        return len(self._waiting)

    def put(self, alert: Alert) -> None:
        """Send an alert in the background, unless it was sent before."""
        now, added = self._clock(), False
        for channel in self.channels:
            sending = _Sending(alert, channel, now)
            with self._lock:
                if self._closed or sending.name in self._over or sending.name in self._waiting:
                    continue
                failing = self._failing.get(channel.name, _FINE)
                if alert.claimed and failing.times >= _TRIES and now < failing.until:
                    continue
                if len(self._waiting) >= MOST_WAITING:
                    if self._said_full:
                        break
                    self._said_full = True
                    _logger.warning(
                        "%d alerts are waiting to be sent: further ones are left to a later scan", MOST_WAITING
                    )
                    break
                self._waiting[sending.name] = sending
                added = True
        if added:
            self._wake.set()
        if self._waiting:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            thread = threading.Thread(target=self._run, name="litellm-budget-alerts", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # a limit of threads is reached, or the interpreter ends
                _logger.warning("alerts cannot be sent in the background now: %s", error)
                return
            self._thread = thread

    def _run(self) -> None:
        while not self._closed:
            self._wake.clear()
            try:
                with self._stepping:
                    wait = self._step(_SEND_SECONDS)
            except BaseException:
                # Without this thread the waiting alerts would wait for ever.
                _logger.exception("sending alerts failed; it is tried again in %.0f s", _IDLE_SECONDS)
                wait = _IDLE_SECONDS
            self._wake.wait(wait)

    def flush(self, seconds: float) -> None:
        """Try once, within about `seconds`, to send each waiting alert."""
        until = time.monotonic() + seconds
        if self._stepping.acquire(timeout=seconds):
            try:
                for sending in list(self._waiting.values()):
                    left = until - time.monotonic()
                    if left > 0:
                        self._try(sending, min(_SEND_SECONDS, left))
            finally:
                self._stepping.release()

    def close(self, seconds: float) -> None:
        """Flush, give back the claims of alerts that still wait, and stop sending."""
        if self._closed:
            return
        self.flush(seconds)
        with self._lock:
            self._closed = True
            waiting = list(self._waiting.values())
            self._waiting.clear()
        self._wake.set()
        for sending in waiting:
            self._give_back(sending)
        if waiting:
            _logger.warning(
                "%d alerts were not sent before this process ended; another process sends those about budgets",
                len(waiting),
            )

    def _step(self, seconds: float) -> float:
        """Try to send every alert that is due. Returns the seconds until the next one is due."""
        for sending in list(self._waiting.values()):
            if self._closed:
                break
            if self._due(sending) <= self._clock():
                self._try(sending, seconds)
        soonest = min(map(self._due, list(self._waiting.values())), default=None)
        return _IDLE_SECONDS if soonest is None else min(_IDLE_SECONDS, max(0.0, soonest - self._clock()))

    def _due(self, sending: _Sending) -> float:
        return max(sending.at, self._failing.get(sending.channel.name, _FINE).until)

    def _try(self, sending: _Sending, seconds: float) -> None:
        try:
            if sending.alert.claimed and not self._hold(sending):
                return
            sending.channel.send(sending.alert, seconds)
        except NotSent as error:
            self._failed(sending, error)
        except BudgetError as error:
            _logger.info("an alert is waiting for the ledger: %s", error)
            sending.at = self._clock() + self.claims.lease / 4
        except BaseException as error:
            _logger.exception("an alert cannot be sent through %s", sending.channel.label)
            self._failed(sending, NotSent("it failed", final=True))
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # the user interrupts the program while it closes
        else:
            # Settle the claim first. If the process is killed before that, the alert is sent once more.
            try:
                if sending.claim is not None:
                    self.claims.done(sending.claim)
            finally:
                self._failing.pop(sending.channel.name, None)
                self._end(sending)

    def _hold(self, sending: _Sending) -> bool:
        """Claim an alert, and return whether this process must send it. Raises BudgetStoreError."""
        now = self._clock()
        if (
            sending.claim is not None
            and now - sending.claimed_at < self.claims.lease
            and self.claims.renew(sending.claim)
        ):
            sending.claimed_at = now
            return True
        sending.claim = None
        found = self.claims.take(sending.name)
        if found is False:
            self._end(sending)
            return False
        if found is None:
            # Try again later: the process that sends it now may be killed.
            sending.at = now + self.claims.lease / 4
            return False
        sending.claim, sending.claimed_at = found, now
        return True

    def _failed(self, sending: _Sending, error: NotSent) -> None:
        sending.tries += 1
        label, now = sending.channel.label, self._clock()
        times = self._failing.get(sending.channel.name, _FINE).times + 1
        pause = min(_MOST_PAUSE, _PAUSE * 2 ** min(times - 1, 20)) * self._dice.uniform(0.5, 1.0)
        pause = max(pause, error.retry_after)
        self._failing[sending.channel.name] = _Failing(times, now + pause)
        if sending.tries < _TRIES and not error.final:
            _logger.info("%s: %s; the alert is sent again in %.0f s", label, error, pause)
            if pause >= self.claims.lease:
                self._give_back(sending)
            return
        again = "it will be tried again later" if sending.alert.claimed else "it will not be sent"
        _logger.error("%s: %s; an alert was not sent, %s: %s", label, error, again, readable(sending.alert.text))
        self._give_back(sending)
        with self._lock:
            self._waiting.pop(sending.name, None)

    def _give_back(self, sending: _Sending) -> None:
        claim, sending.claim = sending.claim, None
        if claim is not None:
            try:
                self.claims.give_back(claim)
            except BudgetStoreError as error:
                _logger.info("a claim could not be given back and will expire: %s", error)

    def _end(self, sending: _Sending) -> None:
        with self._lock:
            self._waiting.pop(sending.name, None)
            if len(self._over) > 10 * MOST_WAITING:
                self._over.clear()
            self._over.add(sending.name)
            self._said_full = self._said_full and bool(self._waiting)
