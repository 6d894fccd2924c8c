"""Realtime sessions: refused before they begin, held for with UNBOUNDED_HOLD, and charged when they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import litellm
import pytest
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from websockets.asyncio.server import ServerConnection, serve

from litellm_budget_plugin import BudgetExceeded
from tests.hooks.desk import Desk

MODEL = "openai/gate-realtime"
litellm.register_model(
    {
        MODEL: {
            "litellm_provider": "openai",
            "mode": "realtime",
            "input_cost_per_token": 1e-6,
            "output_cost_per_token": 10e-6,
        }
    }
)
USAGE = {
    "total_tokens": 1500,
    "input_tokens": 1000,
    "output_tokens": 500,
    "input_token_details": {"text_tokens": 1000, "audio_tokens": 0, "cached_tokens": 0},
    "output_token_details": {"text_tokens": 500, "audio_tokens": 0},
}
WORTH = 1000 * 1_000 + 500 * 10_000


class Browser:
    """The client's side of a session: it sends its lines, waits for the answers to each, and hangs up."""

    scope: dict[str, Any] = {"headers": []}  # as in ASGI
    headers: dict[str, str] = {}

    def __init__(self, lines: int) -> None:
        self._left = lines
        self._answered = asyncio.Event()
        self._answered.set()
        self.heard: list[str] = []

    async def receive_text(self) -> str:
        await self._answered.wait()
        self._answered.clear()
        if not self._left:
            raise RuntimeError("the client has gone")
        self._left -= 1
        return json.dumps({"type": "response.create"})

    async def send_text(self, text: str) -> None:
        event = json.loads(text)["type"]
        self.heard.append(event)
        if event == "response.done":
            self._answered.set()

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        self._answered.set()


class Sessions:
    """A provider of realtime sessions; every answer reports USAGE. `holding` is called during each session."""

    def __init__(self, holding: Callable[[], None]) -> None:
        self.opened = 0
        self._holding = holding

    async def serve(self, connection: ServerConnection) -> None:
        self.opened += 1
        await connection.send(json.dumps({"type": "session.created", "session": {"id": "s", "model": "gate"}}))
        async for _ in connection:
            self._holding()
            done = {"id": "r", "object": "realtime.response", "status": "completed", "output": [], "usage": USAGE}
            await connection.send(json.dumps({"type": "response.done", "event_id": "e", "response": done}))


async def _session(sessions: Sessions, user: str, lines: int) -> Browser:
    async with serve(sessions.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        browser = Browser(lines)
        await litellm._arealtime(
            model=MODEL,
            websocket=browser,
            api_base=f"http://127.0.0.1:{port}",
            api_key="sk-test",
            litellm_metadata={"budget_user": user},
            query_params={"model": MODEL},
        )
        await GLOBAL_LOGGING_WORKER.flush()
    return browser


def test_a_session_is_held_for_and_charged_once_when_it_ends(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit="1", unbounded_hold="0.25")
    held: list[int] = []
    sessions = Sessions(lambda: held.append(desk.held("alice")))
    browser = asyncio.run(_session(sessions, "alice", lines=3))
    assert browser.heard.count("response.done") == 3
    assert held == [250_000_000] * 3
    assert desk.calm("alice") == 3 * WORTH
    assert desk.usage("alice").calls == 1


def test_a_session_that_there_is_no_room_for_does_not_begin(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit="0.2", unbounded_hold="0.25")
    sessions = Sessions(lambda: None)
    with pytest.raises(BudgetExceeded):
        asyncio.run(_session(sessions, "alice", lines=1))
    assert (sessions.opened, desk.calm("alice")) == (0, 0)


def test_a_session_that_nobody_speaks_in_costs_nothing(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit="1")
    asyncio.run(_session(Sessions(lambda: None), "alice", lines=0))
    assert desk.calm("alice") == 0
