"""The ledger in this process, and those of its accounts that LiteLLM's protocol has a place for."""

from __future__ import annotations

import uuid
from dataclasses import replace

from litellm_budget_plugin.core.accounts import Account, Default, Ref, Subject
from litellm_budget_plugin.core.applying import default_of
from litellm_budget_plugin.core.book import Changes
from litellm_budget_plugin.core.commands import DropBudget, PutBudget
from litellm_budget_plugin.core.ledger import DictBook, apply
from litellm_budget_plugin.stores.loading import load
from litellm_budget_plugin.stores.memory import rows_of
from litellm_budget_plugin.stores.rows import Rows


def recordable(ref: Ref) -> bool:
    """Whether the protocol has a place for an account: one of a user, for any model, in US dollars."""
    return (ref.scope, ref.model, ref.unit) == ("user", "", "usd")


class NotingBook(DictBook):
    """Rows in dictionaries, and for each project the users whose records may have to be written."""

    def __init__(self) -> None:
        super().__init__()
        self.touched: dict[str, set[str]] = {}

    def touch(self, project: str, user: str) -> None:
        """The user's record may have to be written."""
        self.touched.setdefault(project, set()).add(user)

    def write(self, project: str, changes: Changes) -> None:
        """Apply the changes, and note whose they are."""
        for ref in changes.accounts:
            if recordable(ref):
                self.touch(project, ref.subject)
        super().write(project, changes)

    def counting(self, project: str, user: str, defaults: tuple[Default, ...]) -> Account | None:
        """The account that a user's record stands for: the one that a `PutBudget` would change."""
        rows = [row for row in self.accounts(project, Subject("user", user)) if recordable(row.ref)]
        return min(
            rows,
            key=lambda row: (not row.pinned, default_of(row, defaults) is None, row.dropped, row.ref),
            default=None,
        )

    def place(
        self, project: str, mine: Account | None, account: Account, defaults: tuple[Default, ...], now: int
    ) -> Account:
        """Put a user's account into the place of `mine`; what is held there stays held. Returns it as it is now."""
        if mine is not None and mine.ref != account.ref:
            subject, bounds = Subject(account.ref.scope, account.ref.subject), (account.start, account.end)
            put = PutBudget(f"moved:{uuid.uuid4().hex}", project, subject, window=account.ref.window, bounds=bounds)
            apply(self, replace(put, only=True, defaults=defaults), now)
            mine = next(row for row in self.accounts(project, subject) if row.ref == account.ref)
            account = replace(account, id=mine.id)
        account = replace(account, held=mine.held if mine is not None else 0)
        self.write(project, Changes({account.ref: account.copy()}))
        return account

    def drop(self, project: str, account: Account, now: int) -> None:
        """Forget an account; what is held on it stays held until its calls end."""
        subject = Subject(account.ref.scope, account.ref.subject)
        apply(self, DropBudget(f"gone:{uuid.uuid4().hex}", project, subject, "", account.ref.window), now)

    def block(self, project: str, user: str, now: int, *, blocked: bool) -> None:
        """Let nothing be held for a user, or let it be again."""
        put = PutBudget(f"blocked:{uuid.uuid4().hex}", project, Subject("user", user), window="none", blocked=blocked)
        apply(self, put, now)

    def inherited(self) -> NotingBook:
        """A book for a forked child: what lives in this process only, without the holds and what the endpoint has: those are
        the parent's to settle and to write.
        """
        child = NotingBook()
        for project in self.projects():
            rows = rows_of(self, project, self.keys(project))
            accounts = tuple(
                replace(row, held=0, models=dict(row.models))
                for row in rows.accounts
                if not row.dropped and not recordable(row.ref) and (row.pinned or row.ref.scope != "project")
            )
            marks = tuple(hold for hold in rows.holds if hold.state not in ("open", "expired"))
            load(child, project, Rows(accounts, marks, rows.usage))
        return child
