"""The search for due alerts: on accounts that this process's calls have touched and, by a scan that one process does for all, on all
accounts.

It needs no memory that could be lost: an alert is due while its account is over a threshold and its claim is not settled.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from itertools import groupby

from litellm_budget_plugin.core.accounts import CLAIMS, SCOPES, Default, Ref, Subject
from litellm_budget_plugin.core.applying import defaults_for, limits_on
from litellm_budget_plugin.core.commands import (
    MICROS,
    Accounts,
    AccountState,
    BaseCommand,
    Command,
    Read,
    ReadUsage,
    ReplyT_co,
    Reserve,
    Settle,
    UsageRows,
)
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetError, BudgetStoreError
from litellm_budget_plugin.manager.alerts.alert import (
    Alert,
    crossed,
    forecast_alert,
    may_cross,
    plain_alert,
    refused_alert,
    threshold_alert,
    window_end,
)
from litellm_budget_plugin.manager.alerts.channels import channels_of
from litellm_budget_plugin.manager.alerts.claims import Claim, Claims
from litellm_budget_plugin.manager.alerts.sender import Sender
from litellm_budget_plugin.manager.ended_runs import Forgotten
from litellm_budget_plugin.manager.forecasts import first_day, first_run_out
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.policies import Policies
from litellm_budget_plugin.manager.worker import StoreWorker
from litellm_budget_plugin.settings import BudgetSettings

_logger = logging.getLogger("litellm_budget_plugin")
SCAN_SECONDS = 60.0
_LOOK_SECONDS = 0.5
"""The interval at which touched accounts are read."""
_MOST_LOOKS, _MOST_TOUCHED = 50, 10_000
_PAGE, _PAGE_SECONDS = 500, 1.0
_FORECAST_SECONDS = 3600.0
_CLOSE_SECONDS = 5.0
_JOURNAL_AT = 0.8
_OUTAGE_SECONDS = 60.0
_ENDLESS_KEPT = 400 * DAY
_FORGET_SECONDS, _FORGET_PAGE = 3600.0, 100
"""The interval between rounds, and the number of claims in one step. Each forgotten claim needs its own command, and charges wait
meanwhile.
"""


class AlertWatch:
    """One project's alerts in this process: a task of its store's worker. `clock` is in seconds, like time.monotonic."""

    def __init__(
        self,
        settings: BudgetSettings,
        policies: Policies,
        worker: StoreWorker,
        timeout: float,
        on_alert: Callable[[Alert], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.project = settings.project
        self.scan_seconds = SCAN_SECONDS
        self._settings, self._policies, self._worker = settings, policies, worker
        self._timeout, self._clock = timeout, clock
        claims = Claims(self.project, self._ask, lambda command: worker.deliver(command, timeout))
        self.sender = Sender(claims, channels_of(settings, on_alert), clock)
        self._forgotten = Forgotten(self.project, CLAIMS, _over, _FORGET_PAGE)
        self.reset()

    def reset(self) -> None:
        """Forget all state in a forked child, because it belongs to the parent. Also called at the start."""
        self._touched: dict[Subject, tuple[Default, ...]] = {}
        self._refused: dict[Ref, tuple[Default, ...]] = {}
        self._look_at = self._lead_at = self._scan_at = self._forget_at = 0.0
        self._lead: Claim | None = None
        self._scope, self._after = 0, ""
        self._forecast_at = self._forecast_page_at = 0.0
        self._forecasting = True
        self._to_forecast: dict[Subject, tuple[Default, ...]] = {}
        self.runs_out = math.inf
        self._foresee_at = 0.0
        self._away_since: float | None = None
        self._said_away_at = -_OUTAGE_SECONDS
        self._said_full = False
        self.sender.reset()

    # Called on the threads of calls: these methods only record what must be checked.

    def touched(self, command: Reserve | Settle) -> None:
        """Record that money was held or charged."""
        if command.project == self.project:
            for subject in command.subjects:
                if subject.scope != CLAIMS:
                    self._touched[subject] = command.defaults

    def refused(self, account: Ref, defaults: tuple[Default, ...]) -> None:
        """Record that an account refused a call, or would have refused it."""
        self._refused[account] = defaults
        self._touched[Subject(account.scope, account.subject)] = defaults

    def failed(self, error: BudgetStoreError) -> None:  # noqa: ARG002  # the protocol's
        """Send an alert if the store is unreachable, or if too many charges wait for it."""
        now, breaker, delivery = self._clock(), self._worker.client.breaker, self._worker.delivery
        if breaker.open and self._away_since is None:
            self._away_since = now
            if now - self._said_away_at >= _OUTAGE_SECONDS:
                self._said_away_at = now
                # The breaker has logged the reason. The error may name the store's address, which only the log may show.
                self._say("outage", "the budget ledger does not answer; the log of this process says why")
        if delivery.waiting >= _JOURNAL_AT * delivery.most and not self._said_full:
            self._said_full = True
            self._say(
                "journal",
                f"{delivery.waiting} charges are waiting for the budget ledger; from {delivery.most} on, calls are refused",
            )

    def _say(self, kind: str, text: str) -> None:
        at = datetime.now(timezone.utc)
        self.sender.put(plain_alert(kind, self.project, text, at, new_id()))  # type: ignore[arg-type]  # one of its kinds

    # Called on the worker's thread.

    def run(self) -> None:
        """Check the touched accounts, and do the next part of the scan if this process scans. Never raises, because charges must not wait
        for alerts.
        """
        now = self._clock()
        try:
            self._notice(now)
            if self._touched and now >= self._look_at:
                self._look_at = now + _LOOK_SECONDS
                self._look()
            if self._settings.metrics and now >= self._foresee_at:
                self._foresee_at = now + _FORECAST_SECONDS
                self._foresee()
            self._lead_on(now)
        except BudgetError as error:
            _logger.debug("alerts wait for the ledger: %s", error)
        except Exception:
            _logger.exception("a search for alerts failed")

    def _notice(self, now: float) -> None:
        """Notice when the store answers again, and when the journal has room again."""
        if self._away_since is not None and not self._worker.client.breaker.open:
            if self._said_away_at >= self._away_since:
                self._say("recovered", f"the budget ledger answers again, after {now - self._away_since:.0f} s")
            self._away_since = None
        if self._said_full and self._worker.delivery.waiting < _JOURNAL_AT * self._worker.delivery.most / 2:
            self._said_full = False

    def _lead_on(self, now: float) -> None:
        """Do the next part of the work that one process does for all, if it is this process."""
        if now >= self._lead_at:
            self._lead_at = now + self.scan_seconds / 2
            self._take_lead()
        if self._lead is None:
            return
        if now >= self._scan_at:
            self._scan_at = now + _PAGE_SECONDS
            self.scan_page()
        if self._to_forecast and now >= self._forecast_page_at:
            self._forecast_page_at = now + _PAGE_SECONDS
            self._forecast()
        if now >= self._forget_at:
            self._forget_at = now + _PAGE_SECONDS
            self._forgotten.forget(self._ask)
            if not self._forgotten.in_round:
                self._forget_at = now + _FORGET_SECONDS

    def retire(self) -> None:
        """Send due alerts, within a few seconds, and stop."""
        try:
            if not self._worker.client.breaker.open:
                # The last charges may have crossed a threshold.
                self._worker.settle_waiting()
                until = time.monotonic() + _CLOSE_SECONDS  # other threads may still make calls
                while self._touched and time.monotonic() < until:
                    self._look()
        except BudgetError as error:
            _logger.debug("alerts are left to other processes: %s", error)
        self.sender.close(_CLOSE_SECONDS)
        lead, self._lead = self._lead, None
        try:
            if lead is not None:
                self.sender.claims.give_back(lead)
        except BudgetError as error:
            _logger.debug("another process scans when this one's claim has expired: %s", error)

    def unused_held(self) -> int:
        """Return 0: this task holds no money."""
        return 0

    def _ask(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        return self._worker.client.ask(command, self._timeout)

    def _look(self) -> None:
        """Read touched accounts, and send the alerts that are due."""
        touched = list(self._touched.items())[:_MOST_LOOKS]
        for subject, _ in touched:
            self._touched.pop(subject, None)
        if len(self._touched) > _MOST_TOUCHED:
            # The scan will find them.
            self._touched.clear()
            self._refused.clear()
        reads: Sequence[Command] = [Read(self.project, *subject, defaults=defaults) for subject, defaults in touched]
        try:
            outcomes = self._worker.client.ask_all(reads, self._timeout)
        except BudgetStoreError:
            for subject, defaults in touched:
                self._touched.setdefault(subject, defaults)
            raise
        for (subject, defaults), outcome in zip(touched, outcomes):
            if isinstance(outcome, Accounts):
                self._judge(subject, outcome.accounts, defaults, outcome.now)

    def _judge(
        self, subject: Subject, states: tuple[AccountState, ...], defaults: tuple[Default, ...], now: int
    ) -> None:
        """Send the alerts that are due for a subject. The sender or the ledger knows those that were already sent."""
        for threshold, limit, state in crossed(subject, states, defaults, self._thresholds(subject)):
            self.sender.put(threshold_alert(self.project, threshold, limit, state, now, self._settings.timezone))
        for ref in [ref for ref in list(self._refused) if ref[:2] == subject]:
            self._refused.pop(ref, None)
            shadow = self._settings.mode == "shadow"
            for found, refused_limit, account in limits_on(subject, states, None, defaults):
                # A limit that was removed meanwhile refuses no calls.
                if found == ref and account is not None and (refused_limit is not None or account.blocked):
                    zone = self._settings.timezone
                    self.sender.put(refused_alert(self.project, account, refused_limit, now, zone, shadow=shadow))

    def _foresee(self) -> None:
        """Compute when the project's own budgets run out, for metrics."""
        subject = Subject("project", self.project)
        defaults = self._policies.current().defaults_of((subject,))
        found = self._ask(Read(self.project, *subject, defaults=defaults))
        days = self._ask(ReadUsage(self.project, *subject, since=first_day(found.now)))
        out = first_run_out(subject, found.accounts, defaults, days.rows, found.now)
        self.runs_out = math.inf if out is None else out.at / MICROS

    def _thresholds(self, subject: Subject) -> tuple[int, ...]:
        own = self._policies.current().alert_at(subject)
        return own if own is not None else self._settings.alert_per_cents or ()

    def _take_lead(self) -> None:
        """Renew or take the claim to scan for all processes. If its holder is killed, another process takes it within two scans."""
        claims = self.sender.claims
        if self._lead is not None and claims.renew(self._lead):
            return
        found = claims.take("scan")
        self._lead = found or None

    @property
    def scanning(self) -> bool:
        """Whether a scan has begun but has not ended."""
        return bool(self._scope or self._after)

    def scan_page(self) -> None:
        """Read the next page of the project's accounts. It is called once a second, so that a large project takes longer but adds no load."""
        scope = SCOPES[self._scope]
        defaults = self._policies.current().defaults
        reply = self._ask(Read(self.project, scope, after=self._after, page=_PAGE, defaults=defaults))
        for name, found in groupby(reply.accounts, key=lambda state: state.ref.subject):
            states, subject = tuple(found), Subject(scope, name)
            if not any(state.spent or state.held for state in states):
                continue
            own = self._policies.current().defaults_of((subject,))
            if self._forecasting and _may_run_out(subject, states, own, reply.now):
                self._to_forecast[subject] = own
            if may_cross(subject, states, own, self._thresholds(subject)):
                if own != defaults:
                    states = self._ask(Read(self.project, *subject, defaults=own)).accounts
                self._judge(subject, states, own, reply.now)
        if reply.after is not None:
            self._after = reply.after
            return
        self._scope, self._after = (self._scope + 1) % len(SCOPES), ""
        if not self._scope:
            now = self._clock()
            self._scan_at = now + self.scan_seconds
            if self._forecasting:
                self._forecast_at = now + _FORECAST_SECONDS
            self._forecasting = now >= self._forecast_at

    def _forecast(self) -> None:
        """Read the daily totals of the next accounts that may run out early, and send the alerts that are due."""
        batch = list(self._to_forecast.items())[:_MOST_LOOKS]
        for subject, _ in batch:
            del self._to_forecast[subject]
        client = self._worker.client
        accounts = client.ask_all([Read(self.project, *each, defaults=given) for each, given in batch], self._timeout)
        since = min((first_day(found.now) for found in accounts if isinstance(found, Accounts)), default=0)
        totals = client.ask_all([ReadUsage(self.project, *each, since=since) for each, _ in batch], self._timeout)
        for (subject, defaults), found, days in zip(batch, accounts, totals):
            if isinstance(found, Accounts) and isinstance(days, UsageRows):
                out = first_run_out(subject, found.accounts, defaults, days.rows, found.now)
                if out is None or out.state is None or out.at <= found.now:
                    continue
                if out.state.end is not None or out.at <= found.now + _SOON:
                    zone = self._settings.timezone
                    self.sender.put(forecast_alert(self.project, out.state, out.limit, out.at, found.now, zone))


_SOON = 7 * DAY
"""A budget whose window has no end runs out early if it does so within this time."""


def _may_run_out(subject: Subject, states: tuple[AccountState, ...], defaults: tuple[Default, ...], now: int) -> bool:
    """Return whether a subject's daily totals need to be read, from its accounts alone. They do if at the window's rate so far at least
    4/5 of a limit would be used at its end or, for a window without an end, if at least half of the limit is used.
    """
    followers = defaults_for(subject, states, defaults)
    for state in states:
        followed = followers.get(state.ref)
        limit = state.own_limit if state.pinned else None if followed is None else followed.limit
        if limit is None or state.ended or state.blocked:
            continue
        used = state.spent + state.held
        if state.end is None:
            likely = 2 * used >= limit
        else:
            likely = 5 * used * (state.end - state.start) >= 4 * limit * max(1, now - state.start)
        if likely:
            return True
    return False


def _over(_: object, name: str, states: tuple[AccountState, ...], now: int) -> bool:
    """Return whether a claim can be forgotten: its window is over, or has no end and began long ago."""
    if any(state.held for state in states) or name == "scan":
        return False
    end = window_end(name)
    return end + DAY < now if end is not None else all(state.created_at < now - _ENDLESS_KEPT for state in states)
