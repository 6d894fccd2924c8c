"""The sums of a project's rows, by which two stores are compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import NamedTuple

from litellm_budget_plugin.core.accounts import UNITS, Account, Amounts, Hold, Usage, UsageKey
from litellm_budget_plugin.stores.rows import Rows

Row = Account | Hold | tuple[UsageKey, Usage]
_MANY = 2**128


class Named(NamedTuple):
    """A row, with digests of its key and of its whole content."""

    key: bytes
    digest: bytes
    row: Row


_account_fields = attrgetter(*(one.name for one in fields(Account)))
_hold_fields = attrgetter(*(one.name for one in fields(Hold) if one.name != "reply"))


def named(rows: Rows) -> Iterator[Named]:
    """Yield every row with its digests. Equal rows have equal digests, from any store."""
    for account in rows.accounts:
        # Stores may return 1 for True, which JSON distinguishes, and models in any order.
        said = [int(value) if isinstance(value, bool) else value for value in _account_fields(account)]
        yield _named(account, ["account", *account.ref], said)
    for hold in rows.holds:
        # A reply is JSON, which every store formats in its own way.
        reply = json.loads(hold.reply) if hold.reply else None
        yield _named(hold, ["hold", hold.id], [*_hold_fields(hold), reply])
    for key, usage in rows.usage:
        yield _named((key, usage), ["usage", *key], usage)


def _named(row: Row, key: object, said: object) -> Named:
    return Named(_digest(key), _digest([key, said]), row)


def _digest(value: object) -> bytes:
    text = json.dumps(value, separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def rows_of(found: list[Named]) -> Rows:
    """The rows without their digests."""
    rows = [one.row for one in found]
    return Rows(
        tuple(row for row in rows if isinstance(row, Account)),
        tuple(row for row in rows if isinstance(row, Hold)),
        tuple(row for row in rows if not isinstance(row, (Account, Hold))),
    )


@dataclass(slots=True)
class Totals:
    """A project's rows, counted and summed. `spent` and `held` are the accounts', by unit; `usage` sums the totals' fields.

    `fingerprint` is the sum of the rows' digests: it does not depend on their order, and differs if any field does.
    """

    accounts: int = 0
    open_holds: int = 0
    marks: int = 0
    usage_rows: int = 0
    spent: Amounts = field(default_factory=Amounts)
    held: Amounts = field(default_factory=Amounts)
    usage: Usage = field(default_factory=Usage)
    fingerprint: int = 0

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.accounts + self.open_holds + self.marks + self.usage_rows

    def add(self, one: Named) -> None:
        """Count a row."""
        self.fingerprint = (self.fingerprint + int.from_bytes(one.digest, "big")) % _MANY
        row = one.row
        if isinstance(row, Account):
            self.accounts += 1
            self.spent = self.spent.plus(_in_unit(row.ref.unit, row.spent))
            self.held = self.held.plus(_in_unit(row.ref.unit, row.held))
        elif isinstance(row, Hold):
            self.open_holds += row.state == "open"
            self.marks += row.state != "open"
        else:
            self.usage_rows += 1
            self.usage = self.usage.plus(row[1])

    def differences(self, other: Totals) -> str:
        """The differences, in words: `spent 5 and 7, marks 1 and 2`."""
        pairs = [
            f"{one.name.replace('_', ' ')} {_shown(getattr(self, one.name))} and {_shown(getattr(other, one.name))}"
            for one in fields(self)
            if one.name != "fingerprint" and getattr(self, one.name) != getattr(other, one.name)
        ]
        return ", ".join(pairs) or "the same sums, but other rows"


def _in_unit(unit: str, amount: int) -> Amounts:
    return Amounts(*(amount if unit == one else 0 for one in UNITS))


def _shown(value: object) -> str:
    if isinstance(value, (Amounts, Usage)):
        return "(" + ", ".join(f"{name} {amount}" for name, amount in value._asdict().items()) + ")"
    return str(value)
