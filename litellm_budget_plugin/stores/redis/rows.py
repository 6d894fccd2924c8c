"""How rows are written in the keys of Redis, and read from there.

An account is some fields of its subject's hash, each named by a letter and the account's key; what is empty is left out. A hold
is JSON, without its time, which is the score of its id in an index. A mark that has nothing to say is its entry in the index and
nothing else. Totals are six numbers in a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import lru_cache
from itertools import islice
from typing import Any

from pydantic_core import to_json

from litellm_budget_plugin.core.accounts import Account, Amounts, Charged, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.net.engine import Seen

_LETTERS = {
    "i": "id", "c": "created_at", "b": "start", "e": "end", "p": "pinned", "l": "limit", "s": "spent", "h": "held",
    "k": "epoch", "x": "blocked", "r": "raised_by", "u": "raised_until", "o": "carry_over", "g": "carried", "d": "dropped",
    "a": "alerted", "f": "alert_limit",
}  # fmt: skip
_MODELS = "m"
_ALWAYS = ("spent", "held")
_OR_NONE = ("end", "limit")
_FLAGS = ("pinned", "blocked", "dropped")
_EMPTY = {one.name: 0 for one in fields(Account)} | {
    "id": "",
    **dict.fromkeys(_OR_NONE),
    **dict.fromkeys(_FLAGS, False),
}
_TOTAL = re.compile(r"(?:\+(\d))?d(-?\d+):(.*)", re.DOTALL)
_EXACT = 2**52
_SOME = 2000
"""How many arguments one command may have: Lua's stack has room for 8,000."""


@lru_cache(maxsize=4096)
def name_of(subject: Subject) -> str:
    """A subject as it is written in keys. Raises BudgetInputError for half a surrogate pair."""
    try:
        subject.id.encode()
        return f"{len(subject.scope.encode())}:{subject.scope}:{subject.id}"
    except UnicodeEncodeError as error:
        raise BudgetInputError(f"a subject's name holds text that cannot be stored: {error}") from None


def subject_of(name: bytes) -> Subject:
    """The subject that `name_of` has written."""
    length, _, rest = name.partition(b":")
    return Subject(rest[: int(length)].decode(), rest[int(length) + 1 :].decode())


@lru_cache(maxsize=4096)
def account_key(model: str, window: str, unit: str) -> str:
    """What the fields of an account end with."""
    return "".join(f"{len(part)}:{part}" for part in (window, unit, model))


@lru_cache(maxsize=4096)
def _field(field: bytes) -> tuple[str, str, tuple[str, str, str], str]:
    """The letter, the account's key, its parts (model, window, unit), and what follows: the model that was charged."""
    text = field.decode()
    rest, parts = text[1:], []
    for _ in range(3):
        length, _, rest = rest.partition(":")
        parts.append(rest[: int(length)])
        rest = rest[int(length) :]
    window, unit, model = parts
    return text[0], account_key(model, window, unit), (model, window, unit), rest


def number(value: int) -> int | str:
    """A whole number for JSON that a script reads: in digits where a double does not hold it."""
    return value if -_EXACT < value < _EXACT else f"{value}"


def account_fields(account: Account) -> dict[str, str]:
    """The fields of an account."""
    key = account_key(account.ref.model, account.ref.window, account.ref.unit)
    found = {}
    for letter, name in _LETTERS.items():
        value = getattr(account, name)
        if name in _ALWAYS or value != _EMPTY[name]:
            found[letter + key] = value if name == "id" else f"{int(value)}"
    found.update({f"{_MODELS}{key}{model}": f"{amount}" for model, amount in account.models.items()})
    return found


def seen_of(subject: Subject, flat: Sequence[bytes]) -> Seen:
    """A subject's accounts and version out of its hash: field, value, ..."""
    version, accounts = 0, dict[str, dict[str, Any]]()
    for field, value in _pairs(flat):
        if field == b"v":
            version = int(value)
            continue
        letter, key, (model, window, unit), rest = _field(field)
        account = accounts.get(key)
        if account is None:
            ref = Ref(subject.scope, subject.id, model, window, unit)
            account = accounts[key] = {**_EMPTY, "ref": ref, "models": {}}
        if letter == _MODELS:
            account["models"][rest] = int(value)
        elif letter == "i":
            account["id"] = value.decode()
        else:
            name = _LETTERS[letter]
            account[name] = value == b"1" if name in _FLAGS else int(value)
    return Seen(version, tuple(Account(**account) for account in accounts.values()))


def _pairs(flat: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2])


def _plain_state(hold: str) -> str:
    """The state of a mark that is told by its id alone."""
    if hold.startswith("alias:"):
        return "alias"
    return "done" if hold.startswith("command:") else "settled"


def hold_row(hold: Hold) -> str | None:
    """A hold without its time; None for a mark that its id tells. Equal holds are written equally."""
    if hold.state == _plain_state(hold.id) and hold == Hold(hold.id, hold.state, hold.at):
        return None
    places = {subject: place for place, subject in enumerate(hold.subjects)}
    try:
        row = [
            hold.state, hold.amounts, hold.floor, hold.model, hold.subjects,
            [(places[Subject(leg.scope, leg.subject)], *leg[2:]) for leg in hold.legs],
            [(places[one.subject], one.id, one.epoch) for one in hold.charged], hold.day, hold.reply,
        ]  # fmt: skip
    except KeyError as error:
        raise BudgetInputError(f"hold {hold.id!r} has a leg on {error.args[0]}, who is none of its subjects") from None
    while not row[-1]:
        row.pop()
    return to_json(row).decode()


def hold_of(hold: str, at: bytes | None, row: bytes | None) -> Hold | None:
    """The hold or mark of an id."""
    if at is None:
        return None
    if row is None:
        return Hold(hold, _plain_state(hold), int(float(at)))
    state, *rest = json.loads(row)
    empty: list[Any] = [(0, 0, 0), (0, 0, 0), "", (), (), (), 0, ""]
    amounts, floor, model, subjects, legs, charged, day, reply = [*rest, *empty[len(rest) :]]
    owners = tuple(Subject(*one) for one in subjects)
    return Hold(
        hold,
        state,
        int(float(at)),
        Amounts(*amounts),
        Amounts(*floor),
        model,
        owners,
        tuple(Ref(*owners[place], *names) for place, *names in legs),
        tuple(Charged(owners[place], row_id, epoch) for place, row_id, epoch in charged),
        day,
        reply,
    )


def total_row(key: UsageKey, usage: Usage) -> list[Any]:
    """What a script adds to the totals."""
    return [name_of(Subject(key.scope, key.subject)), key.day, key.model, [number(value) for value in usage]]


def totals_of(subject: Subject, flat: Sequence[bytes]) -> list[tuple[UsageKey, Usage]]:
    """A subject's totals out of its hash: field, value, ... Fields of other kinds do not count."""
    found: dict[UsageKey, Usage] = {}
    for field, value in _pairs(flat):
        named = _TOTAL.fullmatch(field.decode())
        if named is None:
            continue
        key = UsageKey(*subject, int(named[2]), named[3])
        if named[1] is None:
            added = Usage(*map(int, value.split()))
        else:
            added = Usage(*(int(value) if place == int(named[1]) else 0 for place in range(1, 7)))
        found[key] = found.get(key, Usage()).plus(added)
    return list(found.items())


class Writes:
    """What write.lua has to do, in the order in which it is safe: rows first, then what goes."""

    def __init__(self) -> None:
        self.totals: list[list[Any]] = []
        self._texts: dict[str, str] = {}
        self._sets: dict[str, dict[str, str]] = {}
        self._scores: dict[str, dict[str, int]] = {}
        self._gone: dict[tuple[str, str], list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self.totals or self._texts or self._sets or self._scores or self._gone)

    def text(self, key: str, value: str) -> None:
        """Set a key's text."""
        self._texts[key] = value

    def put(self, key: str, field: str, value: str) -> None:
        """Set a field of a hash."""
        self._sets.setdefault(key, {})[field] = value

    def score(self, key: str, member: str, score: int) -> None:
        """Put a member into an index."""
        self._scores.setdefault(key, {})[member] = score

    def unput(self, key: str, field: str) -> None:
        """Delete a field of a hash."""
        self._gone.setdefault(("HDEL", key), []).append(field)

    def unscore(self, key: str, member: str) -> None:
        """Take a member out of an index."""
        self._gone.setdefault(("ZREM", key), []).append(member)

    def subject(self, subject: Subject, old: Sequence[Account], new: Sequence[Account], version: int | None) -> None:
        """Put accounts in place of others. A new version is written if there is one."""
        name = name_of(subject)
        key = f":n:{name}"
        was = {field: value for account in old for field, value in account_fields(account).items()}
        now = {field: value for account in new for field, value in account_fields(account).items()}
        for field, value in now.items():
            if was.get(field) != value:
                self.put(key, field, value)
        for field in was.keys() - now.keys():
            self.unput(key, field)
        if not new:
            if old:
                self.unput(key, "v")
                self.unscore(":i", name)
            return
        if version is not None:
            self.put(key, "v", f"{version}")
        if not old:
            self.score(":i", name, 0)

    def hold(self, hold: Hold) -> None:
        """Put a hold or mark in place of whatever has its id."""
        row, still_open = hold_row(hold), hold.state == "open"
        self.score(":l" if still_open else ":z", hold.id, hold.at)
        self.unscore(":z" if still_open else ":l", hold.id)
        if row is None:
            self.unput(":b", hold.id)
        else:
            self.put(":b", hold.id, row)

    def total(self, key: UsageKey, usage: Usage) -> None:
        """Put totals in place of others."""
        name, field = name_of(Subject(key.scope, key.subject)), f"d{key.day}:{key.model}"
        fits = [value if -_EXACT < value < _EXACT else 0 for value in usage]
        self.put(f":u:{name}", field, " ".join(map(str, fits)))
        for place, value in enumerate(usage, start=1):
            if fits[place - 1] == value:
                self.unput(f":u:{name}", f"+{place}{field}")
            else:
                self.put(f":u:{name}", f"+{place}{field}", f"{value}")
        self.score(":w", name, 0)
        if key.day > 0:
            self._scores.setdefault(":x", {})[name] = min(key.day, self._scores.get(":x", {}).get(name, key.day))

    def commands(self) -> list[list[Any]]:
        """Commands of Redis, with keys that the project's root comes before."""
        found: list[list[Any]] = [["SET", key, value] for key, value in self._texts.items()]
        for key, fields_ in self._sets.items():
            found += [["HSET", key, *(word for pair in some for word in pair)] for some in _batches(fields_.items())]
        for key, members in self._scores.items():
            found += [
                ["ZADD", key, *(["LT"] if key == ":x" else []), *(word for member, score in some for word in (score, member))]
                for some in _batches(members.items())
            ]  # fmt: skip
        for (verb, key), names in self._gone.items():
            found += [[verb, key, *some] for some in _batches(names)]
        return found


def _batches(values: Iterable[Any]) -> Iterable[list[Any]]:
    left = iter(values)
    while some := list(islice(left, _SOME)):
        yield some
