"""LiteLLM's calls on a server's ledger, also while the server is unreachable."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import BudgetExceeded, BudgetStoreUnavailable
from litellm_budget_plugin.manager import breaker
from tests.hooks.desk import WORTH, Desk, forty_at_once
from tests.stores.postgres.server import Server as PostgresServer
from tests.upstream import Upstream

Open = Callable[..., Desk]
MARGIN = 2.0
"""Seconds that a busy machine may add to the promised time. More is a failure of the mechanism."""


@pytest.fixture(scope="module")
def shared_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture
def server(shared_server: PostgresServer) -> Iterator[PostgresServer]:
    yield shared_server
    if shared_server._process is None:
        shared_server.start()


@pytest.fixture
def remote(server: PostgresServer, open_desk: Open, tmp_path: Path) -> Open:
    """Open desks on one ledger of the server, with the journal in the test's folder."""
    url = server.url()
    return lambda **settings: open_desk(**{"store_url": url, "journal": str(tmp_path / "journal"), **settings})


def _journal(tmp_path: Path) -> list[str]:
    directory = tmp_path / "journal"
    return os.listdir(directory) if directory.exists() else []


def _tried(function: Callable[[], Any]) -> tuple[BaseException | None, float]:
    began = time.monotonic()
    try:
        function()
    except Exception as error:
        return error, time.monotonic() - began
    return None, time.monotonic() - began


def test_calls_are_held_for_charged_and_refused(remote: Open, upstream: Upstream) -> None:
    desk = remote(default_limit="0.05")
    for number in range(4):
        litellm.completion(**desk.arguments("alice"))
        # The caller of a finished call sees its cost.
        assert desk.callback.manager.get_current_cost("alice") == pytest.approx(0.0125 * (number + 1))
    with pytest.raises(BudgetExceeded):
        litellm.completion(**desk.arguments("alice"))
    assert upstream.requests == 4
    assert desk.calm("alice") == 4 * WORTH


def test_forty_tasks_with_room_for_four(remote: Open, upstream: Upstream) -> None:
    # Longer than the default: on a busy machine, forty calls on one loop can take long.
    desk = remote(default_limit="0.05", store_timeout=10)
    outcomes = forty_at_once(desk, "alice")
    assert upstream.requests == 4
    assert sum(isinstance(outcome, BudgetExceeded) for outcome in outcomes) == 36
    assert desk.calm("alice") == 4 * WORTH


def test_a_killed_server_refuses_quickly_and_loses_nothing(
    remote: Open, server: PostgresServer, upstream: Upstream, tmp_path: Path
) -> None:
    """A call in flight is charged once, when the server is reachable again."""
    desk = remote(default_limit="10")
    litellm.completion(**desk.arguments("alice"))
    stream = litellm.completion(**desk.arguments("alice", stream=True))
    next(stream)
    server.stop(signal.SIGKILL)
    for _ in stream:
        pass
    tries = [_tried(lambda: litellm.completion(**desk.arguments("alice"))) for _ in range(8)]
    assert all(isinstance(error, BudgetStoreUnavailable) for error, _ in tries)
    assert all(seconds < desk.callback.settings.store_timeout + MARGIN for _, seconds in tries)
    assert upstream.requests == 2
    with pytest.raises(BudgetStoreUnavailable):
        desk.callback.flush()
    assert len(_journal(tmp_path)) == 1
    server.start()
    assert desk.calm("alice") == 2 * WORTH
    assert _journal(tmp_path) == []
    litellm.completion(**desk.arguments("alice"))
    assert desk.calm("alice") == 3 * WORTH


def test_a_stalled_server_delays_few_calls_and_none_for_long(remote: Open, server: PostgresServer) -> None:
    desk = remote(default_limit="10")
    litellm.completion(**desk.arguments("alice"))
    desk.calm("alice")
    stalled = server.processes()
    for process in stalled:
        os.kill(process, signal.SIGSTOP)
    try:
        tries = [_tried(lambda: litellm.completion(**desk.arguments("alice"))) for _ in range(10)]
    finally:
        for process in stalled:
            os.kill(process, signal.SIGCONT)
    assert all(isinstance(error, BudgetStoreUnavailable) for error, _ in tries)
    waited = [seconds for _, seconds in tries if seconds >= desk.callback.settings.store_timeout]
    assert len(waited) <= breaker.FAILURES
    assert all(seconds < desk.callback.settings.store_timeout + MARGIN for _, seconds in tries)
    desk.calm("alice")


def test_allowed_calls_are_charged_when_the_server_is_back(
    remote: Open, server: PostgresServer, upstream: Upstream, tmp_path: Path
) -> None:
    desk = remote(default_limit="10", on_store_error="allow")
    server.stop(signal.SIGINT)
    for _ in range(5):
        litellm.completion(**desk.arguments("alice"))
    assert upstream.requests == 5
    server.start()
    assert desk.calm("alice") == 5 * WORTH
    assert desk.usage("alice").calls == 5


def test_no_call_goes_out_that_could_not_be_charged(
    remote: Open, server: PostgresServer, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    desk = remote(default_limit="10", on_store_error="allow", journal_limit=3)
    server.stop(signal.SIGINT)
    errors = [_tried(lambda: litellm.completion(**desk.arguments("alice")))[0] for _ in range(6)]
    # A call that was admitted without the ledger also leaves a Release of the hold that it may have got. That counts,
    # too.
    assert errors[0] is None and isinstance(errors[-1], BudgetStoreUnavailable)
    assert "JOURNAL_LIMIT" in str(errors[-1])
    server.start()
    assert desk.calm("alice") == upstream.requests * WORTH


_LEAVES_CHARGES = textwrap.dedent(
    """
    import os, signal, sys
    import litellm
    from litellm_budget_plugin import BudgetCallback, BudgetStoreUnavailable
    from tests.hooks.desk import CHAT, register_prices
    register_prices()
    callback = BudgetCallback(store_url=sys.argv[2], journal=sys.argv[3], default_limit=10, on_store_error="allow")
    litellm.callbacks = [callback]
    for _ in range(3):
        litellm.completion(model=CHAT, messages=[{"role": "user", "content": "x"}], max_tokens=1000, user="alice",
                           api_base=sys.argv[1], api_key="sk", max_retries=0)
    try:
        callback.flush()
    except BudgetStoreUnavailable:
        pass
    os.kill(os.getpid(), signal.SIGKILL)
    """
)


def test_a_service_starts_while_the_server_is_away_and_its_charges_outlive_it(
    remote: Open, server: PostgresServer, tmp_path: Path
) -> None:
    """Another process of the machine delivers what a killed one has left in the journal."""
    desk = remote(default_limit="10")
    assert desk.callback.settings.url
    server.stop(signal.SIGINT)
    arguments = [desk.url, desk.callback.settings.url, str(tmp_path / "journal")]
    run = subprocess.run([sys.executable, "-c", _LEAVES_CHARGES, *arguments], check=False)
    assert run.returncode == -signal.SIGKILL
    assert len(_journal(tmp_path)) == 1
    server.start()
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    ledger.worker.delivery._claim_at = 0.0
    assert desk.calm("alice") == 3 * WORTH
    assert _journal(tmp_path) == []


def test_a_slice_carries_its_user_over_an_outage(remote: Open, server: PostgresServer, upstream: Upstream) -> None:
    """Up to the slice, and no further."""
    desk = remote(default_limit="10", slice="0.1")
    ledger = desk.callback.budget_ledger
    assert ledger is not None and ledger._slices is not None
    for _ in range(2):
        litellm.completion(**desk.arguments("alice"))
    deadline = time.monotonic() + 30
    while not ledger._slices.any:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    server.stop(signal.SIGINT)
    outcomes = [_tried(lambda: litellm.completion(**desk.arguments("alice")))[0] for _ in range(12)]
    assert [error is None for error in outcomes] == [True] * 8 + [False] * 4
    server.start()
    assert desk.calm_slices("alice") == 10 * WORTH


def test_an_outage_is_said_once_and_its_end_too(
    remote: Open, server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    desk = remote(default_limit="10")
    server.stop(signal.SIGINT)
    with caplog.at_level(logging.WARNING, logger="litellm_budget_plugin"):
        for _ in range(5):
            _tried(lambda: litellm.completion(**desk.arguments("alice")))
        server.start()
        desk.callback.flush()
        desk.calm("alice")
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "the store cannot be reached" in line]) == 1
    assert len([line for line in said if "answers again" in line]) == 1


def test_what_waits_for_one_ledger_is_not_delivered_to_another(
    server: PostgresServer, open_desk: Open, tmp_path: Path
) -> None:
    """Two ledgers of one database share a journal's directory."""
    journal = {"journal": str(tmp_path / "journal"), "default_limit": "10", "on_store_error": "allow"}
    mine = open_desk(store_url=server.url(), **journal)
    server.stop(signal.SIGINT)
    litellm.completion(**mine.arguments("alice"))
    mine.callback.close()
    assert len(_journal(tmp_path)) == 1
    server.start()
    other = open_desk(store_url=server.url(), **journal)
    assert other.calm("alice") == 0
    again = open_desk(store_url=mine.callback.settings.url, **journal)
    assert again.calm("alice") == WORTH
