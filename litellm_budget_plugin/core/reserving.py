"""The Reserve command."""

from __future__ import annotations

from typing import Literal

from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.accounts import Account, Amounts, Hold, Ref, Subject, Usage
from litellm_budget_plugin.core.applying import Applying, applying_accounts
from litellm_budget_plugin.core.commands import (
    HEADROOM,
    Closed,
    CountExactly,
    Granted,
    Refused,
    Reserve,
    ReserveReply,
    RollNeeded,
)
from litellm_budget_plugin.core.holding import (
    MOST_DUE,
    expire,
    expire_due,
    give_back,
    put_on,
    record_usage,
)
from litellm_budget_plugin.core.names import clean_label
from litellm_budget_plugin.core.row_store import UnitOfWork
from litellm_budget_plugin.core.windows import DAY

_RANKS = {"blocked": 0, "spent": 1, "held": 2}


def reserve(work: UnitOfWork, command: Reserve) -> ReserveReply:
    """Hold money on every account that applies, or on none."""
    known = work.hold(command.hold)
    if known is not None:
        return _repeated(work, command, known)
    applying, due = applying_accounts(work, command)
    if due:
        return RollNeeded(work.now, tuple(due))
    granted = _grant(work, command, applying)
    # Holds of calls that ended long ago must neither refuse a call nor reduce its grant.
    if _in_the_way(command, granted) and (expired := expire_due(work, excluding=command.replaces)):
        granted = _grant(work, command, applying)
        if _in_the_way(command, granted) and expired >= MOST_DUE - 1:
            work.save()
            return RollNeeded(work.now, ())
    if isinstance(granted, CountExactly):
        return granted
    if isinstance(granted, Refused):
        return _refuse(work, command, granted)
    return _hold(work, command, granted, tuple(account.ref for account, _ in applying))


def _repeated(work: UnitOfWork, command: Reserve, known: Hold) -> Granted | Refused | Closed:
    if known.state == "open" and known.at > work.now:
        return Granted(known.id, known.amounts)
    if known.state == "refused":
        reply = wire.loads(known.reply)
        if isinstance(reply, Refused):
            return reply
    if known.state == "open":
        expire(work, known)
    # The attempt continues without this hold, but the attempt before it has ended.
    _take_off_replaced(work, command)
    work.save()
    return Closed(known.id)


def _in_the_way(command: Reserve, granted: Amounts | Refused | CountExactly) -> bool:
    if isinstance(granted, Refused):
        return True
    return isinstance(granted, Amounts) and granted.usd < command.want.usd


def _grant(work: UnitOfWork, command: Reserve, applying: list[Applying]) -> Amounts | Refused | CountExactly:
    want = command.want
    least = want if command.at_least is None else want._replace(usd=command.at_least)
    freed = work.hold(command.replaces) if command.replaces else None
    refused: list[Refused] = []
    room_usd, roomy = want.usd, True
    for account, default in applying:
        unit = account.ref.unit
        wanted, needed = want.of(unit), least.of(unit)
        limit = account.effective_limit(default, work.now)
        if not wanted or (limit is None and not account.blocked):
            continue
        limit = limit or 0
        held = account.held - _freed(freed, account.ref)
        room = limit - account.spent - held
        roomy = roomy and (unit == "calls" or room >= HEADROOM * wanted)
        if account.blocked or room < needed or room <= 0:
            refused.append(_refused(command, account, account.added_to_limit(default, work.now), limit, held, needed))
        elif unit == "usd":
            room_usd = min(room_usd, room)
    if command.cheap and not roomy:
        return CountExactly(command.hold)
    if refused:
        return min(refused, key=lambda reply: (_RANKS[reply.reason], reply.account))
    return want if room_usd == want.usd else want._replace(usd=room_usd)


def _freed(replaced: Hold | None, ref: Ref) -> int:
    if replaced is None or replaced.state != "open" or ref not in replaced.legs:
        return 0
    return replaced.amounts.of(ref.unit)


def _refused(command: Reserve, account: Account, added: tuple[int, int], limit: int, held: int, needed: int) -> Refused:
    room_unheld = limit - account.spent
    reason: Literal["blocked", "spent", "held"] = "held"
    if account.blocked:
        reason = "blocked"
    elif room_unheld < needed or room_unheld <= 0:
        reason = "spent"
    # The end of a window changes nothing for a blocked account.
    end = None if account.blocked else account.end
    return Refused(command.hold, account.ref, reason, limit, account.spent, held, needed, end, *added)


def _refuse(work: UnitOfWork, command: Reserve, refused: Refused) -> Refused:
    """Record a refusal, unless the caller will ask again anyway."""
    if not (command.patient and refused.reason == "held"):
        work.put_hold(Hold(command.hold, "refused", work.now, reply=wire.dumps(refused)))
        record_usage(work, _subjects(command), work.now // DAY, _label(command), Usage(refusals=1))
    work.save()
    return refused


def _hold(work: UnitOfWork, command: Reserve, amounts: Amounts, accounts: tuple[Ref, ...]) -> Granted:
    _take_off_replaced(work, command)
    hold = Hold(
        command.hold,
        "open",
        work.now + command.expires_after,
        amounts=amounts,
        floor=command.floor.at_most(amounts),
        model=_label(command),
        subjects=_subjects(command),
        legs=accounts,
    )
    put_on(work, hold)
    work.save()
    return Granted(hold.id, amounts)


def _take_off_replaced(work: UnitOfWork, command: Reserve) -> None:
    if command.replaces:
        give_back(work, command.replaces)


def _subjects(command: Reserve) -> tuple[Subject, ...]:
    return tuple(dict.fromkeys(command.subjects))


def _label(command: Reserve) -> str:
    return clean_label(command.models[0]) if command.models else ""
