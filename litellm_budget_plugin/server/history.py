"""Who changed what: the last changes of each subject that people made, on pages or over HTTP in sentences.

They lie in the ledger like keys do, as accounts of a project of their own, so that they are there on any store and after any restart.
"""

from __future__ import annotations

import json
import logging
from typing import NamedTuple

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Accounts, AccountState, DropBudget, PutBudget, Read
from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.server.ledger import ServedLedger
from litellm_budget_plugin.stores.protocol import Store, ask

_logger = logging.getLogger("litellm_budget_plugin.server")

HISTORY_PROJECT = "litellm-budget:history"
"""Where changes lie in a ledger. No key opens it."""
MOST = 50
"""How many changes of a subject are kept."""
_LONGEST = 120


class Changed(NamedTuple):
    """A change: when, in microseconds since 1970, by which key's label, and what."""

    at: int
    who: str
    what: str


def note(store: Store, project: str, subject: Subject, who: str, what: str, id: str) -> None:  # noqa: A002  # the command's
    """Keep a change, once for each `id`, and forget the oldest where there are too many. Raises what the store raises."""
    kept = _place(project, subject)
    said = what if len(what) <= _LONGEST else f"{what[: _LONGEST - 1]}…"
    text = json.dumps([id[-12:], who, said], ensure_ascii=False)
    ask(store, PutBudget(f"history:{id}", HISTORY_PROJECT, kept, model=text, limit=None))
    for state in _states(store, kept)[MOST:]:
        ask(store, DropBudget(f"forget:{state.ref.model}", HISTORY_PROJECT, kept, model=state.ref.model))


def changes_of(store: Store, project: str, subject: Subject) -> list[Changed]:
    """The last changes of a subject, the newest first. Raises what the store raises."""
    states = _states(store, _place(project, subject))
    return [Changed(state.created_at, *json.loads(state.ref.model)[1:]) for state in states]


async def remember(ledger: ServedLedger, project: str, subject: Subject, who: str, what: str, id: str) -> None:  # noqa: A002
    """Keep a change that was made. It stands, whatever becomes of that."""
    try:
        await ledger.run(note, ledger.store, project, subject, who, what, id)
    except BudgetError as error:
        _logger.error("a change of %s %r of project %r is not in its history: %s", *subject, project, error)


def _place(project: str, subject: Subject) -> Subject:
    return Subject(project, f"{subject.scope}:{subject.id}")


def _states(store: Store, kept: Subject) -> list[AccountState]:
    reply = ask(store, Read(HISTORY_PROJECT, *kept))
    assert isinstance(reply, Accounts)
    return sorted(reply.accounts, key=lambda state: (-state.created_at, state.ref))
