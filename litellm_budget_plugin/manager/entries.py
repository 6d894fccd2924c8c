"""The settings made by hand for a subject, as one entry of a file: limits, a raise, and whether it is blocked. No spend and no payments.

An entry that is read names the changes; everything that it does not name stays. Reading an entry back after writing it changes nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, NamedTuple, cast
from zoneinfo import ZoneInfo

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.applying import limits_on, whole_mark
from litellm_budget_plugin.core.commands import KEEP, MICROS, AccountState, Keep, PutBudget
from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.core.sentences import Limit, amount_text, parse_limit, parse_limits
from litellm_budget_plugin.core.windows import CREDIT
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.budgets import Budgets, ProjectLedger, parse_subject
from litellm_budget_plugin.policy import nearest

FIELDS = ("subject", "limits", "with_defaults", "blocked", "raise")


class Raise(NamedTuple):
    """A raise of each limit in US dollars by `amount` nano-dollars, until a time in microseconds since 1970."""

    amount: int
    until: int


@dataclass(frozen=True)
class Entry:
    """An entry about a subject. KEEP: the entry says nothing. `limits` None: none are set by hand; `increase` None: no raise is in force.

    With `with_defaults`, the defaults for other models and units still apply beside the limits, as after LiteLLM's `create_budget`.
    """

    subject: Subject
    limits: tuple[Limit, ...] | Keep | None = KEEP
    with_defaults: bool = False
    blocked: bool | Keep = KEEP
    increase: Raise | Keep | None = KEEP


class Difference(NamedTuple):
    """One change that an entry makes to its subject: the state before and after, in words."""

    what: str
    before: str
    after: str


class Plan(NamedTuple):
    """An entry, and its changes to the ledger as it was when it was read."""

    entry: Entry
    differences: tuple[Difference, ...]


def entry_from(data: object, project: str, zone: str) -> Entry:
    """Return the entry that a JSON object describes. `zone` applies to windows and times that name none. Raises BudgetInputError."""
    if not isinstance(data, Mapping):
        raise BudgetInputError('an entry must be a JSON object like {"subject": "alice", "limits": ["$10 per month"]}')
    unknown = next((key for key in data if key not in FIELDS), None)
    if unknown is not None:
        raise BudgetInputError(f"unknown field {str(unknown)!r:.80}{nearest(str(unknown), FIELDS)}")
    if "subject" not in data:
        raise BudgetInputError("the subject is missing")
    subject = data["subject"]
    named = Subject("project", project) if subject == "project" else parse_subject(subject)
    if named.scope == "project" and named.id != project:
        raise BudgetInputError(f"this is the project {project!r}, not {named.id!r:.80}: write 'project'")
    return Entry(
        named,
        _limits(data["limits"], zone) if "limits" in data else KEEP,
        _flag(data, "with_defaults") is True,
        _flag(data, "blocked"),
        _increase(data["raise"], zone) if "raise" in data else KEEP,
    )


def _limits(given: object, zone: str) -> tuple[Limit, ...] | None:
    if given is None:
        return None
    if not isinstance(given, list) or not given:
        raise BudgetInputError(f"limits must be a list of sentences, or null for none set by hand, got {given!r:.80}")
    return parse_limits(given, zone)


def _flag(data: Mapping[Any, Any], name: str) -> bool | Keep:
    given = data.get(name, KEEP)
    if given is not KEEP and not isinstance(given, bool):
        raise BudgetInputError(f"{name} must be true or false, got {given!r:.80}")
    return given


def _increase(given: object, zone: str) -> Raise | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or set(given) != {"by", "until"}:
        raise BudgetInputError(
            f"a raise must be like {{'by': '$5', 'until': '2026-12-24T00:00Z'}}, or null for none, got {given!r:.80}"
        )
    if not (by := nanos_from(given["by"])):
        raise BudgetInputError(f"a raise must be more than 0, got {given['by']!r:.80}; null ends one")
    return Raise(by, micros_from(given["until"], zone))


def nanos_from(text: object) -> int:
    """Return an amount of US dollars, like "$5" or "5", in nano-dollars. Raises BudgetInputError."""
    found = None
    if isinstance(text, str):
        number = re.fullmatch(r"\s*[0-9]+(\.[0-9]+)?\s*", text)
        with contextlib.suppress(BudgetInputError):  # its message is about whole limits
            found = parse_limit(f"${text.strip()}" if number else text)
    if found is None or found.unit != "usd" or found.amount is None or found[1:3] != ("none", ""):
        raise BudgetInputError(f"an amount of US dollars like '$5' is expected, got {text!r:.80}")
    return found.amount


def micros_from(text: object, zone: str) -> int:
    """Return an ISO 8601 time in microseconds since 1970; a time without a zone is in `zone`. Raises BudgetInputError."""
    try:
        # Python 3.10 does not parse "Z".
        given = str(text)
        found = datetime.fromisoformat(f"{given[:-1]}+00:00" if given[-1:] in {"Z", "z"} else given)
        found = found if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone))
        micros = round(found.timestamp() * MICROS)
    except (ValueError, OverflowError):
        raise BudgetInputError(
            f"a time must be written like 2026-12-24 or 2026-12-24T18:00+01:00, got {text!r:.80}"
        ) from None
    if micros > MAX_NANOS:  # the largest number that every store can keep
        raise BudgetInputError(f"a time must be before {iso_of(MAX_NANOS)[:4]}, got {text!r:.80}")
    return max(0, micros)


def entry_of(subject: Subject, states: Collection[AccountState], now: int) -> Entry:
    """Return the settings made by hand for a subject with these accounts. `now` is in microseconds since 1970."""
    by_hand = [state for state in _own(subject, states) if not _paid(state)]
    raises = _raises(states, now)
    whole = _whole(subject, states)
    limits = tuple(_limit_of(state) for state in by_hand if whole or state.ref.window != CREDIT)
    return Entry(
        subject,
        limits or ((Limit(0, CREDIT),) if whole else None),  # a complete list is empty if only a balance counts
        bool(limits) and not whole,
        any(state.blocked for state in states),
        max(raises, default=None),
    )


def is_set(entry: Entry) -> bool:
    """Whether anything is set by hand."""
    return entry.limits is not None or entry.blocked is True or entry.increase is not None


def to_json(entry: Entry, project: str) -> dict[str, Any]:
    """Return the JSON object that describes an entry. Calendar windows name their zone."""
    subject = "project" if entry.subject == Subject("project", project) else ":".join(entry.subject)
    found: dict[str, Any] = {"subject": subject}
    if entry.limits is not KEEP:
        found["limits"] = None if entry.limits is None else [_said(limit) for limit in entry.limits]
    if entry.with_defaults:
        found["with_defaults"] = True
    if entry.blocked is not KEEP:
        found["blocked"] = entry.blocked
    if entry.increase is not KEEP:
        given = entry.increase
        found["raise"] = given and {"by": amount_text(given.amount, "usd"), "until": iso_of(given.until)}
    return found


def iso_of(micros: int) -> str:
    """Return a time in microseconds since 1970 as ISO 8601 text in UTC."""
    return datetime.fromtimestamp(micros / MICROS, timezone.utc).isoformat().replace("+00:00", "Z")


def plan(entry: Entry, ledger: ProjectLedger, states: Collection[AccountState], now: int) -> Plan:
    """Return the changes that an entry makes to its subject with these accounts. Raises BudgetInputError if it cannot be applied."""
    before, differences = entry_of(entry.subject, states, now), []
    if not _same_limits(entry, before, states):
        if entry.with_defaults and _whole(entry.subject, states):
            raise BudgetInputError("its limits replace the defaults: clear them first, then give limits with_defaults")
        differences.append(Difference("limits", _said_all(before), _said_all(entry)))
    if entry.blocked is not KEEP and entry.blocked != before.blocked:
        differences.append(Difference("blocked", _yes(before.blocked), _yes(entry.blocked)))
    wanted = _wanted(entry, now)
    if wanted is not KEEP and wanted != before.increase:
        if wanted is not None and not _can_be_raised(entry, ledger, states):
            raise BudgetInputError("it has no limit in US dollars that could be raised")
        differences.append(Difference("raise", _said_raise(before.increase), _said_raise(wanted)))
    return Plan(replace(entry, increase=wanted), tuple(differences))


def _wanted(entry: Entry, now: int) -> Raise | Keep | None:
    """Return the raise that will be in force. A raise whose time has passed counts as none."""
    return None if isinstance(entry.increase, Raise) and entry.increase.until <= now else entry.increase


def apply(plan: Plan, ledger: ProjectLedger) -> None:
    """Apply an entry to its subject, with one step for each difference. Blocking comes first and unblocking last, so that an interruption
    allows no extra spend. Applying it again changes nothing. Raises BudgetInputError, BudgetStoreError.
    """
    entry, budgets = plan.entry, Budgets(ledger)
    changed = {difference.what for difference in plan.differences}
    if "blocked" in changed and entry.blocked is True:
        budgets.block(entry.subject)
    if "limits" in changed:
        _set_limits(entry, ledger, budgets)
    # New limits have no raise yet.
    if "raise" in changed or ("limits" in changed and isinstance(entry.increase, Raise)):
        given = entry.increase if isinstance(entry.increase, Raise) else Raise(0, 0)
        until = datetime.fromtimestamp(given.until / MICROS, timezone.utc)
        budgets.raise_limit(entry.subject, amount_text(given.amount, "usd"), until=until)
    if "blocked" in changed and entry.blocked is False:
        budgets.unblock(entry.subject)


def _set_limits(entry: Entry, ledger: ProjectLedger, budgets: Budgets) -> None:
    if entry.limits is None:
        budgets.clear_limits(entry.subject)
    elif entry.with_defaults:
        for limit in cast("tuple[Limit, ...]", entry.limits):
            ledger.ask(
                PutBudget(
                    ledger.new_id(),
                    ledger.project,
                    entry.subject,
                    model=limit.model,
                    unit=limit.unit,
                    window=limit.window,
                    limit=limit.amount,
                    only=True,
                    defaults=ledger.defaults_of(entry.subject),
                )
            )
    else:
        budgets.set_limits(entry.subject, *map(_said, cast("tuple[Limit, ...]", entry.limits)))


def _same_limits(entry: Entry, before: Entry, states: Collection[AccountState]) -> bool:
    if entry.limits is KEEP:
        return True
    if entry.limits is None or before.limits is None or before.limits is KEEP:
        return entry.limits is before.limits
    # A balance that was paid for counts, whether or not an entry names it.
    paid = any(_paid(state) for state in states)
    wanted, found = (
        {one for one in each if not (paid and one.window == CREDIT)} for each in (entry.limits, before.limits)
    )
    if entry.with_defaults:
        return before.with_defaults and wanted <= found
    return not before.with_defaults and wanted == found


def _can_be_raised(entry: Entry, ledger: ProjectLedger, states: Collection[AccountState]) -> bool:
    found = (
        []
        if entry.limits is KEEP or entry.limits is None
        else [(one.unit, one.model, one.window, one.amount) for one in entry.limits]
    )
    if entry.limits is KEEP or entry.with_defaults:
        current = limits_on(entry.subject, states, (), ledger.defaults_of(entry.subject))
    elif entry.limits is None:
        current = limits_on(entry.subject, (), (), ledger.defaults_of(entry.subject))
    else:
        current = []
    found += [(ref.unit, ref.model, ref.window, limit) for ref, limit, _ in current]
    return any(
        unit == "usd" and not model and window != CREDIT and amount is not None for unit, model, window, amount in found
    )


def _whole(subject: Subject, states: Collection[AccountState]) -> bool:
    return any(state.pinned and state.ref == whole_mark(subject) for state in states)


def _own(subject: Subject, states: Collection[AccountState]) -> list[AccountState]:
    return [state for state in states if state.pinned and state.ref != whole_mark(subject)]


def _paid(state: AccountState) -> bool:
    return state.ref.window == CREDIT and bool(state.own_limit or state.spent)


def _raises(states: Collection[AccountState], now: int) -> list[Raise]:
    return [
        Raise(state.raised_by, state.raised_until) for state in states if state.raised_by and state.raised_until > now
    ]


def _limit_of(state: AccountState) -> Limit:
    return Limit(state.own_limit, state.ref.window, state.ref.model, state.ref.unit)


def _said(limit: Limit) -> str:
    return limit.sentence("" if "@" in limit.window else "UTC")


def _said_all(entry: Entry) -> str:
    if entry.limits is None or entry.limits is KEEP:
        return "the default"
    said = ", ".join(map(_said, entry.limits))
    return f"{said}, in addition to the defaults" if entry.with_defaults else said


def _said_raise(given: Raise | Keep | None) -> str:
    return f"{amount_text(given.amount, 'usd')} until {iso_of(given.until)}" if isinstance(given, Raise) else "none"


def _yes(blocked: bool | Keep) -> str:
    return "yes" if blocked is True else "no"
