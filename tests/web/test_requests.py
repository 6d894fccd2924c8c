"""The payer that a request names, and the handling of values that are not ids."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin import BudgetInputError, asgi, budget_context, wsgi
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.hooks.context import NOBODY, payer_here
from litellm_budget_plugin.web.requests import serving
from tests.web.doors import DOORS, Answer, Headers

Door = Callable[..., Answer]
both = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


def who() -> str:
    user, given_ = payer_here()[:2]
    return repr((user, given_.team, given_.tags, given_.runs))


NONE = repr((None, None, (), ()))


def user(name: str) -> str:
    return repr((name, None, (), ()))


ACCEPTED: list[tuple[bytes, str | None]] = [
    (b"alice", "alice"),
    (b"17", "17"),
    ("名".encode(), "名"),
    ("é".encode(), "é"),
    (b"<script>alert(1)</script>", "<script>alert(1)</script>"),
    (b"a b", "a b"),
    (b"a" * 256, "a" * 256),
    (b"team:search", "team:search"),
    (b"", None),
]
REFUSED = [
    b"\xff\xfe",
    b"caf\xe9",
    b"a" * 257,
    b"a" * 300,
    b"a" * 60_000,
    b"a\x00b",
    b"a\x01b",
    b"a\tb",
    b"a\r\nSet-Cookie: session=stolen",
    b"\x7f",
    b" alice",
    b"alice ",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"\xed\xa0\x80",
]


@both
@pytest.mark.parametrize(("value", "name"), ACCEPTED, ids=lambda each: repr(each)[:20])
def test_ids_that_can_be_one(door: Door, value: bytes, name: str | None) -> None:
    expected = NONE if name is None else user(name)
    assert door(who, [(b"x-user", value)], user="X-User").body.decode() == expected
    assert door(who, [(b"cookie", b"a=b; who=" + value)], user="cookie:who").body.decode() == expected


@both
@pytest.mark.parametrize("value", REFUSED, ids=lambda each: repr(each)[:20])
def test_what_is_no_id_is_the_clients_mistake(door: Door, value: bytes) -> None:
    called: list[int] = []
    answer = door(lambda: str(called.append(1)), [(b"x-user", value)], user="X-User")
    assert (answer.status, called) == (400, [])
    assert answer.problem["type"].endswith("#bad-id")
    for name in ("team", "run"):
        assert door(who, [(b"x", value)], **{name: "X"}).status == 400


@both
@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-user", b"alice"), (b"x-user", b"bob")],
        [(b"x-user", b"alice"), (b"x-user", b"alice")],
        [(b"x-user", b"alice,bob")],
        [(b"x-user", b""), (b"x-user", b"bob")],
    ],
)
def test_a_header_that_is_sent_twice_names_nobody(door: Door, headers: Headers) -> None:
    assert door(who, headers, user="X-User").status == 400


@both
@pytest.mark.parametrize(
    ("cookies", "name"),
    [
        ([b"who=alice"], "alice"),
        ([b'who="alice"'], "alice"),
        ([b"a=b", b"who=alice"], "alice"),
        ([b"=;;;;who=alice;=="], "alice"),
        ([b"who"], None),
        ([b"who="], None),
        ([b'who=""'], None),
        ([b"\xff=\xfe; who=alice"], "alice"),
        ([b"WHO=alice; whoever=bob; xwho=carol"], None),
        ([b"session=who=alice"], None),
        ([b"who=a=b"], "a=b"),
        ([b";"], None),
        ([b""], None),
        ([], None),
    ],
)
def test_cookies(door: Door, cookies: list[bytes], name: str | None) -> None:
    answer = door(who, [(b"cookie", cookie) for cookie in cookies], user="cookie:who")
    assert answer.body.decode() == (NONE if name is None else user(name))


@both
def test_a_cookie_that_is_there_twice_names_nobody(door: Door) -> None:
    assert door(who, [(b"cookie", b"who=alice; who=bob")], user="cookie:who").status == 400


@both
def test_team_tags_and_run(door: Door) -> None:
    headers = [(b"x-tags", b"a, b,,a "), (b"x-tags", b"c"), (b"x-team", b"search"), (b"x-run", b"7")]
    answer = door(who, headers, team="X-Team", tags="X-Tags", run="X-Run")
    assert answer.body.decode() == repr((None, "search", ("a", "b", "c"), ("7",)))
    assert door(who, tags=lambda _: ["x", 5]).body.decode() == repr((None, None, ("x", "5"), ()))
    assert door(who, tags=lambda _: None).body.decode() == NONE
    assert door(who, tags=lambda _: "one").body.decode() == repr((None, None, ("one",), ()))


@both
@pytest.mark.parametrize(("given_", "name"), [("alice", "alice"), (17, "17"), (None, None), ("", None), (0, "0")])
def test_a_function_names_the_user(door: Door, given_: Any, name: str | None) -> None:
    assert door(who, user=lambda _: given_).body.decode() == (NONE if name is None else user(name))


@both
@pytest.mark.parametrize("value", ["a" * 300, "a\nb", " a", "\ud800"])
def test_a_bad_id_out_of_a_session_is_the_clients_mistake_too(door: Door, value: str) -> None:
    assert door(who, user=lambda _: value).problem["type"].endswith("#bad-id")


@both
@pytest.mark.parametrize("value", [object(), b"alice", True, 1.5, ["alice"]])
def test_what_no_client_can_have_sent_is_the_applications_mistake(door: Door, value: Any) -> None:
    with pytest.raises(TypeError):
        door(who, user=lambda _: value)
    with pytest.raises(TypeError):
        door(who, tags=lambda _: [value])


@both
def test_the_applications_own_errors_stay_its_own(door: Door) -> None:
    def fails(*_: Any) -> Any:
        raise KeyError("session")

    def mistaken() -> str:
        raise BudgetInputError("not of the client")

    with pytest.raises(KeyError):
        door(who, user=fails)
    with pytest.raises(BudgetInputError):
        door(mistaken, user="X-User")


def test_an_asynchronous_function() -> None:
    async def found(scope: Any) -> str:
        await asyncio.sleep(0)
        return "alice"

    assert DOORS["asgi"](who, user=found).body.decode() == user("alice")


@both
@pytest.mark.parametrize(
    "options",
    [
        {"user": "X User"},
        {"user": ""},
        {"user": "cookie:"},
        {"user": "cookie:a b"},
        {"user": 5},
        {"team": "x\r\ny"},
        {"status": 200},
        {"status": True},
        {"status": "402"},
        {"remaining_path": "budget"},
        {"expose": "user"},
        {"expose": ["users"]},
    ],
)
def test_options_that_cannot_be_meant(door: Door, options: dict[str, Any]) -> None:
    with pytest.raises(BudgetInputError):
        door(who, **options)


@both
@given(value=st.binary(max_size=40) | st.text(max_size=300).map(str.encode))
def test_any_header_is_an_id_or_a_bad_one(door: Door, value: bytes) -> None:
    answer = door(who, [(b"x-user", value)], user="X-User")
    try:
        name = value.decode()
        expected = NONE if not name else user(checked_id(name, "x"))
    except (UnicodeDecodeError, BudgetInputError):
        expected = None
    if expected is None or b"," in value:
        assert answer.status == 400
        assert answer.problem["type"].endswith("#bad-id")
    else:
        assert (answer.status, answer.body.decode()) == (200, expected)
    for header in answer.headers.values():
        assert header.isascii() and header.isprintable()


# Places where the user applies, and places where not.


def test_nothing_is_left_on_the_thread() -> None:
    for door in DOORS.values():
        assert door(who, [(b"x-user", b"alice")], user="X-User").body.decode() == user("alice")
        assert payer_here() == NOBODY
        assert door(who, user="X-User").body.decode() == NONE


def test_an_outer_context_is_the_requests_background() -> None:
    """Within a budget_context of the server's own, its team counts as well."""
    with budget_context(user="server", team="all"):
        for door in DOORS.values():
            assert door(who, [(b"x-user", b"alice")], user="X-User").body.decode() == repr(("alice", "all", (), ()))
        assert payer_here().user == "server"


def _wsgi_response(name: str, seen: list[tuple[str, str]]) -> Any:
    def body() -> Any:
        try:
            for _ in range(3):
                seen.append((name, who()))
                yield b"x"
        finally:
            seen.append((name, who()))

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return body()

    environ = {"REQUEST_METHOD": "GET", **({"HTTP_X_USER": name} if name else {})}
    return wsgi.BudgetMiddleware(app, user="X-User")(environ, lambda *_: None)


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=4, unique=True))
def test_responses_that_are_iterated_in_turns_on_one_thread(turns: list[int], closed: list[int]) -> None:
    names = ["alice", "bob", "", "carol"]
    seen: list[tuple[str, str]] = []
    responses = [_wsgi_response(name, seen) for name in names]
    for turn in turns:
        next(responses[turn], None)
        assert payer_here() == NOBODY
    for number in closed:
        responses[number].close()
        assert payer_here() == NOBODY
    for name, saw in seen:
        assert saw == (user(name) if name else NONE)
    for response in responses:
        response.close()


@pytest.mark.parametrize("read", [0, 1])
@pytest.mark.parametrize("place", ["outside", "in another request", "in a context", "on another thread"])
def test_a_response_that_is_dropped_unclosed_ends_without_noise(
    monkeypatch: pytest.MonkeyPatch, place: str, read: int
) -> None:
    noise: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", noise.append)
    seen: list[tuple[str, str]] = []
    dropped = [_wsgi_response("mallory", seen)]
    for _ in range(read):
        next(iter(dropped[0]))

    def drop() -> None:
        before = (serving(), payer_here())
        dropped.clear()
        gc.collect()
        assert (serving(), payer_here()) == before

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        drop()
        yield who().encode()

    if place == "in another request":
        other = wsgi.BudgetMiddleware(app, user="X-User")({"REQUEST_METHOD": "GET", "HTTP_X_USER": "bob"}, _start_wsgi)
        assert b"".join(other).decode() == user("bob")
        other.close()  # type: ignore[attr-defined]
    elif place == "in a context":
        with budget_context(user="bob"):
            drop()
            assert who() == user("bob")
    elif place == "on another thread":
        thread = threading.Thread(target=drop)
        thread.start()
        thread.join()
    else:
        drop()
    assert noise == []
    assert who() == NONE


def _start_wsgi(*_: Any) -> Any:
    return lambda data: None


def test_tasks_of_one_loop_do_not_share_their_users() -> None:
    seen: dict[str, set[str]] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        name = dict(scope["headers"]).get(b"x-user", b"").decode()
        for _ in range(5):
            seen.setdefault(name, set()).add(who())
            await asyncio.sleep(0)
            seen[name].add(await asyncio.to_thread(who))

    async def all_of_them() -> None:
        middleware = asgi.BudgetMiddleware(app, user="X-User")
        requests: list[Any] = [[(b"x-user", name)] if name else [] for name in (b"alice", b"bob", b"")]
        scopes = [{"type": "http", "method": "GET", "path": "/", "headers": headers} for headers in requests]
        await asyncio.gather(*(middleware(scope, None, None) for scope in scopes))  # type: ignore[arg-type]

    asyncio.run(all_of_them())
    assert seen == {"alice": {user("alice")}, "bob": {user("bob")}, "": {NONE}}


def test_a_task_that_outlives_its_request_does_not_pay_for_others() -> None:
    """A worker that the first request starts does not belong to that user forever."""
    seen: list[str] = []

    async def serve_two() -> None:
        go = asyncio.Event()

        async def worker() -> None:
            await go.wait()
            seen.append(who())

        tasks: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            tasks.append(asyncio.ensure_future(worker()))

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"x-user", b"alice")]}
        await asgi.BudgetMiddleware(app, user="X-User")(scope, None, None)  # type: ignore[arg-type]
        go.set()
        await tasks[0]

    asyncio.run(serve_two())
    assert seen == [NONE]


@pytest.mark.parametrize("scope", ["lifespan", "something.new"])
def test_other_scopes_pass_as_they_are(scope: str) -> None:
    given_: list[Any] = []

    async def app(*args: Any) -> None:
        given_.append((args, who()))

    arguments = ({"type": scope}, object(), object())
    asyncio.run(asgi.BudgetMiddleware(app, user="X-User")(*arguments))  # type: ignore[arg-type]
    assert given_ == [(arguments, NONE)]


def test_a_list_and_a_file_stay_what_they_are() -> None:
    """Servers know the length of the list, and send the file without reading it."""

    class Wrapper:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __iter__(self) -> Any:
            return iter(())

    for body in ([b"x"], (b"x",), Wrapper(None)):
        begun: list[str] = []

        def app(environ: Any, start_response: Any, body: Any = body) -> Any:
            start_response("200 OK", [])
            return body

        environ = {"REQUEST_METHOD": "GET", "wsgi.file_wrapper": Wrapper}
        answer = wsgi.BudgetMiddleware(app)(environ, lambda status, headers, begun=begun: begun.append(status))
        assert answer is body
        assert begun == ["200 OK"]


@pytest.mark.parametrize("body", [[b"x"], iter([b"x"])], ids=["list", "iterator"])
def test_a_thread_that_outlives_its_request_does_not_pay_for_others(body: Any) -> None:
    contexts: list[contextvars.Context] = []

    def app(environ: Any, start_response: Any) -> Any:
        contexts.append(contextvars.copy_context())
        assert who() == user("alice")
        start_response("200 OK", [])
        return body

    answer = wsgi.BudgetMiddleware(app, user="X-User")(
        {"REQUEST_METHOD": "GET", "HTTP_X_USER": "alice"}, lambda *_: None
    )
    assert list(answer) == [b"x"]
    if hasattr(answer, "close"):
        answer.close()
    assert contexts[0].run(who) == NONE


def test_threads_that_copy_the_context_have_the_user() -> None:
    def in_thread() -> str:
        found: list[str] = []
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: found.append(context.run(who)))
        thread.start()
        thread.join()
        return found[0]

    for door in DOORS.values():
        assert door(in_thread, [(b"x-user", b"alice")], user="X-User").body.decode() == user("alice")


class _Broken:
    """An application that answers and then raises."""

    def __init__(self, *messages: Any) -> None:
        self.sent: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for message in messages:
                await send(message)
            raise ValueError("a mistake")

        async def send(message: Any) -> None:
            self.sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        with pytest.raises(ValueError, match="a mistake"):
            asyncio.run(asgi.BudgetMiddleware(app)(scope, None, send))  # type: ignore[arg-type]


def _start(status: int) -> Any:
    return {"type": "http.response.start", "status": status, "headers": []}


def _body(body: bytes, *, more: bool) -> Any:
    return {"type": "http.response.body", "body": body, "more_body": more}


def test_an_answer_to_an_error_that_is_raised_again_is_sent() -> None:
    page = [_start(500), _body(b"sorry", more=False)]
    assert _Broken(*page).sent == page


def test_a_response_that_was_begun_ends_where_it_fails() -> None:
    begun = [_start(200), _body(b"x", more=True)]
    assert _Broken(*begun).sent == begun
    # Nothing was sent yet, so the server, or the framework outside, answers.
    assert _Broken(_start(200)).sent == []
    assert _Broken(_start(200), _body(b"", more=True)).sent == []


@pytest.mark.parametrize("status", [200, 204, 500])
@pytest.mark.parametrize("extra", ["http.response.pathsend", "http.response.zerocopysend"])
def test_other_messages_go_on_in_order(status: int, extra: str) -> None:
    messages = [{"type": "http.response.early_hint", "links": []}, _start(status), {"type": extra}]
    assert _Broken(*messages).sent == messages


def test_the_next_of_one_task_is_a_request_of_its_own() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert serving().user == "alice"

    async def serve() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"x-user", b"alice")]}
        await asgi.BudgetMiddleware(app, user="X-User")(scope, None, None)  # type: ignore[arg-type]
        assert (serving().user, payer_here()) == (None, NOBODY)

    asyncio.run(serve())
