"""Alerts: their text, and the id that identifies an alert in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, Literal

from litellm_budget_plugin.core.accounts import Default, Ref, Subject
from litellm_budget_plugin.core.applying import defaults_for, limits_on
from litellm_budget_plugin.core.commands import MICROS, AccountState
from litellm_budget_plugin.core.sentences import amount_text
from litellm_budget_plugin.manager.forecasts import budget_text

Kind = Literal["threshold", "refused", "forecast", "outage", "recovered", "journal", "test"]


@dataclass(frozen=True)
class Alert:
    """A message for an operator; `text` is one sentence.

    `id` is the same in every process and for every repetition, so that a receiver can drop repetitions. `scope`, `subject`, `budget` (a
    sentence) and the amounts (US dollars, calls or tokens, as `unit` says) are None for alerts that are not about a budget.
    `threshold` is in per cent of the limit. `runs_out_at` is when a budget runs out by its forecast.
    """

    id: str
    kind: Kind
    project: str
    text: str
    at: datetime
    scope: str | None = None
    subject: str | None = None
    budget: str | None = None
    unit: str | None = None
    threshold: int | None = None
    spent: Decimal | None = None
    held: Decimal | None = None
    limit: Decimal | None = None
    resets_at: datetime | None = None
    runs_out_at: datetime | None = None

    @property
    def title(self) -> str:
        """A few words for a subject line, without any user's id."""
        return f"{_TITLES[self.kind]} ({self.project})"

    @property
    def claimed(self) -> bool:
        """Whether one process sends it for all. Other alerts are about one process, or about a ledger that cannot be reached."""
        return self.kind in ("threshold", "refused", "forecast")

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON: amounts as text, because they are exact, and times in ISO 8601. Fields that are None are left out."""
        found = {name: value for name, value in vars(self).items() if value is not None}
        for name, value in found.items():
            if isinstance(value, datetime):
                found[name] = value.isoformat()
            elif isinstance(value, Decimal):
                found[name] = f"{value:f}"
        return found


_TITLES: dict[str, str] = {
    "threshold": "Budget alert",
    "refused": "Calls are refused",
    "forecast": "A budget will run out early",
    "outage": "The budget ledger cannot be reached",
    "recovered": "The budget ledger answers again",
    "journal": "Charges are waiting for the budget ledger",
    "test": "Test of budget alerts",
}


def crossed(
    subject: Subject, states: tuple[AccountState, ...], defaults: tuple[Default, ...], thresholds: tuple[int, ...]
) -> Iterator[tuple[int, int, AccountState]]:
    """Yield each (threshold, limit, account) of a subject where spent and held money is at or over `threshold` per cent of the limit.
    Blocked accounts and limits of zero have no thresholds.
    """
    for _, limit, state in limits_on(subject, states, None, defaults):
        if state is None or state.ended or state.blocked or limit is None or limit <= 0:
            continue
        used = 100 * (state.spent + state.held)
        for threshold in thresholds:
            if used >= threshold * limit:
                yield threshold, limit, state


def may_cross(
    subject: Subject, states: tuple[AccountState, ...], defaults: tuple[Default, ...], thresholds: tuple[int, ...]
) -> bool:
    """Return whether `crossed` may yield anything, from accounts that a `Read` with other defaults has returned."""
    if not thresholds:
        return False
    followers = defaults_for(subject, states, defaults)
    for state in states:
        if state.pinned:
            limit = state.own_limit
        else:
            limit = followers[state.ref].limit if state.ref in followers else None
        # Raises and amounts carried over only make the limit larger.
        if limit is not None and 100 * (state.spent + state.held) >= thresholds[0] * limit:
            return True
    return False


def threshold_alert(project: str, threshold: int, limit: int, state: AccountState, now: int, zone: str) -> Alert:
    """Return the alert that an account is at or over a threshold, at `now` (microseconds)."""
    used = 100 * (state.spent + state.held) // limit
    # One charge may pass several thresholds at once.
    passed = "" if used == threshold else f" (alert at {threshold} %)"
    return _about(
        "threshold",
        project,
        state,
        limit,
        now,
        zone,
        f" has used {used} % of",
        passed,
        key=(limit, threshold),
        threshold=threshold,
    )


def refused_alert(
    project: str, state: AccountState, limit: int | None, now: int, zone: str, *, shadow: bool = False
) -> Alert:
    """Return the alert that calls are refused under a budget; with `shadow`, that they would be. A different limit, or a block, gives a
    different alert.
    """
    said = f" {'would have' if shadow else 'has'} calls refused under"
    alert = _about("refused", project, state, limit or 0, now, zone, said, key=(limit or 0, int(state.blocked)))
    if not state.blocked:
        return alert
    # A block has no limit, and no window ends it.
    text = f"{_who(state.ref)} is blocked, and {'would have' if shadow else 'has'} all calls refused"
    return replace(alert, text=text, budget=None, limit=None, resets_at=None)


def forecast_alert(project: str, state: AccountState, limit: int, runs_out: int, now: int, zone: str) -> Alert:
    """Return the alert that a budget runs out, at `runs_out` (microseconds), before its window ends."""
    return _about(
        "forecast",
        project,
        state,
        limit,
        now,
        zone,
        ": at this rate",
        f" runs out on {_time(runs_out).date().isoformat()}",
        key=(limit,),
        runs_out_at=_time(runs_out),
    )


def plain_alert(kind: Kind, project: str, text: str, at: datetime, id_: str) -> Alert:
    """Return an alert that is not about a budget."""
    return Alert(id_, kind, project, text, at)


def _about(
    kind: Kind,
    project: str,
    state: AccountState,
    limit: int,
    now: int,
    zone: str,
    said: str,
    more: str = "",
    *,
    key: tuple[int, ...] = (),
    threshold: int | None = None,
    runs_out_at: datetime | None = None,
) -> Alert:
    ref, unit = state.ref, state.ref.unit
    budget = budget_text(ref, limit, zone)
    text = f"{_who(ref)}{said} {budget}{more}; {amount_text(state.spent, unit)} spent"
    if state.held:
        text += f", {amount_text(state.held, unit)} held for calls in flight"
    resets_at = None if state.end is None else _time(state.end)
    if resets_at is not None:
        text += f"; resets {resets_at:%Y-%m-%d %H:%M} UTC"
    return Alert(
        _id(kind, project, state, key),
        kind,
        project,
        text,
        _time(now),
        ref.scope,
        ref.subject,
        budget,
        unit,
        threshold,
        _amount(state.spent, unit),
        _amount(state.held, unit),
        _amount(limit, unit),
        resets_at,
        runs_out_at,
    )


def _who(ref: Ref) -> str:
    return "project" if ref.scope == "project" else f"{ref.scope} {ref.subject!r}"


def _id(kind: str, project: str, state: AccountState, key: tuple[int, ...]) -> str:
    """Return the end of the window and a digest of the alert's cause. The end identifies claims whose window is over."""
    about = repr((kind, project, tuple(state.ref), state.start, state.epoch, key))
    return f"{state.end or 0:017d}-{hashlib.sha256(about.encode()).hexdigest()[:32]}"


def window_end(id_: str) -> int | None:
    """Return the end (microseconds) of the window in a claim's id; None if the window has no end."""
    end = id_.partition("-")[0]
    return int(end) or None if end.isascii() and end.isdigit() else None


def _amount(amount: int, unit: str) -> Decimal:
    return Decimal(f"{Decimal(amount).scaleb(-9).normalize():f}") if unit == "usd" else Decimal(amount)


def _time(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / MICROS, tz=timezone.utc)
