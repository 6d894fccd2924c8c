"""Waiting for money that only calls in flight stand in the way of: WAIT_FOR_HELD.

A synchronous call waits in its thread. An asynchronous one is deferred: the gate, which LiteLLM calls without awaiting it, lets the
call go on with nothing held, and the call waits where LiteLLM awaits something before the request leaves. One that comes
to `Logging.pre_call` without having been there is held for, or refused, then.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

from litellm_budget_plugin.core.commands import Refused
from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.hooks.admission import admit, try_to_hold
from litellm_budget_plugin.hooks.near_limit.headroom import fits_unheld
from litellm_budget_plugin.hooks.near_limit.plan import want_of
from litellm_budget_plugin.manager.waiting_line import MOST_WAITING, Waiter

if TYPE_CHECKING:
    from litellm_budget_plugin.hooks.call import Call

_SOONEST, _LATEST = 0.02, 1.0
"""Seconds between two looks at the ledger, for what other processes give back: more each time, within these bounds."""


class Place(Enum):
    """Where a call could wait."""

    NOWHERE = "nowhere"
    THREAD = "thread"
    """In the thread that makes the call."""
    LATER = "later"
    """Where LiteLLM awaits something."""


def place_of(asynchronous: bool) -> Place:
    """Where a call can wait that LiteLLM makes in this thread now."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return Place.NOWHERE if asynchronous else Place.THREAD
    if asynchronous:
        return Place.LATER
    # A synchronous call blocks the loop that it is made on, and with it the calls that it would wait for. The Router makes its
    # synchronous calls on loops that run nothing else than one task.
    return Place.THREAD if len(asyncio.all_tasks(loop)) == 1 and asyncio.current_task() is not None else Place.NOWHERE


def hold_or_wait(call: Call, place: Place) -> None:
    """Hold for a call at the gate; in a thread, wait for it if need be. A call that is to wait later is `deferred` then, with nothing
    held. Raises what `admission.admit` raises.
    """
    waiter = None if place is Place.NOWHERE else _arrive(call)
    if waiter is None:
        if not call.admitted:
            admit(call)
        return
    if place is Place.LATER:
        waiter.gone = asyncio.get_running_loop().is_closed
        return
    woken = threading.Event()
    waiter.wake = woken.set
    with _in_line(call, waiter):
        for seconds in _tries(call, waiter):
            woken.wait(seconds)
            woken.clear()


async def wait_deferred(call: Call) -> None:
    """Wait for a deferred call, without blocking the event loop. Raises what `admission.admit` raises; then nothing is held."""
    waiter = call.waiter
    if waiter is None:
        return
    loop, woken = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        # The loop may be closed by now, and the call with it.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(woken.set)

    waiter.wake = wake
    with _in_line(call, waiter):
        for seconds in _tries(call, waiter):
            # Not asyncio.wait_for, which can swallow a cancellation up to Python 3.11.
            timer = loop.call_later(seconds, woken.set)
            try:
                await woken.wait()
            finally:
                timer.cancel()
            woken.clear()


@contextlib.contextmanager
def _in_line(call: Call, waiter: Waiter) -> Iterator[None]:
    """The waiter leaves the line however its waiting ends, and its call has money, or is over."""
    try:
        yield
    except BaseException:
        call.release()
        raise
    finally:
        call.waiter = None
        call.ledger.waiting_line.leave(waiter)


def _arrive(call: Call) -> Waiter | None:
    """The call's place in the line; None if it has its money at once, or must not wait."""
    ledger = call.ledger
    seconds, line = ledger.settings.wait_for_held, ledger.waiting_line
    if not seconds or ledger.settings.mode != "enforce" or len(line) >= MOST_WAITING:
        return None
    until = time.monotonic() + seconds
    if call.estimate is None:
        call.estimate = call.bound()
    account = line.ahead(call.subjects, call.models, want_of(call.estimate))
    if account is not None and call.estimate.loose:
        # A loose bound that does not fit says nothing, and a call that tries now would overtake.
        call.estimate = call.bound(exact=True)
    if account is None or not _could_fit(call):
        refused = try_to_hold(call)
        if refused is None:
            return None
        account = refused.account
    waiter = Waiter(call.subjects, call.models, want_of(call.estimate), account, until)
    # Before it stands in the line: an interrupt can fall between any two lines, and the call's end takes it out.
    call.waiter = waiter
    line.enter(waiter)
    return waiter


def _could_fit(call: Call) -> bool:
    """Whether there is room for the call once nothing is held. Where a call can be made smaller, that is not looked at."""
    assert call.estimate is not None
    if call.plan is not None:
        return True
    try:
        with call.ledger.one_call():
            return fits_unheld(call.ledger, call.subjects, call.models, call.defaults, want_of(call.estimate))
    except BudgetStoreError:
        # What it does with a store that is away, the attempt to hold says.
        return False


def _tries(call: Call, waiter: Waiter) -> Iterator[float]:
    """Hold for the call in its turn; between two tries, how many seconds to wait at most until something wakes it. When its time is up
    it tries once more, and is refused as if it had not waited.
    """
    line, pause = call.ledger.waiting_line, _SOONEST
    while waiter.seconds_left > 0:
        seconds = _LATEST
        if line.ahead(waiter.subjects, waiter.models, waiter.want, waiter.number) is None:
            refused: Refused | None = try_to_hold(call)
            if refused is None:
                return
            line.move(waiter, refused.account)
            seconds, pause = pause * random.uniform(0.5, 1.0), min(2 * pause, _LATEST)  # noqa: S311  # to spread processes
        yield max(0.0, min(seconds, waiter.seconds_left))
    admit(call)
