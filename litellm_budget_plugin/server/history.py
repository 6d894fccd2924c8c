"""The last changes that people made to each subject, on pages or in sentences over HTTP.

The ledger stores them like keys, as accounts of a separate project, so that they exist on any store and survive restarts.
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
"""The project of the ledger that holds the changes. No key opens it."""
MOST = 50
"""The number of changes kept for each subject."""
_LONGEST = 120


class Changed(NamedTuple):
    """A change: its time in microseconds since 1970, the label of the key that made it, and a description."""

    at: int
    who: str
    what: str


def note(store: Store, project: str, subject: Subject, who: str, what: str, id: str) -> None:  # noqa: A002  # the command's
    """Store a change, once for each `id`, and drop the oldest ones beyond MOST. Raises what the store raises."""
    kept = _place(project, subject)
    said = what if len(what) <= _LONGEST else f"{what[: _LONGEST - 1]}…"
    text = json.dumps([id[-12:], who, said], ensure_ascii=False)
    ask(store, PutBudget(f"history:{id}", HISTORY_PROJECT, kept, model=text, limit=None))
    for state in _states(store, kept)[MOST:]:
        ask(store, DropBudget(f"forget:{state.ref.model}", HISTORY_PROJECT, kept, model=state.ref.model))


def changes_of(store: Store, project: str, subject: Subject) -> list[Changed]:
    """Return the last changes of a subject, the newest first. Raises what the store raises."""
    states = _states(store, _place(project, subject))
    return [Changed(state.created_at, *json.loads(state.ref.model)[1:]) for state in states]


async def remember(ledger: ServedLedger, project: str, subject: Subject, who: str, what: str, id: str) -> None:  # noqa: A002
    """Store a change that was made. The change stands even if storing it here fails, which is logged."""
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
