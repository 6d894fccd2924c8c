"""A client's view of each framework and each kind of handler, under a real server: served, refused, and with an
unreachable store.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from tests.hooks.desk import WORTH, Desk
from tests.web import apps

FRAMEWORKS = [*apps.ASGI, *apps.WSGI]
ROUTES = ["/sync", "/async", "/thread", "/stream", "/sync-stream", "/wrapped"]
AWAY = ["/async", "/stream", "/astream", "/wrapped"]
UrlOf = Callable[[str], str]
# Django's own way into a thread is that of a view that is called there.
CASES = [case for case in product(FRAMEWORKS, ROUTES) if case != ("django", "/thread")]
CASES += [("outermost", route) for route in ("/sync", "/async", "/wrapped")]
CASES += [("django-asgi", route) for route in ("/sync", "/async", "/astream", "/wrapped")]
CASES += [("layered", route) for route in ("/sync", "/async", "/stream", "/sync-stream", "/wrapped")]
CASES += [("starlette", f"/mounted{route}") for route in ("/sync", "/stream", "/wrapped")]


def _get(url: str, user: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers={"X-User": user, **headers}, timeout=60)


@pytest.mark.parametrize(("framework", "route"), CASES)
def test_served_then_refused(desk: Desk, url_of: UrlOf, framework: str, route: str) -> None:
    user = f"{framework}{route}"
    desk.callback.manager.set_limits(user, "$0.02 per month")
    served = _get(url_of(framework) + route, user)
    assert (served.status_code, bool(served.text)) == (200, True)
    refused = _get(url_of(framework) + route, user)
    assert refused.status_code == 402, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert (problem["subject"], problem["limit"], problem["spent"], problem["reason"]) == (user, 0.02, 0.0125, "spent")
    assert int(refused.headers["retry-after"]) >= 1
    assert desk.calm(user) == WORTH


@pytest.mark.parametrize(("framework", "route"), [case for case in CASES if case[1] in AWAY])
def test_the_store_is_away(away: Desk, url_of: UrlOf, framework: str, route: str) -> None:
    answer = _get(url_of(framework) + route, "alice")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].endswith("#ledger-unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert "127.0.0.1" not in answer.text


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_user_pays_in_the_background(desk: Desk, url_of: UrlOf, framework: str) -> None:
    user = f"{framework} in the background"
    apps.DONE.clear()
    assert _get(url_of(framework) + "/background", user).text == "begun"
    assert apps.DONE.wait(20)
    assert desk.calm(user) == WORTH


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_next_request_of_a_connection_has_its_own_user(desk: Desk, url_of: UrlOf, framework: str) -> None:
    with httpx.Client(base_url=url_of(framework), timeout=60) as client:
        for user in ("first", None, "second", None):
            for route in ("/sync", "/sync-stream"):
                assert client.get(route, headers={"X-User": user} if user else {}).status_code == 200
    assert [desk.calm(user) for user in ("first", "second", "anonymous")] == [2 * WORTH, 2 * WORTH, 4 * WORTH]


@pytest.mark.parametrize("framework", [*FRAMEWORKS, "outermost", "django-asgi"])
def test_what_the_application_means_stays(desk: Desk, url_of: UrlOf, framework: str) -> None:
    user = f"{framework} handled"
    desk.callback.manager.set_limits(user, "$0.001 per month")
    handled = _get(url_of(framework) + "/handled", user)
    assert (handled.status_code, handled.text) == (500, "meant")
    for mistake in ("/bug", "/input"):
        answer = _get(url_of(framework) + mistake, user)
        assert (answer.status_code, "problem" in answer.headers["content-type"]) == (500, False), mistake
    assert _get(url_of(framework) + "/nowhere", user).status_code == 404


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_after_the_first_byte_the_connection_ends(desk: Desk, url_of: UrlOf, framework: str) -> None:
    user = f"{framework} late"
    desk.callback.manager.set_limits(user, "$0.001 per month")
    received = b""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream("GET", url_of(framework) + "/late", headers={"X-User": user}, timeout=60) as answer,
    ):
        assert answer.status_code == 200
        for chunk in answer.iter_raw():
            received += chunk
    assert received == b"first"


def test_websockets_under_a_real_server(desk: Desk, url_of: UrlOf) -> None:
    url = url_of("starlette").replace("http:", "ws:") + "/socket"
    headers = {"X-User": "socket"}
    with connect(url, additional_headers=headers) as socket:
        assert socket.recv() == "hello"
    assert desk.calm("socket") == WORTH
    desk.callback.manager.block("socket")
    with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=headers):
        pass
    assert refused.value.response.status_code == 403
    with connect(url + "?accept=1", additional_headers=headers) as socket, pytest.raises(ConnectionClosedError):
        socket.recv()
