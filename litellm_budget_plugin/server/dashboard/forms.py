"""The forms of the dashboard: their fields (sentences, times in UTC), their errors, and the changes that they make."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import NamedTuple

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.budgets import Budgets
from litellm_budget_plugin.server.dashboard import wording
from litellm_budget_plugin.server.dashboard.reading import Spender

_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2}))?", re.ASCII)
_NONCE = re.compile(r"[0-9a-f]{32}")


def new_nonce() -> str:
    """Return a nonce for a form, so that sending the form twice changes nothing twice."""
    return secrets.token_hex(16)


class Typed:
    """A form that was sent: the fields as they were typed, and the errors by field name."""

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        self.fields = dict(fields or {})
        self.errors: dict[str, str] = {}

    def get(self, name: str, otherwise: str = "") -> str:
        """Return the text of a field."""
        return self.fields.get(name, otherwise)

    def wrong(self, name: str, why: str) -> None:
        """Record an error of a field. The first error of a field is kept."""
        self.errors.setdefault(name, f"{why[:1].upper()}{why[1:]}{'' if why.endswith('.') else '.'}")

    def command_id(self, kind: str) -> str:
        """Return the id of the form's command: the same id for the same form sent twice, another id if other text was typed
        into it. Raises BudgetInputError for a form without the nonce that it was made with.
        """
        nonce = self.get("nonce")
        if not _NONCE.fullmatch(nonce):
            raise BudgetInputError("this form is not complete; reload the page and send it again")
        said = {name: value for name, value in self.fields.items() if name != "token"}
        digest = hashlib.sha256(json.dumps([kind, said], sort_keys=True).encode()).hexdigest()
        return f"dashboard:{digest[:40]}"

    def time(self, name: str, now: int) -> datetime | None:
        """Return a time in UTC, None if the field has none. Record an error then, and for a time that is past or too far in the
        future.
        """
        text = self.get(name).strip()
        form = _TIME.fullmatch(text)
        try:
            if form is None:
                raise ValueError(text)
            at = datetime.fromisoformat(f"{form[1]}T{form[2]}:{form[3] or '00'}+00:00")
        except ValueError:
            why = "type a date and a time in UTC, like 2030-12-31 18:00" if text else "a date and a time are needed"
            self.wrong(name, why)
            return None
        if at.timestamp() * 1e6 <= now:
            self.wrong(name, f"this time has passed: it is now {wording.when(now)}")
        elif at.year > wording.LAST_YEAR:
            self.wrong(name, f"the last accepted year is {wording.LAST_YEAR}")
        return at


def _set_limits(typed: Typed, spender: Spender, budgets: Budgets, sentence: str | None) -> str:
    """Change, add or delete one limit of the list that the form was made with, and return a description. The other limits stay.
    Raises BudgetInputError.
    """
    seen, old = typed.get("seen").splitlines(), typed.get("old")
    if (old or sentence is None) and old not in seen:
        raise BudgetInputError("this form is not complete; reload the page and send it again")
    place = seen.index(old) if old else len(seen)
    listed = [*seen[:place], *([] if sentence is None else [sentence]), *seen[place + bool(old) :]]
    wanted = [str(limit) for limit in parse_limits(listed)]
    if sorted(spender.limits) not in (sorted(seen), sorted(wanted)):
        raise BudgetInputError("the limits have changed since this page was loaded; look at them and send this again")
    if wanted:
        return f"limits: {', '.join(budgets.set_limits(spender.subject, *wanted))}"
    if spender.by_hand:
        return _clear(typed, spender, budgets)
    return f"limits: {', '.join(budgets.set_limits(spender.subject, 'unlimited'))}"


def _limit(typed: Typed, spender: Spender, budgets: Budgets) -> str:
    sentence = typed.get("limit").strip()
    if not sentence:
        raise BudgetInputError("type a limit, like $10 per month")
    if not spender.known:
        checked_id(spender.subject.id, f"the id of a new {spender.subject.scope}")
    return _set_limits(typed, spender, budgets, sentence)


def _delete(typed: Typed, spender: Spender, budgets: Budgets) -> str:
    return _set_limits(typed, spender, budgets, None)


def _clear(_typed: Typed, spender: Spender, budgets: Budgets) -> str:
    budgets.clear_limits(spender.subject)
    return "limits: those of the environment or a file"


def _raise(typed: Typed, spender: Spender, budgets: Budgets) -> str:
    by, until = typed.get("by").strip(), typed.time("until", spender.now)
    if until is None or typed.errors:
        return ""
    budgets.raise_limit(spender.subject, by, until=until)
    return f"raised by {by} until {until:%Y-%m-%d %H:%M} UTC"


def _lower(_typed: Typed, spender: Spender, budgets: Budgets) -> str:
    budgets.raise_limit(spender.subject, "$0", until=datetime.fromtimestamp(0, timezone.utc))
    return "raise ended"


def _top_up(typed: Typed, spender: Spender, budgets: Budgets) -> str:
    amount, payment = typed.get("amount").strip(), typed.get("payment").strip()
    if not payment:
        typed.wrong("payment", "a payment needs an id of its own, like an invoice's number")
        return ""
    budgets.top_up(spender.subject, amount, id=payment)
    return f"topped up by {amount}: {payment}"


def _refund(typed: Typed, spender: Spender, budgets: Budgets) -> str:
    payment = typed.get("payment")
    if payment not in (one.id for one in budgets.payments(spender.subject)):
        raise BudgetInputError(f"there is no payment {payment!r:.80} here")
    budgets.refund(payment)
    return f"refunded: {payment}"


def _on_subject(change: Callable[[Budgets, Subject], None], said: str) -> Change:
    def apply(_typed: Typed, spender: Spender, budgets: Budgets) -> str:
        change(budgets, spender.subject)
        return said

    return apply


Change = Callable[[Typed, Spender, Budgets], str]
"""A function that makes a change, on a thread, and returns its description for the history. It records errors in the form, or
raises BudgetInputError.
"""


class Kind(NamedTuple):
    """A change that has a form. An error is shown at the field `field`; `said` is the message after success."""

    apply: Change
    field: str
    said: str


CHANGES = {
    "limit": Kind(_limit, "limit", "The limit is set."),
    "delete": Kind(_delete, "limit", "The limit is deleted."),
    "clear": Kind(_clear, "limit", "The limits set by hand are removed."),
    "raise": Kind(_raise, "by", "The limit is raised."),
    "lower": Kind(_lower, "by", "The raise has ended."),
    "block": Kind(_on_subject(Budgets.block, "blocked"), "block", "Every call is refused from now on."),
    "unblock": Kind(_on_subject(Budgets.unblock, "unblocked"), "block", "Calls are accepted again."),
    "reset": Kind(_on_subject(Budgets.reset, "reset what was spent"), "reset", "The spend is reset."),
    "top-up": Kind(_top_up, "amount", "The balance is topped up."),
    "refund": Kind(_refund, "amount", "The payment is refunded."),
}
"""The changes of a subject, by the last part of the form's address."""
EXAMPLES = (
    "$10 per month",
    "$1 per day",
    "$5 per week",
    "$0.50",
    "100 calls per hour",
    "2M tokens per week",
    "unlimited",
)
"""The suggestions of a field for a limit."""
WINDOWS = ("hour", "day", "week", "month", "year", "7d", "28d", "month@Europe/Berlin")
