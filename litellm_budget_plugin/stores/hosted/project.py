"""What all users of a project have spent: the protocol has no record of it, so it is told from theirs."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping

from litellm_budget_plugin.core.accounts import Account, Default, Ref, Subject
from litellm_budget_plugin.core.book import Changes
from litellm_budget_plugin.core.ledger import DictBook
from litellm_budget_plugin.core.windows import bounds, parse_window


def begin(book: DictBook, project: str, default: Default, users: Iterable[Account], now: int) -> None:
    """Open the project's account with what its users' records show to have been spent in its window, if anything. That may
    be less than was spent (users whose window began before it are left out), and is never more.
    """
    ref = Ref("project", project, "", default.window)
    if any(row.ref == ref for row in book.accounts(project, Subject("project", project))):
        return
    start, end = bounds(parse_window(default.window), now)
    account = Account(ref, f"T:{uuid.uuid4().hex}", now, start, end)
    for user in users:
        if end is None or (user.end is not None and user.start >= start and not user.over(now)):
            _charge(account, user.models)
    if account.spent:
        book.write(project, Changes({ref: account}))


def add(book: DictBook, project: str, known: Mapping[str, int], models: Mapping[str, int], now: int) -> None:
    """Charge the project's accounts with what a user has spent beyond what is `known`."""
    more = {model: spent - known.get(model, 0) for model, spent in models.items()}
    more = {model: spent for model, spent in more.items() if spent > 0}
    for account in book.accounts(project, Subject("project", project)) if more else ():
        if account.ref.model == "" and account.ref.unit == "usd" and not account.dropped and not account.over(now):
            _charge(account, more)
            book.write(project, Changes({account.ref: account}))


def _charge(account: Account, models: Mapping[str, int]) -> None:
    for model, spent in models.items():
        account.charge(spent, model)
