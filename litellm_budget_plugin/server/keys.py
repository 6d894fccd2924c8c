"""API keys: what opens one project to whoever holds it, for reading or for changing too.

A key is `lbk_` with 12 hexadecimal digits that name it and 43 characters of secret (256 bits, so that a plain SHA-256 of it
cannot be searched for). The ledger keeps that digest and never the key: as accounts of a project of its own, so that every
server on the ledger knows the same keys, on any store, and `copy` takes them along.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, get_args

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Accounts, AccountState, DropBudget, PutBudget, Read
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.protocol import Store, ask

KEYS_PROJECT = "litellm-budget:keys"
"""Where keys lie in a ledger. No key opens it."""

_KEYED = Subject("mark", "keyed")
"""Lies beside the keys from the first one on: a ledger that has had a key is never open again, also when the last one is revoked."""

Access = Literal["read-only", "read-write"]
MAX_LABEL = 100
_FORM = re.compile(r"lbk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class Key(NamedTuple):
    """What is known of a key. `digest` is the SHA-256 of the whole key; `created_at` is in microseconds since 1970."""

    id: str
    project: str
    access: Access
    label: str
    digest: str
    created_at: int

    @property
    def subject(self) -> Subject:
        """Where it lies in the ledger."""
        return Subject(self.access, f"{self.id}:{self.digest}:{self.label}")


def create_key(store: Store, project: str, access: Access = "read-write", label: str = "key") -> tuple[Key, str]:
    """Make a key. Returns what the ledger keeps and the key itself, which cannot be shown again.

    Raises BudgetInputError for a project or a label that cannot be, and what the store raises.
    """
    if checked_id(project, "project") == KEYS_PROJECT:
        raise BudgetInputError(f"{KEYS_PROJECT!r} holds the keys themselves; no key opens it")
    if access not in get_args(Access):
        raise BudgetInputError(f"access must be one of {', '.join(get_args(Access))}, got {access!r}")
    if len(checked_id(label, "label")) > MAX_LABEL:
        raise BudgetInputError(f"label must have at most {MAX_LABEL} characters, got {len(label)}")
    text = f"lbk_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"
    key = Key(text[4:16], project, access, label, _digest(text), 0)
    ask(store, PutBudget("keyed", KEYS_PROJECT, _KEYED, limit=None))
    ask(store, PutBudget(f"key:{key.id}", KEYS_PROJECT, key.subject, model=project, limit=None))
    return key, text


def list_keys(store: Store) -> Iterator[Key]:
    """Every key that is not revoked, project by project in no other order."""
    for access in get_args(Access):
        after: str | None = ""
        while after is not None:
            reply = ask(store, Read(KEYS_PROJECT, access, after=after))
            assert isinstance(reply, Accounts)
            yield from (_key(state) for state in reply.accounts if state.pinned)
            after = reply.after


def has_had_keys(store: Store) -> bool:
    """Whether there is a key, or ever was one."""
    reply = ask(store, Read(KEYS_PROJECT, *_KEYED))
    return isinstance(reply, Accounts) and bool(reply.accounts)


def revoke_key(store: Store, key_id: str) -> Key:
    """Revoke a key by its id or by the key itself. Servers refuse it within REFRESH_SECONDS. Raises BudgetInputError if there is none."""
    form = _FORM.fullmatch(key_id)
    wanted = form[1] if form else key_id
    for key in list_keys(store):
        if key.id == wanted:
            ask(store, DropBudget(f"revoke:{key.id}", KEYS_PROJECT, key.subject))
            return key
    raise BudgetInputError(f"no key has the id {wanted!r:.40}; `litellm-budget keys list` shows those there are")


def _key(state: AccountState) -> Key:
    id_, digest, label = state.ref.subject.split(":", 2)
    access: Access = "read-write" if state.ref.scope == "read-write" else "read-only"
    return Key(id_, state.ref.model, access, label, digest, state.created_at)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def has_form(text: str) -> bool:
    """Whether `text` could be a key."""
    return _FORM.fullmatch(text) is not None


class KeyRing:
    """The keys of a ledger, looked up in memory. Not for several threads: `replace` swaps all of them in one step."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}
        self.keyed = True
        """Whether the ledger has, or ever had, a key; so it is taken for as long as nobody knows."""
        self.known = False
        """Whether the keys were read at all."""

    def replace(self, keys: Iterable[Key], keyed: bool) -> None:
        """Know these and no others; `keyed` says whether there ever was one."""
        self._keys = {key.id: key for key in keys}
        self.keyed, self.known = keyed or (self.known and self.keyed), True

    def find(self, text: str) -> Key | None:
        """The key that `text` is, compared in constant time whether there is one or not."""
        form = _FORM.fullmatch(text)
        key = self._keys.get(form[1]) if form else None
        # One comparison in either case: how long it takes tells nothing about which ids there are.
        same = hmac.compare_digest(_digest(text[:200]), key.digest if key else _digest(""))
        return key if key is not None and same else None
