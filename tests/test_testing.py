"""litellm_budget_plugin.testing and the fixtures for pytest."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import litellm
import pytest

from litellm_budget_plugin import BudgetCallback, BudgetExceeded, BudgetSettingsError, BudgetUserMissing, testing
from litellm_budget_plugin.hooks import registration
from litellm_budget_plugin.testing import FixedClock, MemoryBudget, disabled
from tests.upstream import Upstream
from tests.warm import in_processes

CALL: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Hi"}],
    "mock_response": "Hello!",
    "max_tokens": 10,
}


def complete(user: str = "alice", **more: Any) -> Any:
    return litellm.completion(**{**CALL, "user": user, **more})


@pytest.fixture(autouse=True)
def _nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    listed, content, threads = litellm.callbacks, list(litellm.callbacks), set(threading.enumerate())
    yield
    assert litellm.callbacks is listed and litellm.callbacks == content
    left = [each.name for each in set(threading.enumerate()) - threads if "budget" in each.name]
    assert (left, os.listdir(tmp_path)) == ([], [])


def test_a_call_is_charged_and_a_refusal_is_kept() -> None:
    with MemoryBudget("1 calls") as budget:
        complete()
        with pytest.raises(BudgetExceeded) as refused:
            complete()
        assert budget.refusals == [refused.value]
        assert budget.spent("alice") > 0 and budget.spent("bob") == 0
        budget.assert_spent("alice", budget.spent("alice"))
        assert budget.spent("project") == budget.spent("alice")


def test_the_message_shows_what_was_charged() -> None:
    with MemoryBudget("$1") as budget:
        complete()
        complete("bob")
        budget.spend("alice", "0.25")
        with pytest.raises(BudgetExceeded):
            complete(max_tokens=1_000_000)
        with pytest.raises(AssertionError) as wrong:
            budget.assert_spent("alice", "$0.0125")
        spent = budget.spent("alice")
    lines = str(wrong.value).splitlines()
    assert lines[0] == f"alice has spent ${spent.normalize()}, not $0.0125"
    told = "\n".join(lines[1:])
    assert "charged: gpt-4o" in told and "for 1 call, " in told and "charged: spent by the test: $0.25 " in told
    assert "others:  bob: $" in told and "refused: user 'alice' has spent" in told


@pytest.mark.parametrize("amount", ["0.25", "$0.25", 0.25, Decimal("0.25"), " $0.250 "])
def test_amounts_are_exact_in_every_form(amount: Any) -> None:
    with MemoryBudget() as budget:
        budget.spend("alice", amount)
        budget.assert_spent("alice", amount)
        assert budget.spent("alice") == Decimal("0.25")
        with pytest.raises(AssertionError):
            budget.assert_spent("alice", "0.250000001")


WINDOWS = {"day": timedelta(days=1), "12h": timedelta(hours=12), "week": timedelta(days=7), "month": timedelta(days=31)}


@pytest.mark.parametrize("window", WINDOWS)
def test_windows_follow_the_clock(window: str) -> None:
    clock = FixedClock()
    with MemoryBudget(clock=clock) as budget:
        budget.set_limits("alice", f"$1 per {window}")
        budget.spend("alice", "0.9999")
        for _ in range(2):
            with pytest.raises(BudgetExceeded) as refused:
                complete()
            resets_at = datetime.fromtimestamp(refused.value.resets_at.timestamp(), timezone.utc)  # type: ignore[union-attr]
            assert clock.now < resets_at <= clock.now + WINDOWS[window]
            clock.move_to(resets_at - timedelta(microseconds=1))
            with pytest.raises(BudgetExceeded):
                complete()
            clock.advance(microseconds=1)
            remaining = budget.remaining("alice")
            assert remaining.usd == 1
            assert remaining.resets_at is None or remaining.resets_at > clock.now
            complete()
            budget.spend("alice", "0.9999")


def test_the_clock_stands_still_and_does_not_go_back() -> None:
    clock = FixedClock(datetime(2026, 3, 1, 1, tzinfo=timezone(timedelta(hours=2))))
    assert clock.now == clock.now == datetime(2026, 2, 28, 23, tzinfo=timezone.utc)
    for bad in (
        lambda: clock.advance(hours=-1),
        lambda: clock.move_to(datetime(2026, 4, 1)),
        lambda: FixedClock(datetime(2026, 1, 1)),
    ):
        with pytest.raises(ValueError, match="back|time zone"):
            bad()


def test_it_overrides_what_the_application_has_and_makes() -> None:
    own = BudgetCallback(store_url="memory://", default_limit=0)
    litellm.callbacks.append(own)
    lists = {name: list(getattr(litellm, name)) for name in registration._LISTS}
    try:
        with MemoryBudget() as budget:
            complete()
            later = BudgetCallback(store_url="memory://", default_limit=0)
            litellm.callbacks = [later]
            thread = threading.Thread(target=complete)
            thread.start()
            thread.join()
            later.close()
            complete("bob")
            assert [row.calls for row in budget.manager.usage(by="user")] == [2, 1]
            with disabled():
                complete()
            assert sum(row.calls for row in budget.manager.usage(by="user")) == 3
            with MemoryBudget("0 calls") as inner:
                with pytest.raises(BudgetExceeded):
                    complete()
                assert (len(inner.refusals), budget.refusals) == (1, [])
            complete()
        assert {name: list(getattr(litellm, name)) for name in lists} == lists
        with pytest.raises(BudgetExceeded):
            complete()
        assert own.manager.usage(by="user") == [] or own.manager.usage(by="user")[0].calls == 0
    finally:
        for name in lists:
            getattr(litellm, name)[:] = [each for each in getattr(litellm, name) if each is not own]
        own.close()
        own._ledger.worker.join(10)


def test_the_environment_and_files_of_the_developer_are_not_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_MODE", "off")
    monkeypatch.setenv("LITELLM_BUDGET_DEFAULT_LIMIT", "0")
    Path(".env").write_text("LITELLM_BUDGET_PROJECT=mine\nLITELLM_BUDGET_ON_MISSING_USER=reject\n")
    Path("user_cost.json").write_text('{"alice": {"total_budget": 0, "current_cost": 5}}')
    with MemoryBudget() as budget:
        complete()
        litellm.completion(**CALL)
        assert (budget.callback.settings.project, budget.remaining("alice").usd) == ("default", None)
    os.remove(".env")
    os.remove("user_cost.json")


def test_settings_are_those_that_are_given() -> None:
    with MemoryBudget(on_missing_user="reject") as budget:
        with pytest.raises(BudgetUserMissing):
            litellm.completion(**CALL)
        assert [type(each) for each in budget.refusals] == [BudgetUserMissing]
    with pytest.raises(BudgetSettingsError, match="LITELLM_BUDGET_HOLD_TTL"):
        MemoryBudget(hold_ttl=0)
    with pytest.raises(BudgetSettingsError, match="USER_LIMITS"):
        MemoryBudget("$1 per fortnight")
    with pytest.raises(RuntimeError, match="with block"):
        MemoryBudget().manager  # noqa: B018
    with pytest.raises(RuntimeError, match="once"), MemoryBudget() as budget, budget:
        """Not reached."""


def _dropped_streams(held: bool) -> tuple[bool, Decimal]:
    """Drop a stream, and return whether `assert_spent` noticed its charge, and the charge.

    `held`: another thread has a reference until this one waits, like LiteLLM's while they report a chunk.
    """
    upstream, others = Upstream(), []

    def sleep(seconds: float) -> None:
        if seconds:
            others.clear()
        time.sleep(seconds)

    with MemoryBudget() as budget, patch.object(testing, "time", SimpleNamespace(sleep=sleep)):
        place = {"model": "openai/gpt-4o", "api_base": upstream.url, "api_key": "x", "mock_response": None}
        stream = complete(stream=True, **place)
        chunks = iter(stream)
        next(chunks)
        cycle: list[Any] = [stream, chunks]
        cycle.append(cycle)
        others += [cycle] if held else []
        del stream, chunks, cycle
        try:
            budget.assert_spent("alice", 0)
        except AssertionError:
            noticed = True
        else:
            noticed = False
        spent = budget.spent("alice")
        kept = iter(complete("bob", stream=True, **place))
        next(kept)
    upstream.close()
    return noticed, spent


@pytest.mark.parametrize("held", [False, True])
def test_a_dropped_stream_is_counted_when_its_objects_have_gone(held: bool) -> None:
    """Run in its own process, because callbacks that other tests registered with LiteLLM keep its objects alive."""
    ((noticed, spent),) = in_processes(1, _dropped_streams, held)
    assert noticed and spent > 0


def test_blocks_in_threads_and_tasks_keep_to_themselves() -> None:
    ready, wrong = threading.Barrier(4), []

    def test(number: int) -> None:
        with MemoryBudget() as budget:
            ready.wait(30)
            for _ in range(number):
                complete(f"user-{number}")

            async def calls() -> None:
                await asyncio.gather(*(litellm.acompletion(**CALL, user="loop") for _ in range(number)))

            asyncio.run(calls())
            ready.wait(30)
            found = {row.key: row.calls for row in budget.manager.usage(by="user")}
            if found != {f"user-{number}": number, "loop": number}:
                wrong.append(found)
            ready.wait(30)

    threads = [threading.Thread(target=test, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def _pytest(directory: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_application.py").write_text(textwrap.dedent(text))
    given = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", *options]
    done = subprocess.run(
        [*words, "-p", "litellm_budget_plugin.pytest_plugin"],
        cwd=directory,
        env=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    for left in list(directory.iterdir()):
        subprocess.run(["rm", "-r", str(left)], check=True)
    return done


def test_the_fixtures(tmp_path: Path) -> None:
    done = _pytest(
        tmp_path,
        f"""
        import litellm, pytest
        from litellm_budget_plugin import BudgetExceeded

        CALL = dict({CALL!r}, user="alice")
        APPLICATION = []

        def test_one(budget, budget_clock):
            from litellm_budget_plugin import BudgetCallback
            APPLICATION.append(BudgetCallback(store_url="memory://", default_limit=0))
            litellm.callbacks = APPLICATION[:]
            budget.set_limits("alice", "1 calls/day")
            litellm.completion(**CALL)
            with pytest.raises(BudgetExceeded):
                litellm.completion(**CALL)
            budget_clock.advance(days=1)
            litellm.completion(**CALL)
            assert len(budget.refusals) == 1

        def test_another_begins_anew(budget):
            assert litellm.callbacks == [] and budget.spent("alice") == 0
            litellm.completion(**CALL)
            budget.assert_spent("alice", 1)

        def test_without(capsys):
            with pytest.raises(BudgetExceeded):
                litellm.completion(**CALL)
            APPLICATION[0].close()
        """,
    )
    assert "2 passed" in done.stdout and "1 failed" in done.stdout, done.stdout
    assert "alice has spent $" in done.stdout and "charged: gpt-4o" in done.stdout


def test_tests_without_the_fixtures_import_nothing_more(tmp_path: Path) -> None:
    done = _pytest(
        tmp_path,
        """
        import sys

        def test_nothing():
            ours = {name for name in sys.modules if name.startswith("litellm")}
            assert ours == {"litellm_budget_plugin", "litellm_budget_plugin.pytest_plugin"}
            assert "pydantic" not in sys.modules
        """,
    )
    assert done.returncode == 0, done.stdout


def test_pytest_finds_the_plugin_by_itself() -> None:
    if sys.version_info >= (3, 11):
        import tomllib

        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
        module = "litellm_budget_plugin.pytest_plugin"
        assert project["entry-points"]["pytest11"] == {module: module}
