"""What becomes of an account when somebody else has written its record. Pure.

Three states meet: `base`, on which this process and the endpoint had agreed; `mine`, what this process has made of it and
the endpoint does not have yet; and `theirs`, what the endpoint has now. What was spent here since `base` is added to theirs.
A limit, a window, a reset or a drop made here wins. Of two windows, the one that began later counts, without the spend of
the earlier one.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace

from litellm_budget_plugin.core.accounts import Account, Ref
from litellm_budget_plugin.stores.hosted.records import Recorded


def recorded_part(account: Account | None, base: Account | None) -> Account | None:
    """The account, if there is something to record of it: not of a user of the default who has spent nothing yet."""
    if account is None or account.dropped:
        return None
    return account if account.pinned or account.models or account.epoch or base is not None else None


def differ(mine: Account | None, base: Account | None) -> bool:
    """Whether this process has made something of `base` that the endpoint does not have."""
    return _said(recorded_part(mine, base)) != _said(base)


def _said(account: Account | None) -> tuple[object, ...]:
    if account is None:
        return ()
    limit = (account.pinned, account.limit if account.pinned else None)
    return account.id, account.epoch, limit, account.ref.window, _times(account), account.models


def _times(account: Account) -> tuple[int, ...]:
    return () if account.end is None else (account.created_at, account.start, account.end)


def merge(
    user: str, mine: Account | None, base: Account | None, theirs: Recorded | None
) -> tuple[Account | None, Account | None]:
    """The account as it is now, and what is agreed of it now. What differs between the two is still to be written."""
    mine = recorded_part(mine, base)
    known = {} if base is None else base.models
    if not differ(mine, base):
        agreed = None if theirs is None else _taken(user, theirs, mine, known)
        return agreed, agreed
    if theirs is None:
        return (None if mine is None else _dropped_there(mine, base)), None
    if mine is None:
        return None, _taken(user, theirs, base, known)
    merged = _taken(user, theirs, mine, known)
    if (mine.pinned if base is None else _moved(mine, base)) or _later(mine, theirs):
        merged.ref, merged.created_at, merged.start, merged.end = mine.ref, mine.created_at, mine.start, mine.end
    if mine.pinned if base is None else _limited(mine, base):
        merged.pinned, merged.limit = mine.pinned, mine.limit
    merged.models = _models(mine, base, theirs)
    merged.spent = sum(merged.models.values())
    # What began anew here is still no part of what they have: the next merge must know.
    row = base if base is not None and _replaced(mine, base) and not _adds(mine, base, theirs) else merged
    return merged, replace(_taken(user, theirs, mine, known), id=row.id, epoch=row.epoch)


def _taken(user: str, theirs: Recorded, mine: Account | None, known: Mapping[str, int]) -> Account:
    """The account that a record stands for, in the place of `mine`. Its epoch grows if its window is another or if less is
    spent than was `known`: corrections of what was charged before are void then.
    """
    ref = Ref("user", user, "", theirs.window)
    if mine is None:
        account = Account(ref, f"T:{uuid.uuid4().hex}", theirs.created_at, theirs.start, theirs.end)
    else:
        account = replace(mine, ref=ref, dropped=False)
        if theirs.end is not None or mine.end is not None:
            account.created_at, account.start, account.end = theirs.created_at, theirs.start, theirs.end
        taken_back = any(theirs.models.get(model, 0) < spent for model, spent in known.items())
        if taken_back or (account.start, account.end) != (mine.start, mine.end):
            account.epoch += 1
            account.alerted = 0
    account.pinned = not theirs.follows
    account.limit = None if theirs.follows else theirs.limit
    account.models = {model: spent for model, spent in theirs.models.items() if spent}
    account.spent = theirs.spent
    return account


def _later(mine: Account, theirs: Recorded) -> bool:
    """Whether they still have a window that is over here."""
    return theirs.window == mine.ref.window and theirs.end is not None and theirs.start < mine.start


def _replaced(mine: Account, base: Account) -> bool:
    """Whether what was spent began anew here: by a roll, a reset, or a budget that was dropped and made again."""
    return (mine.id, mine.epoch) != (base.id, base.epoch)


def _rolled(mine: Account, base: Account) -> bool:
    same = (mine.id, mine.ref.window) == (base.id, base.ref.window)
    return same and mine.epoch != base.epoch and mine.end is not None and mine.start != base.start


def _moved(mine: Account, base: Account) -> bool:
    if mine.ref.window != base.ref.window:
        return True
    return _times(mine) != _times(base) and not _replaced(mine, base)


def _limited(mine: Account, base: Account) -> bool:
    return (mine.pinned, mine.pinned and mine.limit) != (base.pinned, base.pinned and base.limit)


def _adds(mine: Account, base: Account, theirs: Recorded) -> bool:
    """Whether what was spent here since a roll comes on top of what they have in the same window, or a later one."""
    return _rolled(mine, base) and not _later(mine, theirs)


def _models(mine: Account, base: Account | None, theirs: Recorded) -> dict[str, int]:
    if base is None or _adds(mine, base, theirs):
        return _sum(theirs.models, mine.models, {})
    if _replaced(mine, base):
        return dict(mine.models)
    return _sum(theirs.models, mine.models, base.models)


def _sum(theirs: Mapping[str, int], mine: Mapping[str, int], base: Mapping[str, int]) -> dict[str, int]:
    """Theirs and what was spent here since `base`; never less than nothing, whatever they took back meanwhile."""
    models = theirs.keys() | mine.keys()
    sums = {model: theirs.get(model, 0) + mine.get(model, 0) - base.get(model, 0) for model in models | base.keys()}
    return {model: spent for model, spent in sums.items() if spent > 0}


def _dropped_there(mine: Account, base: Account | None) -> Account | None:
    """They have forgotten the user: what was spent here since then stays, and a limit that was set here."""
    if base is None or _replaced(mine, base):
        return mine
    kept = replace(mine, models=_sum({}, mine.models, base.models))
    kept.spent = sum(kept.models.values())
    kept.epoch += 1
    if not _limited(mine, base):
        kept.pinned, kept.limit = False, None
        return kept if kept.models else None
    return kept
