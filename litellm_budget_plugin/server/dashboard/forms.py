"""What people type into forms, as commands: amounts in US dollars, times in UTC, and what is wrong beside each field."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import KEEP, Keep, PutBudget, Reset
from litellm_budget_plugin.core.money import MAX_NANOS, charge_nanos
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.windows import parse_window
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.server.dashboard import wording
from litellm_budget_plugin.server.dashboard.reading import Spender

_AMOUNT = re.compile(r"\$?\s*((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,12})?(?:\.[0-9]{1,20})?)", re.ASCII)
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2}))?", re.ASCII)
_NONCE = re.compile(r"[0-9a-f]{32}")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def new_nonce() -> str:
    """What a form carries so that sending it twice changes nothing twice."""
    return secrets.token_hex(16)


class Typed:
    """A form that was sent: the fields as they were typed, and what is wrong with them by the field's name."""

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        self.fields = dict(fields or {})
        self.errors: dict[str, str] = {}

    def get(self, name: str, otherwise: str = "") -> str:
        """What was typed."""
        return self.fields.get(name, otherwise)

    def wrong(self, name: str, why: str) -> None:
        """Note what is wrong with a field."""
        self.errors.setdefault(name, why)

    def command_id(self, kind: str) -> str:
        """The id of the command that this form is: the same for the same form sent twice, another one if something else was
        typed into it. Raises BudgetInputError for a form without the nonce that it was made with.
        """
        nonce = self.get("nonce")
        if not _NONCE.fullmatch(nonce):
            raise BudgetInputError("this form is not complete; reload the page and send it again")
        said = {name: value for name, value in self.fields.items() if name != "token"}
        digest = hashlib.sha256(json.dumps([kind, said], sort_keys=True).encode()).hexdigest()
        return f"dashboard:{digest[:40]}"

    def amount(self, name: str) -> int:
        """US dollars as nano-dollars; 0 and an error if it is none."""
        text = self.get(name).strip()
        form = _AMOUNT.fullmatch(text)
        digits = form[1].replace(",", "") if form else ""
        if not any(digit.isdigit() for digit in digits):
            self.wrong(name, "Type an amount in US dollars, like 5 or 12.50." if text else "An amount is needed.")
            return 0
        if len(digits.partition(".")[2].rstrip("0")) > 9:
            self.wrong(name, "An amount has at most 9 decimals.")
            return 0
        try:
            return charge_nanos(digits, "The amount")
        except BudgetInputError as error:
            self.wrong(name, f"{error}.")
            return 0

    def time(self, name: str, now: int) -> int:
        """A future time in UTC, in microseconds; 0 and an error if it is none."""
        text = self.get(name).strip()
        form = _TIME.fullmatch(text)
        try:
            if form is None:
                raise ValueError(text)
            at = datetime.fromisoformat(f"{form[1]}T{form[2]}:{form[3] or '00'}+00:00")
        except ValueError:
            why = "Type a date and a time in UTC, like 2030-12-31 18:00." if text else "A date and a time are needed."
            self.wrong(name, why)
            return 0
        micros = (at - _EPOCH) // timedelta(microseconds=1)
        if micros <= now:
            self.wrong(name, f"This is over: it is {wording.when(now)}.")
        elif micros > MAX_NANOS:
            self.wrong(name, f"This is after {wording.when(MAX_NANOS)}, which is the last time that can be kept.")
        return micros

    def window(self, name: str) -> str | Keep:
        """A window's canonical text; KEEP where nothing was typed."""
        text = self.get(name).strip()
        if not text:
            return KEEP
        try:
            return parse_window(text).text
        except BudgetInputError as error:
            self.wrong(name, f"{str(error)[:1].upper()}{str(error)[1:]}.")
            return KEEP

    def model(self, name: str) -> str:
        """A model's or a family's name, or "" for all."""
        text = self.get(name).strip()
        if not text:
            return ""
        try:
            return checked_id(text, "The model")
        except BudgetInputError as error:
            self.wrong(name, f"{error}.")
            return ""


def limit_form(typed: Typed, project: str, spender: Spender) -> PutBudget:
    """A limit of the user's own, or none at all. Look at `typed.errors` before using it."""
    kind, model, window = typed.get("kind", "amount"), typed.model("model"), typed.window("window")
    limit = typed.amount("amount") if kind == "amount" else None
    if kind not in ("amount", "unlimited"):
        typed.wrong("kind", "Choose an amount, or no limit.")
    if not spender.budgets:
        try:
            checked_id(spender.id, "a new user's id")
        except BudgetInputError as error:
            typed.wrong("amount", f"{error}.")
    id_, subject = typed.command_id("limit"), Subject("user", spender.id)
    return PutBudget(id_, project, subject, model=model, window=window, limit=limit, only=True)


def raise_form(typed: Typed, project: str, spender: Spender) -> PutBudget:
    """More than the limit, until a time. Look at `typed.errors` before using it."""
    by, until = typed.amount("by"), typed.time("until", spender.now)
    if not by:
        typed.wrong("by", "Type by how many US dollars to raise the limit: more than 0.")
    id_, (model, window) = typed.command_id("raise"), _limited(typed, spender, "by")
    subject = Subject("user", spender.id)
    return PutBudget(id_, project, subject, model=model, window=window, raised_by=by, raised_until=until)


def lower_form(typed: Typed, project: str, spender: Spender) -> PutBudget:
    """No longer more than the limit."""
    id_, (model, window) = typed.command_id("lower"), _limited(typed, spender, "by")
    return PutBudget(id_, project, Subject("user", spender.id), model=model, window=window, raised_by=0, raised_until=0)


def block_form(typed: Typed, project: str, spender: Spender) -> PutBudget:
    """No call at all, whatever the limit says."""
    return PutBudget(typed.command_id("block"), project, Subject("user", spender.id), blocked=True)


def unblock_forms(typed: Typed, project: str, spender: Spender) -> list[PutBudget]:
    """Calls again: one command for each budget that is blocked."""
    id_ = typed.command_id("unblock")
    return [
        PutBudget(
            f"{id_}:{number}",
            project,
            Subject("user", spender.id),
            model=budget.state.ref.model,
            unit=budget.state.ref.unit,
            window=budget.state.ref.window,
            blocked=False,
        )
        for number, budget in enumerate(spender.budgets)
        if budget.state.blocked
    ]


def reset_form(typed: Typed, project: str, spender: Spender) -> Reset:
    """What was spent in the open windows counts no more."""
    return Reset(typed.command_id("reset"), project, Subject("user", spender.id))


def _limited(typed: Typed, spender: Spender, field: str) -> tuple[str, str | Keep]:
    """The model and the window of the budget that has a limit to raise."""
    budget = spender.main(typed.get("model"))
    if budget is None or budget.state.limit is None:
        typed.wrong(field, "There is no limit to raise here: set one first.")
        return "", KEEP
    return budget.state.ref.model, budget.state.ref.window


Change = Callable[[Typed, str, Spender], "PutBudget | Reset | list[PutBudget]"]
CHANGES: dict[str, tuple[Change, str]] = {
    "limit": (limit_form, "The limit is set."),
    "raise": (raise_form, "The limit is raised."),
    "lower": (lower_form, "The raise has ended."),
    "block": (block_form, "The user is blocked."),
    "unblock": (unblock_forms, "The user is no longer blocked."),
    "reset": (reset_form, "What was spent is reset."),
}
"""What can be done to a user, by the last part of the address, and what is said when it is done."""
