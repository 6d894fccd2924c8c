"""The format of rows in the keys of Redis.

An account is several fields of its subject's hash, each named by a letter and the account's key; empty values are left
out. A hold is JSON, without its time, which is the score of its id in an index. A mark without further content is only
an entry in the index. Totals are six numbers, which scripts pack and unpack.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import lru_cache
from itertools import islice
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

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
_TOTAL = re.compile(r"(?:\+(\d))?(-?\d+):(.*)", re.DOTALL)
_EXACT = 2**52
_SOME = 2000
"""The most arguments of one command: Lua's stack has room for 8,000."""


def json_of(value: Any) -> bytes:
    """A value as JSON. Raises BudgetInputError for half a surrogate pair."""
    try:
        return to_json(value)
    except (UnicodeError, PydanticSerializationError) as error:
        raise BudgetInputError(f"the command holds text that cannot be stored: {error}") from None


@lru_cache(maxsize=4096)
def name_of(subject: tuple[str, str]) -> str:
    """A subject as it is written in keys. Raises BudgetInputError for half a surrogate pair."""
    scope, name = subject
    try:
        name.encode()
        return f"{len(scope.encode())}:{scope}:{name}"
    except UnicodeEncodeError as error:
        raise BudgetInputError(f"a subject's name holds text that cannot be stored: {error}") from None


def subject_of(name: bytes) -> Subject:
    """The subject of a name that `name_of` made."""
    length, _, rest = name.partition(b":")
    return Subject(rest[: int(length)].decode(), rest[int(length) + 1 :].decode())


@lru_cache(maxsize=4096)
def account_key(model: str, window: str, unit: str) -> str:
    """The end of the names of an account's fields."""
    return "".join(f"{len(part)}:{part}" for part in (window, unit, model))


@lru_cache(maxsize=4096)
def _field(field: bytes) -> tuple[str, str, tuple[str, str, str], str]:
    """The parts of a field's name: the letter, the account's key, the key's parts (model, window, unit), and the rest,
    which is the model that was charged.
    """
    text = field.decode()
    rest, parts = text[1:], []
    for _ in range(3):
        length, _, rest = rest.partition(":")
        parts.append(rest[: int(length)])
        rest = rest[int(length) :]
    window, unit, model = parts
    return text[0], account_key(model, window, unit), (model, window, unit), rest


def account_fields(account: Account) -> dict[str, str]:
    """The fields of an account in its subject's hash."""
    key = account_key(account.ref.model, account.ref.window, account.ref.unit)
    found = {}
    for letter, name in _LETTERS.items():
        value = getattr(account, name)
        if name in _ALWAYS or value != _EMPTY[name]:
            found[letter + key] = value if name == "id" else f"{int(value)}"
    found.update({f"{_MODELS}{key}{model}": f"{amount}" for model, amount in account.models.items()})
    return found


def seen_of(subject: Subject, flat: Sequence[bytes]) -> Seen:
    """A subject's accounts and version, from its hash: field, value, ..."""
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
    """The state of a mark that its id alone tells."""
    if hold.startswith("alias:"):
        return "alias"
    return "done" if hold.startswith("command:") else "settled"


def hold_row(hold: Hold) -> str | None:
    """A hold without its time; None for a mark that its id describes completely. Equal holds give equal text."""
    if hold.plain:
        if hold.reply:
            return json_of([hold.state, hold.reply]).decode()
        return None if hold.state == _plain_state(hold.id) else f'["{hold.state}"]'
    amounts, floor, rest = hold.amounts, hold.floor, ""
    if hold.charged or hold.day or hold.reply:
        charged = [(_place(hold.subjects, one.subject), one.id, one.epoch) for one in hold.charged]
        rest = f",{json_of(charged).decode()},{hold.day},{json_of(hold.reply).decode()}"
    return (
        f'["{hold.state}",[{amounts[0]},{amounts[1]},{amounts[2]}],[{floor[0]},{floor[1]},{floor[2]}],'
        f"{_legs(hold.model, hold.subjects, hold.legs)}{rest}]"
    )


@lru_cache(maxsize=4096)
def _legs(model: str, subjects: tuple[Subject, ...], legs: tuple[Ref, ...]) -> str:
    # Cached, because the calls of one user have the same legs.
    named = [(_place(subjects, Subject(leg.scope, leg.subject)), *leg[2:]) for leg in legs]
    return json_of([model, subjects, named]).decode()[1:-1]


def _place(subjects: tuple[Subject, ...], subject: Subject) -> int:
    if subject not in subjects:
        raise BudgetInputError(f"a hold counts against {subject}, which is not one of its subjects")
    return subjects.index(subject)


def hold_of(hold: str, at: bytes | None, row: bytes | None) -> Hold | None:
    """The hold or mark of an id, from its time and its row; None without a time."""
    if at is None:
        return None
    time = int(float(at))
    if row is None:
        return Hold(hold, _plain_state(hold), time)
    state, *rest = json.loads(row)
    if len(rest) < 2:
        return Hold(hold, state, time, reply="".join(rest))
    amounts, floor, model, subjects, legs, *more = rest
    charged, day, reply = more or ((), 0, "")
    owners = tuple(Subject(*one) for one in subjects)
    return Hold(
        hold,
        state,
        time,
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
    """A total in the form that a script adds: as numbers if doubles hold them exactly, else as digits."""
    fits = min(usage) > -_EXACT and max(usage) < _EXACT
    return [name_of(key[:2]), key.day, key.model, usage if fits else list(map(str, usage))]


def totals_of(subject: Subject, flat: Sequence[Any]) -> list[tuple[UsageKey, Usage]]:
    """A subject's totals, from its hash: field, value, ... A value is six numbers, or the overflow of one of them."""
    found: dict[UsageKey, Usage] = {}
    for field, value in _pairs(flat):
        named = _TOTAL.fullmatch(field.decode())
        assert named is not None
        key = UsageKey(*subject, int(named[2]), named[3])
        added = (
            map(int, value) if named[1] is None else (int(value) * (f"{place}" == named[1]) for place in range(1, 7))
        )
        found[key] = found.get(key, Usage()).plus(Usage(*added))
    return list(found.items())


class Writes:
    """The commands for write.lua, in a safe order: first rows are written, then rows are deleted, then totals are increased."""

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
        """Add a member to an index."""
        self._scores.setdefault(key, {})[member] = score

    def unput(self, key: str, field: str) -> None:
        """Delete a field of a hash."""
        self._gone.setdefault(("HDEL", key), []).append(field)

    def unscore(self, key: str, member: str) -> None:
        """Remove a member from an index."""
        self._gone.setdefault(("ZREM", key), []).append(member)

    def subject(self, subject: Subject, old: Sequence[Account], new: Sequence[Account], version: int | None) -> None:
        """Replace a subject's `old` accounts by `new` ones. A new version is written if one is given."""
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
        """Put a hold or mark in place of any row with its id."""
        row, still_open = hold_row(hold), hold.state == "open"
        self.score(":l" if still_open else ":z", hold.id, hold.at)
        self.unscore(":z" if still_open else ":l", hold.id)
        if row is None:
            self.unput(":b", hold.id)
        else:
            self.put(":b", hold.id, row)

    def add_total(self, key: UsageKey, usage: Usage) -> None:
        """Add to totals."""
        self.totals.append(total_row(key, usage))

    def total(self, key: UsageKey, usage: Usage) -> None:
        """Put totals in place of those with the same key."""
        name, field = name_of(Subject(key.scope, key.subject)), f"{key.day}:{key.model}"
        self.score(":w", name, 0)
        for some in ("", *(f"+{place}" for place in range(1, 7))):
            self.unput(f":u:{name}", some + field)
        self.add_total(key, usage)

    def commands(self) -> list[list[Any]]:
        """Redis commands whose keys lack the project's root in front."""
        found: list[list[Any]] = [["SET", key, value] for key, value in self._texts.items()]
        for key, fields_ in self._sets.items():
            found += [["HSET", key, *(word for pair in some for word in pair)] for some in _batches(fields_.items())]
        for key, members in self._scores.items():
            found += [
                ["ZADD", key, *(word for member, score in some for word in (score, member))]
                for some in _batches(members.items())
            ]  # fmt: skip
        for (verb, key), names in self._gone.items():
            found += [[verb, key, *some] for some in _batches(names)]
        return found


def _batches(values: Iterable[Any]) -> Iterable[list[Any]]:
    left = iter(values)
    while some := list(islice(left, _SOME)):
        yield some
