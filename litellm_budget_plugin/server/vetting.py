"""Checks of messages from outside before they are used: every store must be able to keep their text and numbers."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, TypeGuard, get_args

from litellm_budget_plugin.core.accounts import CLAIMS, ESTIMATED, SCOPES, UNITS, Subject
from litellm_budget_plugin.core.budgets import history_scope
from litellm_budget_plugin.core.commands import Command, DropBudget, PutBudget, Read, ReadUsage, Reply, Reserve, Settle
from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.core.windows import parse_window
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.snapshot import FILE as SNAPSHOT
from litellm_budget_plugin.stores.rows import Rows

_COMMANDS = get_args(Command)


def is_command(message: Command | Reply) -> TypeGuard[Command]:
    """Return whether a message is a command, and not a reply."""
    return isinstance(message, _COMMANDS)


@dataclass(frozen=True)
class Vetting:
    """Bounds on data: the characters of a text, the size of a number, and the depth of nesting."""

    text: int
    number: int
    depth: int

    def check(self, data: Any, depth: int = 0) -> None:
        """Raise BudgetInputError for data beyond the bounds, for numbers that are not whole, and for text that is not valid
        Unicode.
        """
        if isinstance(data, str):
            self._check_text(data)
        elif isinstance(data, bool) or data is None:
            return
        elif isinstance(data, int):
            if not -self.number <= data <= self.number:
                raise BudgetInputError(f"numbers must be from -{self.number} to {self.number}")
        elif isinstance(data, list):
            self._check_depth(depth)
            for item in data:
                self.check(item, depth + 1)
        elif isinstance(data, dict):
            self._check_depth(depth)
            for name, item in data.items():
                self._check_text(name)
                self.check(item, depth + 1)
        else:
            raise BudgetInputError("amounts and times are whole numbers")

    def _check_depth(self, depth: int) -> None:
        if depth == self.depth:
            raise BudgetInputError(f"nothing may be nested more than {self.depth} deep")

    def _check_text(self, text: str) -> None:
        if len(text) > self.text:
            raise BudgetInputError(f"text must have at most {self.text} characters, got {len(text)}: {text!r:.80}")
        surrogates = not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
        if surrogates:
            raise BudgetInputError(f"text must be Unicode, got {text!r:.80}")


_ODD = re.compile(rb"9[0-9]{15}|[0-9]{17}|\\u[dD][89a-fA-F]|[\[{]{4}")
_SMALL = 500


def vet_command(body: bytes, data: Any) -> None:
    """Run `COMMANDS.check(data)`, where `data` is the decoded `body`. The check is skipped for a body that cannot fail it: one
    that is shorter than the longest text, and has no long number, half a surrogate pair or deep nesting.
    """
    if len(body) > _SMALL or _ODD.search(body):
        COMMANDS.check(data)


_LONGEST = {"defaults": 512, "limits": 512, "holds": 5000, "spent": 5000}
"""The most entries of lists for which 256 does not fit. The rules look at each subject with each default while others wait."""


def check_lengths(command: Command) -> None:
    """Raise BudgetInputError for a command with lists that are too long."""
    for field in fields(command):
        listed, most = getattr(command, field.name), _LONGEST.get(field.name, 256)
        if isinstance(listed, tuple) and len(listed) > most:
            raise BudgetInputError(f"{type(command).__name__}.{field.name} may have {most} entries, got {len(listed)}")


_READ = (*SCOPES, *map(history_scope, SCOPES), SNAPSHOT, CLAIMS)
"""The scopes that can be read: those that can have budgets, payments, the mark of a file that was imported, and claims."""


def check_scopes(command: Command) -> None:
    """Raise BudgetInputError for a command about an unknown scope, whose limits would apply to nobody."""
    subject = getattr(command, "subject", None)
    named = {each.scope for each in (*getattr(command, "subjects", ()), *getattr(command, "defaults", ()))}
    if isinstance(subject, Subject):
        named.add(subject.scope)
    accepted: tuple[str, ...] = SCOPES
    if isinstance(command, PutBudget):
        accepted = (*SCOPES, SNAPSHOT)
    elif isinstance(command, Settle):
        accepted = (*SCOPES, CLAIMS, ESTIMATED)
    elif isinstance(command, (Reserve, DropBudget)):
        accepted = (*SCOPES, CLAIMS)
    elif isinstance(command, (Read, ReadUsage)):
        named.add(command.scope)
        accepted = (*_READ, ESTIMATED)
    for scope in named:
        check_scope(scope, accepted)


def check_scope(scope: str, accepted: Collection[str] = SCOPES) -> None:
    """Raise BudgetInputError for a scope that is not accepted."""
    if scope not in accepted:
        raise BudgetInputError(f"a scope must be one of {', '.join(SCOPES)}, got {scope!r:.80}")


def check_rows(rows: Rows) -> None:
    """Raise BudgetInputError for rows with unknown units, scopes or windows: no rule could be applied to them."""
    refs = [*(account.ref for account in rows.accounts), *(ref for hold in rows.holds for ref in hold.legs)]
    odd = next((ref.unit for ref in refs if ref.unit not in UNITS), None)
    if odd is not None:
        raise BudgetInputError(f"units must be {', '.join(UNITS)}, got {odd!r:.80}")
    for ref in refs:
        check_scope(ref.scope, _READ)
        parse_window(ref.window)


COMMANDS = Vetting(text=512, number=MAX_NANOS, depth=6)
"""Bounds for commands. Every id that this package makes is shorter."""
ROWS = Vetting(text=65_536, number=2**63 - 1, depth=8)
"""Bounds for rows of another ledger: sums, and replies to commands, may be larger."""
