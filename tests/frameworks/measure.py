"""Run in a framework's environment: measure each of its ways to call a model, for a user with money and for a user without.

python -m tests.frameworks.measure NAME RESULT.json
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.frameworks.framework import LOST, MODEL, STREAM, UNCOVERED, Framework, Seen, Setup, Way
from tests.frameworks.provider import Provider

# Nano-dollars for each input and output token, as LiteLLM knows them.
PRICES = {MODEL: (2_500, 10_000)}
PATIENCE = 20.0
# Seconds for which the provider pauses in the middle of a stream that is dropped.
LONG = 3.0


def framework(name: str) -> Framework:
    """Return the framework that a module of this package declares."""
    declared: Framework = importlib.import_module(f"tests.frameworks.{name}").FRAMEWORK
    return declared


class Ledger:
    """The ledger that the framework's calls are written to."""

    def __init__(self, *, in_process: bool) -> None:
        import litellm

        from litellm_budget_plugin import BudgetCallback, BudgetManager

        litellm.suppress_debug_info = True
        if in_process:
            self._callback: Any = BudgetCallback()
            litellm.callbacks = [self._callback]
            self.manager = self._callback.manager
        else:
            self._callback = None
            self.manager = BudgetManager("default")

    def close(self) -> None:
        """Close the ledger."""
        (self._callback or self.manager).close()

    def wait(self, calls: int) -> None:
        """Return when nothing is held and this many calls are settled."""
        deadline = time.monotonic() + PATIENCE
        while True:
            if self._callback is not None:
                self._callback.flush()
            held = [user for user in self.manager.subjects("user") if self.manager.remaining(user).held]
            settled = sum(row.calls for row in self.manager.usage(by="user"))
            if not held and settled >= calls:
                return
            assert time.monotonic() < deadline, f"held for {held}; {settled} calls of {calls} are settled"
            # A dropped stream is settled when its objects are freed.
            gc.collect()
            threading.Event().wait(0.02)

    def totals(self, user: str) -> tuple[int, int]:
        """Return a user's spend in nano-dollars, and the number of their refused calls."""
        rows = [row for row in self.manager.usage(by="user") if row.key == user]
        return sum(int(row.spent * 10**9) for row in rows), sum(row.refusals for row in rows)

    def calls(self) -> int:
        """Return the number of settled calls."""
        return sum(int(row.calls) for row in self.manager.usage(by="user"))

    def exhaust(self, user: str) -> None:
        """Set a limit that equals the user's spend."""
        self.manager.set_limits(f"user:{user}", f"${self.totals(user)[0] / 10**9:.9f}")


def _within(way: Way, user: str, *more: Any) -> Any:
    from litellm_budget_plugin import budget_context

    with budget_context(user=user) if way.context else contextlib.nullcontext():
        return way.run(user, *more)


def _refused(way: Way, user: str) -> dict[str, Any]:
    """Return the application's view of a refusal, and the seconds that it takes."""
    from litellm_budget_plugin import refusal_in

    sees: dict[str, Any] = {"sees": "no error", "refusal_in": None}
    began = time.perf_counter()
    try:
        result = _within(way, user, *([None] if way.kind == STREAM else []))
        if isinstance(result, Seen):
            sees["sees"] = str(result)
    except Exception as error:
        found = refusal_in(error)
        sees = {"sees": type(error).__name__, "refusal_in": found is not None and found.subject == user}
    return {**sees, "seconds": round(time.perf_counter() - began, 3)}


def _uncovered(way: Way, user: str, provider: Provider, ledger: Ledger) -> dict[str, Any]:
    """Check that the call goes out and is not charged. Otherwise the page that says so is wrong."""
    before = ledger.calls(), provider.requests
    with contextlib.suppress(Exception):
        _within(way, user)
    ledger.wait(before[0])
    assert provider.requests > before[1], "no request came"
    assert ledger.calls() == before[0], "it is charged, and so covered"
    return {"requests": provider.requests - before[1]}


def _measured(way: Way, user: str, provider: Provider, ledger: Ledger) -> dict[str, Any]:
    if way.kind == UNCOVERED:
        return _uncovered(way, user, provider, ledger)
    facts: dict[str, Any] = {}
    payer = "anonymous" if way.kind == LOST else user
    before, calls = ledger.totals(payer)[0], ledger.calls()
    provider.served.clear()
    provider.usages.clear()
    _within(way, user, *([None] if way.kind == STREAM else []))
    assert provider.served, "no request came"
    ledger.wait(calls + len(provider.served))
    charged, billed = ledger.totals(payer)[0] - before, provider.billed(PRICES)
    assert charged == billed, f"{payer} is charged {charged} of {billed}"
    facts["calls"] = len(provider.served)
    if way.kind == STREAM:
        assert provider.bodies[-1].get("stream"), "nothing was streamed"
        provider.script[MODEL].append("hang-stream")
        before, calls = ledger.totals(user)[0], ledger.calls()
        # A framework that reads the stream in its own thread waits for the provider before it drops the stream.
        patience = threading.Timer(LONG, provider.release.set)
        patience.start()
        with contextlib.suppress(Exception):
            _within(way, user, 1)
        facts["stops"] = not provider.release.is_set()
        patience.cancel()
        provider.release.set()
        ledger.wait(calls + 1)
        facts["dropped"] = ledger.totals(user)[0] - before
        assert facts["dropped"] > 0, "a dropped stream is not charged"
        provider.script.clear()
        provider.release.clear()
    ledger.exhaust(user)
    sent, refusals, calls = provider.requests, ledger.totals(user)[1], ledger.calls()
    facts |= _refused(way, user)
    facts |= {"sent": provider.requests - sent, "attempts": ledger.totals(user)[1] - refusals}
    ledger.wait(calls + facts["sent"])
    if way.kind == LOST:
        assert facts["sent"], "the user is kept"
    else:
        assert not facts["sent"], f"{facts['sent']} requests left for a user without money"
        assert facts["attempts"], "nothing was refused"
    return facts


def _in_environment(name: str) -> Iterator[tuple[Way, dict[str, Any]]]:
    declared = framework(name)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as closing:
        provider = Provider(declared.answer)
        closing.callback(provider.close)
        os.environ.update({**provider.environment(folder), **declared.variables})
        ledger = Ledger(in_process=declared.in_process)
        closing.callback(ledger.close)
        for number, way in enumerate(declared.ways(Setup(provider, Path(folder), closing))):
            try:
                yield way, _measured(way, way.user or f"payer-{number}", provider, ledger)
            except Exception as error:
                raise AssertionError(f"{declared.title}, {way.name}: {error}") from error


def main(name: str, result: str) -> None:
    """Measure the ways, print the facts and write them into a file."""
    declared = framework(name)
    ways = []
    for way, facts in _in_environment(name):
        ways.append({"way": way.name, "kind": way.kind, **facts})
        print(f"  {way.name}: {json.dumps(facts)}", flush=True)
    facts = {
        "versions": {shown: version(shown) for shown in (*declared.shown, "litellm")},
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "ways": ways,
    }
    Path(result).write_text(json.dumps(facts))
    sys.stdout.flush()
    # Threads that a framework leaves behind must not keep this process alive.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
