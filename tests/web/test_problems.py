"""The responses to clients: problem documents, what they omit, and their headers."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin import (
    BudgetExceeded,
    BudgetInputError,
    BudgetPriceUnknown,
    BudgetRefused,
    BudgetStoreError,
    BudgetStoreUnavailable,
    BudgetUserMissing,
    asgi,
    budget_context,
    wsgi,
)
from litellm_budget_plugin.core.accounts import SCOPES, Ref
from litellm_budget_plugin.core.commands import MICROS, Refused
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.web.problems import PROBLEM_TYPES
from tests.hooks.desk import Desk
from tests.web.doors import DOORS, Answer

Door = Callable[..., Answer]
both = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
FAR = 4 * 10**15
ALICE = [(b"x-user", b"alice")]
REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


def exceeded(reason: Any = "spent", scope: str = "user", subject: str = "alice", **more: Any) -> BudgetExceeded:
    figures = {"limit": 10**9, "spent": 9 * 10**8, "held": 0, "requested": 2 * 10**8, "resets_at": None, **more}
    unit = figures.pop("unit", "usd")
    return BudgetExceeded(Refused("h", Ref(scope, subject, "", "month", unit), reason, **figures), "gpt-4o")


def raising(error: BaseException) -> Callable[[], str]:
    def handler() -> str:
        raise error

    return handler


@both
def test_the_whole_document(door: Door) -> None:
    until = int(time.time()) + 1000
    refusal = exceeded(resets_at=until * MICROS)
    answer = door(raising(refusal), ALICE, user="X-User")
    problem = answer.problem
    assert problem.pop("suggestion", None) == refusal.suggestion
    assert problem == {
        "type": PROBLEM_TYPES + "budget-exceeded",
        "title": "Budget exceeded",
        "status": 402,
        "detail": str(refusal),
        "scope": "user",
        "subject": "alice",
        "budget": "$1 per month",
        "unit": "usd",
        "limit": 1.0,
        "spent": 0.9,
        "held": 0.0,
        "remaining": 0.1,
        "requested": 0.2,
        "resets_at": refusal.resets_at.isoformat(),
        "reason": "spent",
    }
    assert 990 <= int(answer.headers["retry-after"]) <= 1000
    assert answer.headers["cache-control"] == "no-store"
    assert int(answer.headers["content-length"]) == len(answer.body)
    figures = [answer.headers[f"budget-{name}"] for name in ("limit", "remaining", "unit")]
    assert figures == ["1", "0.1", "usd"]


@both
def test_a_suggestion_is_passed_on(door: Door) -> None:
    refusal = exceeded()
    refusal.suggestion = "give max_tokens="
    assert door(raising(refusal), ALICE, user="X-User").problem["suggestion"] == "give max_tokens="


@both
@pytest.mark.parametrize(
    ("refusal", "retry_after"),
    [
        (exceeded("spent"), None),
        (exceeded("spent", resets_at=1), "1"),
        # It alone exceeds the whole limit: no window has room for it.
        (exceeded("spent", resets_at=FAR, requested=2 * 10**9), None),
        (exceeded("held", held=10**8), "2"),
        (exceeded("held", held=10**8, resets_at=FAR), "2"),
        (exceeded("held", held=10**8, resets_at=1), "1"),
        (exceeded("blocked", resets_at=FAR), None),
    ],
)
def test_when_to_ask_again(door: Door, refusal: BudgetExceeded, retry_after: str | None) -> None:
    answer = door(raising(refusal), ALICE, user="X-User")
    assert answer.headers.get("retry-after") == retry_after
    assert ("resets_at" in answer.problem) == (refusal.reason != "blocked" and refusal.resets_at is not None)
    assert ("limit" in answer.problem) == (refusal.reason != "blocked")


@both
@pytest.mark.parametrize("unit", ["calls", "tokens"])
def test_budgets_that_are_not_in_dollars(door: Door, unit: str) -> None:
    answer = door(raising(exceeded(limit=100, spent=100, requested=1, unit=unit)), ALICE, user="X-User")
    assert [answer.headers[f"budget-{name}"] for name in ("limit", "remaining", "unit")] == ["100", "0", unit]
    assert answer.problem["unit"] == unit


KINDS: list[tuple[Exception, int, str]] = [
    (exceeded(), 402, "budget-exceeded"),
    (
        BudgetPriceUnknown("secret: no price is known for 'x'; set LITELLM_BUDGET_ON_UNKNOWN_PRICE"),
        402,
        "price-unknown",
    ),
    (BudgetUserMissing("secret: this call names no user"), 402, "user-missing"),
    (BudgetStoreUnavailable("secret: redis://10.0.0.1 does not answer"), 503, "ledger-unavailable"),
    (BudgetRefused("secret: of a kind that is yet to come"), 402, "call-refused"),
]


def itself(error: Exception) -> Exception:
    return error


def caused(error: Exception) -> Exception:
    outer = RuntimeError("the agent failed")
    outer.__cause__ = error
    return outer


def kept(error: Exception) -> Exception:
    outer = RuntimeError("the agent failed")
    outer.failures = [{"error": error}]  # type: ignore[attr-defined]
    return outer


@both
@pytest.mark.parametrize("shape", [itself, caused, kept])
@pytest.mark.parametrize(("error", "status", "kind"), KINDS, ids=[kind for _, _, kind in KINDS])
def test_each_error_has_its_problem(
    door: Door, error: Exception, status: int, kind: str, shape: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "litellm_budget_plugin"):
        answer = door(raising(shape(error)), ALICE, user="X-User")
    assert answer.status == status
    assert answer.problem["type"] == PROBLEM_TYPES + kind
    assert ("retry-after" in answer.headers) == (status == 503)
    # Details for the operator go to the log.
    assert "secret" not in answer.body.decode()
    assert ("secret" in caplog.text) == ("secret" in str(error))
    assert ("the agent failed" in caplog.text) == (shape is not itself)
    chosen = door(raising(shape(error)), ALICE, user="X-User", status=403)
    assert chosen.status == (503 if status == 503 else 403)


@both
@pytest.mark.parametrize("error", [ValueError("x"), BudgetInputError("x"), BudgetStoreError("corrupt"), OSError("x")])
def test_other_errors_are_not_ours(door: Door, error: Exception) -> None:
    with pytest.raises(type(error)):
        door(raising(error), ALICE, user="X-User")


def test_the_types_lead_to_the_reference() -> None:
    source = "".join(path.read_text() for path in Path(asgi.__file__).parent.glob("web/*.py"))
    kinds = set(re.findall(r'_document\(\s*"([\w-]+)"', source))
    assert kinds == {kind for *_, kind in KINDS} | {"bad-id"}
    headings = set(re.findall(r"(?m)^#+ ([\w-]+)$", REFERENCE.read_text("utf-8")))
    assert kinds <= headings


# The figures that a client may see.


@both
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("expose", [None, (), *[(scope,) for scope in SCOPES], SCOPES], ids=repr)
@pytest.mark.parametrize("reason", ["spent", "held", "blocked"])
def test_figures_are_seen_where_they_may_be(door: Door, scope: str, expose: Any, reason: str) -> None:
    options = {} if expose is None else {"expose": expose}
    subject = "alice" if scope == "user" else "the-secret-one"
    refusal = exceeded(reason, scope, subject, resets_at=FAR, held=1)
    answer = door(raising(refusal), ALICE, user="X-User", **options)
    seen = scope in (("user",) if expose is None else expose)
    assert answer.problem["reason"] == reason
    assert (answer.problem["detail"] == str(refusal)) == seen
    assert ("subject" in answer.problem) == seen
    assert ("budget-limit" in answer.headers) == (seen and reason != "blocked")
    if not seen:
        assert set(answer.problem) == {"type", "title", "status", "detail", "reason"}
        for secret in (subject, scope, "0.9", "gpt-4o", "$"):
            assert secret not in answer.problem["detail"]


@both
def test_another_users_figures_are_for_that_user(door: Door, desk: Desk) -> None:
    for subject in ("bob", "anonymous"):
        assert "subject" not in door(raising(exceeded(subject=subject)), ALICE, user="X-User").problem
        assert "subject" not in door(raising(exceeded(subject=subject)), user="X-User").problem
    # Only the application says who pays: that is the client, unless all clients share the user.
    assert door(raising(exceeded(subject="bob"))).problem["subject"] == "bob"
    assert "subject" not in door(raising(exceeded(subject="anonymous"))).problem


def _is_id(text: str) -> bool:
    try:
        checked_id(text, "x")
    except BudgetInputError:
        return False
    return True


@both
@given(subject=st.text(max_size=20).filter(_is_id), team=st.booleans())
def test_no_subject_gets_into_a_header(door: Door, subject: str, team: bool) -> None:
    refusal = exceeded(scope="team" if team else "user", subject=subject)
    answer = door(raising(refusal), expose=SCOPES, user=lambda _: subject)
    assert answer.problem["subject"] == subject
    for name, value in answer.headers.items():
        assert (name + value).isascii() and (name + value).isprintable()
    assert answer.body.isascii()


# Heads and websockets.


@both
def test_a_head_has_no_body(door: Door) -> None:
    answer = door(raising(exceeded()), ALICE, method="HEAD", user="X-User")
    assert (answer.status, answer.body) == (402, b"")
    assert int(answer.headers["content-length"]) > 100


class WebSocket:
    """A websocket's exchange with an application in this process."""

    def __init__(self, *steps: Any, headers: Any = ALICE) -> None:
        self.sent: list[Any] = []
        self.users: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for step in steps:
                self.users.append(checked_user())
                if isinstance(step, Exception):
                    raise step
                await send(step)

        async def send(message: Any) -> None:
            self.sent.append(message)

        scope = {"type": "websocket", "path": "/", "headers": headers}
        middleware = asgi.BudgetMiddleware(app, user="X-User")
        asyncio.run(middleware(scope, None, send))  # type: ignore[arg-type]


def checked_user() -> str:
    from litellm_budget_plugin.hooks.context import payer_here

    return str(payer_here().user)


ACCEPT = {"type": "websocket.accept"}


@pytest.mark.parametrize(
    ("error", "code"), [(exceeded(), 1008), (caused(exceeded()), 1008), (BudgetStoreUnavailable("x"), 1013)]
)
def test_a_websocket_that_is_refused_before_it_is_accepted_is_closed(error: Exception, code: int) -> None:
    [closed] = WebSocket(error).sent
    assert (closed["type"], closed["code"]) == ("websocket.close", code)
    assert len(closed["reason"].encode()) <= 123


def test_a_websocket_that_was_accepted_ends_with_its_error() -> None:
    with pytest.raises(BudgetExceeded):
        WebSocket(ACCEPT, exceeded())


def test_a_websocket_has_its_user() -> None:
    served = WebSocket(ACCEPT, {"type": "websocket.send", "text": "x"}, {"type": "websocket.close", "code": 1000})
    assert served.users == ["alice"] * 3
    assert [message["type"] for message in served.sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    [closed] = WebSocket(ACCEPT, headers=[(b"x-user", b"\xff")]).sent
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)


# The caller's own budgets.


@both
def test_the_caller_sees_its_own_budgets(door: Door, desk: Desk) -> None:
    manager = desk.callback.manager
    manager.set_limits("alice", "$10 per month", "100 calls/hour", "2M tokens per week", "$2/day for gpt-4o*")
    manager.set_limits("team:search", "$1 per month")
    manager.set_limits("bob", "$5 per month")
    options: dict[str, Any] = {"user": "X-User", "team": lambda _: "search", "remaining_path": "/budget"}
    called: list[int] = []
    answer = door(lambda: str(called.append(1)), ALICE, path="/budget", **options)
    assert (answer.status, called) == (200, [])
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    said = json.loads(answer.body)
    assert said["user"] == "alice"
    budgets = {budget["budget"]: budget for budget in said["budgets"]}
    assert len(budgets) == 4
    assert {budget["subject"] for budget in budgets.values()} == {"alice"}
    [month] = [budget for budget in budgets.values() if budget["limit"] == 10]
    assert (month["spent"], month["held"], month["remaining"], month["unit"]) == (0, 0, 10, "usd")
    assert {budget["unit"] for budget in budgets.values()} == {"usd", "calls", "tokens"}
    assert door(checked_user, ALICE, path="/budget", method="POST", **options).body == b"alice"
    assert door(checked_user, ALICE, path="/budget/", **options).body == b"alice"
    head = door(checked_user, ALICE, path="/budget", method="HEAD", **options)
    assert (head.status, head.body) == (200, b"")
    shown = json.loads(door(checked_user, ALICE, path="/budget", **options, expose=["user", "team"]).body)
    assert {budget["subject"] for budget in shown["budgets"]} == {"alice", "search"}


@both
def test_nobody_has_no_budgets_to_see(door: Door, desk: Desk) -> None:
    answer = door(checked_user, path="/budget", user="X-User", remaining_path="/budget")
    assert answer.status == 401
    assert answer.problem["type"].endswith("#user-missing")
    assert "www-authenticate" in answer.headers


@both
def test_what_is_spent_and_held_is_said(door: Door, desk: Desk) -> None:
    import litellm

    litellm.completion(**desk.arguments("alice"))
    stream = litellm.completion(**desk.arguments("alice", stream=True))
    next(stream)
    options: dict[str, Any] = {"user": "X-User", "remaining_path": "/budget"}
    [budget] = json.loads(door(checked_user, ALICE, path="/budget", **options).body)["budgets"]
    figures = [budget[name] for name in ("limit", "spent", "held", "remaining", "blocked")]
    assert figures == [0.1, 0.0125, 0.0125, 0.075, False]
    assert budget["resets_at"].endswith("+00:00")
    stream.close()
    del stream
    desk.calm("alice")
    desk.callback.manager.block("alice")
    [budget] = json.loads(door(checked_user, ALICE, path="/budget", **options).body)["budgets"]
    assert (budget["blocked"], budget["remaining"]) == (True, 0)


@both
def test_the_ledger_is_away(door: Door, away: Desk) -> None:
    answer = door(checked_user, ALICE, path="/budget", user="X-User", remaining_path="/budget")
    assert answer.status == 503
    assert answer.problem["type"].endswith("#ledger-unavailable")


def test_applications_can_ask_by_themselves(desk: Desk) -> None:
    with budget_context(user="alice"):
        said = wsgi.remaining()
        assert asyncio.run(asgi.remaining()) == said
    assert [budget["limit"] for budget in said["budgets"]] == [0.1]
    with pytest.raises(BudgetUserMissing):
        wsgi.remaining()
    desk.callback.close()
    with budget_context(user="alice"), pytest.raises(Exception, match="no BudgetCallback is open"):
        wsgi.remaining()


def test_the_loop_goes_on_while_the_ledger_is_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    answered = threading.Event()
    monkeypatch.setattr(desk.callback._ledger.worker, "settle_waiting", lambda: answered.wait(20))

    async def ask() -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        middleware = asgi.BudgetMiddleware(None, user="X-User", remaining_path="/budget")
        scope = {"type": "http", "method": "GET", "path": "/v1/budget", "root_path": "/v1", "headers": ALICE}
        asked = asyncio.ensure_future(middleware(scope, None, send))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        assert not asked.done()
        answered.set()
        await asked
        return int(sent[0]["status"])

    assert asyncio.run(ask()) == 200
