"""API keys, each of which opens one project, for reading only or also for changes, and the sessions of browsers.

A key is `lbk_` with 12 hexadecimal digits as its id and 43 characters of secret (256 bits, so that a plain SHA-256
of it cannot be searched for). The ledger keeps the SHA-256 and never the key. Keys are accounts of a separate project, so that
every server on the ledger knows the same keys, on any store, and `copy` copies them.

A session is like a key, `lbs_…`. A browser gets it for a key at log-in. It ends at log-out, after SESSION_SECONDS, and with its
key. The ledger keeps it beside the keys, so it ends on every server.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, get_args

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import MICROS, AccountState, DropBudget, PutBudget, Read
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.protocol import Store, ask

KEYS_PROJECT = "litellm-budget:keys"
"""The project of the ledger that holds the keys. No key opens it."""

_KEYED = Subject("mark", "keyed")
"""A marker that is stored beside the keys from the first one on. A ledger that ever had a key is never open again, even when
the last key is revoked.
"""

Access = Literal["read-only", "read-write"]
MAX_LABEL = 100
SESSION_SECONDS = 12 * 3600
_SESSION = "session"
_MOST_SESSIONS = 50
"""The most sessions of a key; a further one ends the oldest."""
_FORM = re.compile(r"(lb[ks])_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


class Key(NamedTuple):
    """A key without its secret. `digest` is the SHA-256 of the whole key; `created_at` is in microseconds since 1970."""

    id: str
    project: str
    access: Access
    label: str
    digest: str
    created_at: int

    @property
    def subject(self) -> Subject:
        """The subject under which the ledger stores the key."""
        return Subject(self.access, f"{self.id}:{self.digest}:{self.label}")


def create_key(store: Store, project: str, access: Access = "read-write", label: str = "key") -> tuple[Key, str]:
    """Make a key. Return the ledger's record of it and the key itself, which cannot be shown again.

    Raises BudgetInputError for an invalid project, access or label, and what the store raises.
    """
    if checked_id(project, "project") == KEYS_PROJECT:
        raise BudgetInputError(f"{KEYS_PROJECT!r} holds the keys themselves; no key opens it")
    if access not in get_args(Access):
        raise BudgetInputError(f"access must be one of {', '.join(get_args(Access))}, got {access!r}")
    if len(checked_id(label, "label")) > MAX_LABEL:
        raise BudgetInputError(f"label must have at most {MAX_LABEL} characters, got {len(label)}")
    text = _new("lbk")
    key = Key(text[4:16], project, access, label, _digest(text), 0)
    ask(store, PutBudget("keyed", KEYS_PROJECT, _KEYED, limit=None))
    ask(store, PutBudget(f"key:{key.id}", KEYS_PROJECT, key.subject, model=project, limit=None))
    return key, text


def list_keys(store: Store) -> Iterator[Key]:
    """Yield every key that is not revoked, the read-only ones first, each group in the order of ids."""
    for access in get_args(Access):
        yield from (_key(state) for state in _states(store, access))


def _states(store: Store, scope: str) -> Iterator[AccountState]:
    after: str | None = ""
    while after is not None:
        reply = ask(store, Read(KEYS_PROJECT, scope, after=after))
        yield from (state for state in reply.accounts if state.pinned)
        after = reply.after


def has_had_keys(store: Store) -> bool:
    """Return whether the ledger has a key or ever had one."""
    return bool(ask(store, Read(KEYS_PROJECT, *_KEYED)).accounts)


def revoke_key(store: Store, key_id: str) -> Key:
    """Revoke a key, given its id or the key itself. Servers refuse it within REFRESH_SECONDS. Raises BudgetInputError if there
    is none.
    """
    form = _FORM.fullmatch(key_id)
    wanted = form[2] if form else key_id
    for key in list_keys(store):
        if key.id == wanted:
            ask(store, DropBudget(f"revoke:{key.id}", KEYS_PROJECT, key.subject))
            return key
    raise BudgetInputError(f"no key has the id {wanted!r:.40}; `litellm-budget keys list` shows the valid ones")


class Session(NamedTuple):
    """A session as the ledger keeps it. `digest` is the SHA-256 of its whole text; `ends_at` is in microseconds since 1970."""

    id: str
    digest: str
    key_id: str
    ends_at: int

    @property
    def subject(self) -> Subject:
        """The subject under which the ledger stores the session."""
        return Subject(_SESSION, f"{self.id}:{self.digest}:{self.key_id}")


def begin_session(store: Store, key_id: str) -> str:
    """Begin a session of a key. Return the text that the browser keeps. Raises what the store raises."""
    text = _new("lbs")
    session = Session(text[4:16], _digest(text), key_id, 0)
    others = sorted((one for one in list_sessions(store) if one.key_id == key_id), key=lambda one: one.ends_at)
    _drop(store, others[: max(0, len(others) - _MOST_SESSIONS + 1)])
    ask(store, PutBudget(f"session:{session.id}", KEYS_PROJECT, session.subject, limit=None))
    return text


def list_sessions(store: Store) -> Iterator[Session]:
    """Yield every session that was not ended or dropped. Some may have expired."""
    for state in _states(store, _SESSION):
        id_, digest, key_id = state.ref.subject.split(":")
        yield Session(id_, digest, key_id, state.created_at + SESSION_SECONDS * MICROS)


def end_session(store: Store, text: str) -> None:
    """End a session. Servers refuse it within REFRESH_SECONDS. Raises what the store raises."""
    _drop(store, [session for session in list_sessions(store) if session.digest == _digest(text)])


def end_old_sessions(store: Store) -> None:
    """Drop the expired sessions. Raises what the store raises."""
    now = time.time_ns() // 1000
    _drop(store, [session for session in list_sessions(store) if session.ends_at <= now])


def _drop(store: Store, sessions: Iterable[Session]) -> None:
    for session in sessions:
        ask(store, DropBudget(f"end:{session.id}", KEYS_PROJECT, session.subject))


def _new(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"


def _key(state: AccountState) -> Key:
    id_, digest, label = state.ref.subject.split(":", 2)
    access: Access = "read-write" if state.ref.scope == "read-write" else "read-only"
    return Key(id_, state.ref.model, access, label, digest, state.created_at)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


Kind = Literal["lbk", "lbs"]
"""The prefix of a text: "lbk" for a key, "lbs" for a session."""


def has_form(text: str, kind: Kind) -> bool:
    """Return whether `text` has the form of a key, or of a session."""
    return _FORM.fullmatch(text) is not None and text.startswith(kind)


class KeyRing:
    """The keys and sessions of a ledger, looked up in memory. Not thread-safe: it belongs to one event loop."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[str, Key, float]] = {}
        self.keyed = True
        """Whether the ledger has, or ever had, a key. True until the keys have been read."""
        self.known = False
        """Whether the keys were ever read."""

    def replace(self, keys: Iterable[Key], keyed: bool, sessions: Iterable[Session] = ()) -> None:
        """Replace all keys and sessions. `keyed` says whether the ledger ever had a key. A session without its key is dropped."""
        by_id = {key.id: key for key in keys}
        self._known = {("lbk", key.id): (key.digest, key, math.inf) for key in by_id.values()}
        for session in sessions:
            if session.key_id in by_id:
                self._known["lbs", session.id] = (session.digest, by_id[session.key_id], session.ends_at)
        self.keyed, self.known = keyed or (self.known and self.keyed), True

    def find(self, text: str, kind: Kind = "lbk") -> Key | None:
        """Return the key that `text` is, or the key of the session that `text` is; None for any other text. The comparison
        takes constant time, whether the id exists or not.
        """
        form = _FORM.fullmatch(text)
        found = self._known.get((kind, form[2])) if form and form[1] == kind else None
        digest, key, until = found or (_digest(""), None, 0.0)
        # Compare once in either case, so that the time taken does not reveal which ids exist.
        same = hmac.compare_digest(_digest(text[:200]), digest)
        return key if same and until > time.time_ns() // 1000 else None
