"""The file of limits changes while calls are made."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import BudgetCallback, BudgetSettings
from litellm_budget_plugin.core.accounts import Default
from litellm_budget_plugin.manager import policies
from litellm_budget_plugin.manager.ledger import BudgetLedger
from tests.hooks.desk import Desk
from tests.stores.processes import Child

CALLS, THREADS, CHANGES = 1000, 8, 20


def version(number: int) -> str:
    return (
        f'[user]\nlimits = ["${number}/day", "{number} calls/month"]\n'
        f'[team.search]\nlimits = ["${number}"]\n'
        f'[class.pro]\nusers = ["alice"]\nlimits = ["${number}/year", "{number}M tokens/month"]\n'
    )


def numbers(defaults: tuple[Default, ...]) -> set[int]:
    """Return the versions of the file that these limits come from."""
    scale = {"usd": 10**9, "calls": 1, "tokens": 10**6}
    return {each.limit // scale[each.unit] for each in defaults if each.limit is not None}


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        """Return the time at which a file that a test writes has always just been written."""
        return 0.0


class Writer:
    """Write the file as editors and deployments do."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock

    def settle(self, seen: policies.Policies) -> tuple[Default, ...]:
        """Return the limits of all users once the file has stayed unchanged for a while."""
        for _ in range(3):
            seen.look()
            self._clock.now += 10
        return seen.look().defaults

    def replace(self, text: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(text)
        os.replace(new, self.path)

    def in_place(self, text: str, between: Callable[[], object]) -> None:
        half = text.index("[team")
        with self.path.open("w") as file:
            between()
            file.write(text[:half])
            file.flush()
            between()
            file.write(text[half:])


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    clock = Clock()
    monkeypatch.setattr(policies, "time", clock)
    # Every call checks the file.
    monkeypatch.setattr(policies, "_LOOK_SECONDS", 0.0)
    made = Writer(tmp_path / "budgets.toml", clock)
    made.replace(version(1000))
    return made


def test_a_thousand_calls_while_the_file_changes_twenty_times(
    open_desk: Callable[..., Desk], writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call fails, and each call's limits in its hold and in its charge come from one version."""
    desk = open_desk(default_limit=None, store_url="memory://", file=str(writer.path))
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    judged: list[tuple[Default, ...]] = []
    _record(monkeypatch, "reserve", judged)
    _record(monkeypatch, "deliver", judged)
    done = threading.Semaphore(0)

    def call(number: int) -> None:
        try:
            litellm.completion(
                **desk.arguments(("alice", "bob")[number % 2], mock_response="x", metadata={"budget_team": "search"})
            )
        finally:
            done.release()

    with ThreadPoolExecutor(THREADS) as pool:
        calls = [pool.submit(call, number) for number in range(CALLS)]
        for change in range(1, CHANGES + 1):
            for _ in range(CALLS // (CHANGES + 2)):
                done.acquire()
            if change % 5 == 3:
                writer.replace("[user]\nlimits = ['one elephant']\n")
            elif change % 2:
                writer.replace(version(1000 + change))
            else:
                writer.in_place(version(1000 + change), ledger.policies.look)
            writer.settle(ledger.policies)
        assert [each.result() for each in calls] == [None] * CALLS
    desk.callback.flush()
    assert len(judged) >= 2 * CALLS
    assert [defaults for defaults in judged if len(numbers(defaults)) != 1] == []
    assert len({tuple(numbers(defaults)) for defaults in judged}) > CHANGES // 2
    assert numbers(ledger.defaults) == {1000 + CHANGES}


def _record(monkeypatch: pytest.MonkeyPatch, name: str, judged: list[tuple[Default, ...]]) -> None:
    original = getattr(BudgetLedger, name)

    def recorded(self: BudgetLedger, command: Any) -> Any:
        if hasattr(command, "defaults"):
            judged.append(command.defaults)
        return original(self, command)

    monkeypatch.setattr(BudgetLedger, name, recorded)


def test_a_bad_version_is_said_once_and_the_one_before_goes_on(
    open_desk: Callable[..., Desk], writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    desk = open_desk(default_limit=None, file=str(writer.path))
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    for spoil in (lambda: writer.replace("[user]\nlimit = 1\n"), writer.path.unlink):
        caplog.clear()
        spoil()
        for _ in range(3):
            assert numbers(writer.settle(ledger.policies)) == {1000}
        (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert "the limits stay as they were" in record.message and "budgets.toml" in record.message
    writer.replace(version(1001))
    assert numbers(ledger.defaults) == {1000}
    assert numbers(writer.settle(ledger.policies)) == {1001}


def test_a_file_that_may_be_read_again_is_read(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its permissions change."""
    callback = BudgetCallback(store_url="memory://", file=str(writer.path))
    try:
        found = callback.budget_ledger
        assert found is not None
        good = type(found.settings).read_policy
        writer.replace(version(1001))
        with monkeypatch.context() as patched:
            patched.setattr(
                type(found.settings), "read_policy", lambda self: good(self.model_copy(update={"file": "/"}))
            )
            assert numbers(writer.settle(found.policies)) == {1000}
        writer.path.chmod(0o600)
        assert numbers(writer.settle(found.policies)) == {1001}
    finally:
        callback.close()


def test_what_was_held_under_one_version_is_charged_where_the_next_one_counts(
    open_desk: Callable[..., Desk], writer: Writer
) -> None:
    desk = open_desk(default_limit=None, file=str(writer.path))
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    stream = litellm.completion(**desk.arguments("carol", stream=True))
    writer.replace('[user]\nlimits = ["$0.02/month"]\n')
    writer.settle(ledger.policies)
    for _ in stream:
        pass
    desk.calm("carol")
    with pytest.raises(litellm.BudgetExceededError, match=r"spent \$0.0125 of \$0.02 per month"):
        litellm.completion(**desk.arguments("carol"))


def test_models_that_litellm_does_not_know_are_said_once_at_the_start(
    open_desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture, writer: Writer
) -> None:
    writer.replace('[user]\nlimits = ["$1 for gpt-4oo", "$1 for gate-c*", "$2 for zzz"]\n')
    desk = open_desk(default_limit=None, store_url="memory://", file=str(writer.path))
    litellm.completion(**desk.arguments("alice"))
    (record,) = [each for each in caplog.records if "LiteLLM knows no model" in each.message]
    assert record.levelno == logging.WARNING and record.message.endswith(
        "LiteLLM knows no model 'gpt-4oo'; did you mean 'gpt-4o'?; LiteLLM knows no model 'zzz'"
    )


def test_a_child_that_was_forked_while_the_file_was_read_reads_it_too(writer: Writer) -> None:
    seen = policies.Policies(BudgetSettings(store_url="memory://", file=str(writer.path)))

    def read(child: Child) -> str:
        return f"{numbers(writer.settle(seen))} {numbers(seen.current().defaults)}"

    writer.replace(version(1001))
    with seen._looking:
        child = Child(read)
    assert child.result() == "{1001} {1001}"
