"""Waiting until calls in flight release the money that they hold: WAIT_FOR_HELD.

A synchronous call waits in its thread. An asynchronous call is deferred: LiteLLM calls the gate without awaiting it, so
the gate lets the call continue with nothing held. The call then waits where LiteLLM awaits something before the request
leaves. A deferred call that reaches `Logging.pre_call` without having waited is held for, or refused, there.
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
"""Seconds between two looks at the ledger for money that other processes release. They grow from one look to the next,
within these bounds.
"""


class Place(Enum):
    """A place where a call could wait."""

    NOWHERE = "nowhere"
    THREAD = "thread"
    """In the thread that makes the call."""
    LATER = "later"
    """Later, where LiteLLM awaits something."""


def place_of(asynchronous: bool) -> Place:
    """Return where a call can wait that LiteLLM makes in this thread now."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return Place.NOWHERE if asynchronous else Place.THREAD
    if asynchronous:
        return Place.LATER
    # A synchronous call blocks its event loop, and with it the calls that it would wait for. The Router makes its
    # synchronous calls on loops that run only one task.
    return Place.THREAD if len(asyncio.all_tasks(loop)) == 1 and asyncio.current_task() is not None else Place.NOWHERE


def hold_or_wait(call: Call, place: Place) -> None:
    """Hold for a call at the gate. In a thread, wait for the money if necessary. A call that will wait later is then
    deferred, with nothing held. Raises what `admission.admit` raises.
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
    """Wait for the money of a deferred call, without blocking the event loop. Raises what `admission.admit` raises.
    Then nothing is held.
    """
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
    """Remove the waiter from the line however its waiting ends. Its call then has its money, or is released."""
    try:
        yield
    except BaseException:
        call.release()
        raise
    finally:
        call.waiter = None
        call.ledger.waiting_line.leave(waiter)


def _arrive(call: Call) -> Waiter | None:
    """Put the call into the line and return its place; None if it has its money at once, or must not wait."""
    ledger = call.ledger
    seconds, line = ledger.settings.wait_for_held, ledger.waiting_line
    if not seconds or ledger.settings.mode != "enforce" or len(line) >= MOST_WAITING:
        return None
    until = time.monotonic() + seconds
    if call.estimate is None:
        call.estimate = call.bound()
    account = line.ahead(call.subjects, call.models, want_of(call.estimate))
    if account is not None and call.estimate.loose:
        # A loose bound that does not fit proves nothing. But a call that tries now would overtake others.
        call.estimate = call.bound(exact=True)
    if account is None or not _could_fit(call):
        refused = try_to_hold(call)
        if refused is None:
            return None
        account = refused.account
    waiter = Waiter(call.subjects, call.models, want_of(call.estimate), account, until)
    # Set before it enters the line: an interrupt can come between any two lines, and the end of the call removes it.
    call.waiter = waiter
    line.enter(waiter)
    return waiter


def _could_fit(call: Call) -> bool:
    """Return whether there is room for the call once nothing is held. A call that can be made smaller is not checked."""
    assert call.estimate is not None
    if call.plan is not None:
        return True
    try:
        with call.ledger.one_call():
            return fits_unheld(call.ledger, call.subjects, call.models, call.defaults, want_of(call.estimate))
    except BudgetStoreError:
        # The attempt to hold handles an unreachable store.
        return False


def _tries(call: Call, waiter: Waiter) -> Iterator[float]:
    """Try to hold for the call when it is its turn. Between two tries, yield the most seconds to wait for a wake-up.
    When its time is up, it tries once more, and is refused as if it had not waited.
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
