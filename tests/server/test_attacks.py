"""Attacks with a key, without one, and from a page of another site."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.requests import Request

from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.accounts import Ref, Subject
from litellm_budget_plugin.core.commands import Accounts, Command, PutBudget, Read, Release, Roll, Settle, Sweep
from litellm_budget_plugin.server import access
from litellm_budget_plugin.server.keys import KEYS_PROJECT, create_key, list_keys, revoke_key
from litellm_budget_plugin.server.options import ServerOptions
from litellm_budget_plugin.stores.protocol import ask
from litellm_budget_plugin.stores.registry import open_store
from tests.server.dashboard.desk import Tab
from tests.server.running import Running, running
from tests.stores.desk import charge_of, hold_of
from tests.stores.redis.server import Server, free_port

MINE, OTHERS = "mine", "others"


class Opened(NamedTuple):
    """A server with keys, and a key of each kind."""

    server: Running
    key: str
    reader: str
    foreign: str

    def client(self, key: str | None = None) -> httpx.Client:
        """Return a client with this key; default: the valid one."""
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
        return httpx.Client(base_url=self.server.url, headers=headers, timeout=30)


@contextmanager
def _open(tmp_path: Any, **options: Any) -> Iterator[Opened]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    store = open_store(url)
    keys = [create_key(store, MINE)[1], create_key(store, MINE, "read-only")[1], create_key(store, OTHERS)[1]]
    ask(store, PutBudget("c", OTHERS, Subject("user", "victim"), limit=5))
    store.close()
    with running(url, max_body=100_000, **options) as server:
        yield Opened(server, *keys)


@pytest.fixture
def opened(tmp_path: Any) -> Iterator[Opened]:
    # The limit is long, so that a machine that stalls for seconds makes no body late here.
    with _open(tmp_path, body_seconds=60) as opened:
        yield opened


@pytest.fixture
def impatient(tmp_path: Any) -> Iterator[Opened]:
    with _open(tmp_path, body_seconds=0.5) as opened:
        yield opened


def said(command: Command, **changed: Any) -> dict[str, Any]:
    return {**wire.encode(command), **changed}


MINE_READ = Read(MINE, "user")


def test_no_key_and_bad_ones(opened: Opened) -> None:
    good = opened.key
    for key in (
        "x",
        good[:-1],
        good + "a",
        good.upper(),
        "lbk_" + "0" * 12 + "_" + "a" * 43,
        good.replace("_", "-"),
    ):
        with opened.client(key) as client:
            for method, path in (
                ("GET", "/v1"),
                ("POST", "/v1/command"),
                ("POST", "/get_budget"),
                ("GET", "/v1/projects"),
            ):
                answer = client.request(method, path, json={} if method == "POST" else None)
                # After twenty bad keys, the address is answered 429.
                assert answer.json()["error"] == {401: "unauthorized", 429: "too_many"}[answer.status_code], (key, path)
                assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)
                assert good not in answer.text
    for headers in ({}, *({"Authorization": text} for text in ("Basic " + good, good, "bearer", "Bearer"))):
        assert httpx.get(f"{opened.server.url}/v1", headers=headers).status_code in (401, 429)


def test_a_key_opens_its_own_project_alone(opened: Opened) -> None:
    other = replace(MINE_READ, project=OTHERS)
    with opened.client() as client:
        for body in (said(other), said(replace(other, project=KEYS_PROJECT)), said(Release("h", OTHERS))):
            assert client.post("/v1/command", json=body).status_code == 403
        # A foreign command among others is refused, and then none of them is executed.
        many = {
            "commands": [said(replace(charge_of("h"), project=MINE)), said(replace(charge_of("h"), project=OTHERS))]
        }
        assert client.post("/v1/commands", json=many).status_code == 403
        assert client.post("/v1/command", json=said(MINE_READ)).json()["accounts"] == []
        assert client.post("/get_budget", json={"project_name": OTHERS}).status_code == 403
        body = {"project_name": OTHERS, "user_dict": {}}
        assert client.post("/set_budget", json=body).status_code == 403
        for project in (OTHERS, KEYS_PROJECT):
            assert client.post("/v1/rows/read", json={"project": project}).status_code == 403
            rows = {"accounts": [], "holds": [], "usage": []}
            assert client.post("/v1/rows/write", json={"project": project, "rows": rows}).status_code == 403
        assert client.get("/v1/projects").json() == {"projects": []}
    with opened.client(opened.foreign) as client:
        assert client.get("/v1/projects").json() == {"projects": [OTHERS]}
        victim = client.post("/v1/command", json=said(other)).json()
        assert victim["accounts"][0]["limit"] == 5


def test_a_key_for_reading_changes_nothing(opened: Opened) -> None:
    with opened.client(opened.reader) as client:
        assert client.get("/v1").json()["access"] == "read-only"
        assert client.post("/v1/command", json=said(MINE_READ)).status_code == 200
        put = PutBudget("c", MINE, Subject("user", "a"), limit=1)
        for command in (put, Release("h", MINE), Sweep(MINE, 0, 0), replace(hold_of("h"), project=MINE)):
            assert client.post("/v1/command", json=said(command)).status_code == 403
            assert client.post("/v1/commands", json={"commands": [said(command)]}).status_code == 403
        body = {"project_name": MINE, "user_dict": {"a": {"total_budget": 1}}}
        assert client.post("/set_budget", json=body).status_code == 403
        rows = {"project": MINE, "rows": {"accounts": [], "holds": [], "usage": []}}
        assert client.post("/v1/rows/write", json=rows).status_code == 403
        assert client.post("/v1/sync", json={}).status_code == 403


def test_keys_are_hashed_at_rest_and_revoked_at_once(opened: Opened, tmp_path: Any) -> None:
    files = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
    for key in (opened.key, opened.reader, opened.foreign):
        assert key.encode() not in files and key.split("_", 2)[2].encode() not in files
    store = open_store(f"sqlite:///{tmp_path}/ledger.db")
    assert sorted((key.project, key.access) for key in list_keys(store)) == [
        (MINE, "read-only"), (MINE, "read-write"), (OTHERS, "read-write"),
    ]  # fmt: skip
    with opened.client() as client:
        assert client.get("/v1").status_code == 200
        revoke_key(store, opened.key)
        end = time.monotonic() + 20
        while client.get("/v1").status_code == 200:
            assert time.monotonic() < end
        later = create_key(store, MINE)[1]
        while client.get("/v1", headers={"Authorization": f"Bearer {later}"}).status_code != 200:
            assert time.monotonic() < end
    for key in (opened.reader, opened.foreign):
        revoke_key(store, key)
    store.close()
    # A server that is open while it has no keys must not open again when the last key is revoked. This server was never open.
    assert httpx.get(f"{opened.server.url}/v1").status_code in (401, 429)


def test_the_time_and_the_windows_are_the_servers(opened: Opened) -> None:
    """With its own time a client could get empty windows (next year), or holds that never expire (last year)."""
    user = (Subject("user", "a"),)
    with opened.client() as client:
        put = PutBudget("c", MINE, user[0], limit=100, window="1d")
        client.post("/v1/command", json=said(put)).raise_for_status()
        charge = Settle("h", MINE, user, (), 100, "m")
        client.post("/v1/command", json=said(charge)).raise_for_status()
        future = int((time.time() + 400 * 86_400) * 1e6)
        ref = Ref("user", "a", "", "1d", "usd")
        account = client.post("/v1/command", json=said(MINE_READ)).json()["accounts"][0]
        roll = Roll(ref, account["end"], future, future + 1)
        want = {**said(hold_of("g")), "project": MINE, "subjects": [["user", "a"]], "want": [50, 0, 0], "defaults": []}
        for forged in ({"now": future}, {"now": 1}, {"rolls": [list(roll)]}, {"now": future, "rolls": [list(roll)]}):
            for path, body in (
                ("/v1/command", {**want, **forged}),
                ("/v1/commands", {"commands": [{**want, **forged}]}),
            ):
                answer = client.post(path, json=body)
                reply = answer.json() if path == "/v1/command" else answer.json()["outcomes"][0]
                assert (reply["type"], reply.get("reason")) == ("Refused", "spent"), (forged, reply)
        # The forged window of a new account would end in a minute, and its spend would be forgotten.
        new = {**want, "hold": "n", "subjects": [["user", "new"]], "defaults": [["user", "1d", 100, "", "usd", 0]]}
        soon = int((time.time() + 60) * 1e6)
        forged_roll = [["user", "new", "", "1d", "usd"], None, soon - 70 * 10**6, soon]
        assert client.post("/v1/command", json={**new, "rolls": [forged_roll]}).json()["type"] == "Granted"
        opened_window = client.post("/v1/command", json=said(replace(MINE_READ, subject="new"))).json()["accounts"][0]
        assert (opened_window["end"] - opened_window["start"], opened_window["held"]) == (86_400 * 10**6, 50)
        reply = client.post("/v1/command", json=said(MINE_READ, now=future)).json()
        assert abs(reply["now"] / 1e6 - time.time()) < 60
        assert reply["accounts"][0]["spent"] == 100


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../v1/command", "//v1/command", "/v1//command", "/V1/COMMAND", "/v1/command/", "/v1/%2e%2e/v1/command",
        "/v1/command%00", "/v1/command;x", "/%76%31/command/..%2fcommand", "/static/../../keys.py", "/static/%2e%2e/templates/base.html",
        "/static/..%2f..%2fkeys.py", "/static//etc/passwd", "/.git/config", "/\\..\\keys.py",
    ],
)  # fmt: skip
def test_path_tricks_lead_nowhere(opened: Opened, path: str) -> None:
    """The paths are sent as they are, which no well-behaved client does."""
    host, port = opened.server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := raw.recv(65536):
            answer += part
    status = int(answer.split()[1])
    assert status in (303, 307, 400, 401, 404, 405), answer[:300]
    assert b"import" not in answer and b"root:" not in answer and b"{%" not in answer


def test_bodies_that_are_too_large(opened: Opened) -> None:
    """This holds with and without a Content-Length."""
    with opened.client() as client:
        large = b'{"type":"Read","project":"mine","scope":"' + b"a" * 200_000 + b'"}'
        json_type = {"Content-Type": "application/json"}
        answer = client.post("/v1/command", content=large, headers=json_type)
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")

    def chunks() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 1000

    with opened.client() as client:
        assert client.post("/v1/command", content=chunks(), headers=json_type).status_code == 413
    host, port = opened.server.url.removeprefix("http://").split(":")
    head = f"POST /v1/command HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {opened.key}\r\nContent-Type: application/json\r\n"
    for length in ("9" * 18, "9" * 30, "-1", "1e9"):
        with socket.create_connection((host, int(port)), timeout=20) as raw:
            raw.sendall(head.encode() + f"Content-Length: {length}\r\n\r\n{{}}".encode())
            assert raw.recv(65536).split()[1] in (b"400", b"413")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 50_000, b'{"a":' * 20_000, b'{"type":' + b"[" * 40_000 + b"]" * 40_000 + b"}", b"", b"nonsense", b"\xff\xfe", b"null", b"[]", b"7",
        b'{"type": "Read", "project": "mine", "scope": "user", "page": 1e400}', b'{"type": "Read", "project": NaN, "scope": "user"}',
        b'{"type": "Read", "project": "mine", "scope": "user", "page": ' + b"9" * 5000 + b"}",
        b'{"type": "Granted", "hold": "h", "amounts": [1, 1, 1]}', b'{"type": "Read", "project": "mine", "scope": "user", "secret": 1}',
        b'{"type": "__class__"}', b'{"type": ["Read"]}', b'{"type": "Read"}',
    ],
)  # fmt: skip
def test_bodies_that_say_nothing(opened: Opened, body: bytes) -> None:
    with opened.client() as client:
        for path in ("/v1/command", "/v1/commands", "/v1/rows/write", "/v1/rows/read", "/get_budget", "/set_budget"):
            answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code in (400, 422), (path, answer.text)
            assert len(answer.content) < 2000


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_bodies_that_a_page_of_another_site_can_send(opened: Opened, kind: str) -> None:
    """A page can send these without a CORS preflight. JSON is not among them."""
    with opened.client() as client:
        for path in ("/v1/command", "/v1/commands", "/v1/rows/write", "/get_budget", "/set_budget"):
            answer = client.post(path, content=json.dumps(said(MINE_READ)).encode(), headers={"Content-Type": kind})
            assert answer.status_code == 415
        asked = client.options(
            "/v1/command", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        )
        assert asked.status_code == 405 and "access-control-allow-origin" not in asked.headers


def test_bodies_that_come_slowly(impatient: Opened) -> None:
    """They do not block the server, and are aborted."""
    host, port = impatient.server.url.removeprefix("http://").split(":")
    head = f"POST /v1/command HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {impatient.key}\r\nContent-Type: application/json\r\n"
    slow = [socket.create_connection((host, int(port)), timeout=20) for _ in range(50)]
    began = time.monotonic()
    for raw in slow:
        raw.sendall(head.encode() + b"Content-Length: 1000\r\n\r\n{")
    with impatient.client() as client:
        assert client.get("/v1").status_code == 200
    for raw in slow:
        assert b"408" in raw.recv(65536).split(b"\r\n")[0]
        raw.close()
    assert time.monotonic() - began < 15


def test_a_thousand_bad_keys(opened: Opened) -> None:
    """They are answered 401, then 429. Clients with a valid key are not affected."""
    answers: list[httpx.Response] = []

    def guess(number: int) -> None:
        with opened.client() as client:
            for each in range(100):
                key = f"lbk_{opened.key[4:16]}_{number:02}{each:041}"
                answers.append(client.get("/v1", headers={"Authorization": f"Bearer {key}"}))

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    with opened.client() as client:
        for _ in range(50):
            assert client.post("/v1/command", json=said(MINE_READ)).status_code == 200
    for thread in threads:
        thread.join()
    later = [int(answer.headers["retry-after"]) for answer in answers if answer.status_code == 429]
    assert len(answers) == 1000 and {answer.status_code for answer in answers} == {401, 429}
    assert len(later) > 800 and min(later) >= 1


def test_more_than_its_rate(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    store = open_store(url)
    busy, calm = create_key(store, MINE)[1], create_key(store, MINE)[1]
    store.close()
    with running(url, rate=5.0) as server:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {busy}"}) as client:
            answers = [client.get("/v1") for _ in range(30)]
        limited = [answer for answer in answers if answer.status_code == 429]
        assert len(limited) >= 15 and all(int(answer.headers["retry-after"]) >= 1 for answer in limited)
        assert httpx.get(f"{server.url}/v1", headers={"Authorization": f"Bearer {calm}"}).status_code == 200


def test_a_large_body_counts_like_many_small_ones(tmp_path: Any) -> None:
    """It counts as many as it could replace, even if it is invalid."""
    large = json.dumps({"commands": [said(MINE_READ)] * 400}).encode()
    assert 8 * 2048 < len(large) < 100_000
    with _open(tmp_path, rate=10.0) as opened, opened.client() as client:
        answers = [
            client.post("/v1/commands", content=large, headers={"Content-Type": "application/json"}) for _ in range(3)
        ]
        assert [answer.status_code for answer in answers] == [422, 429, 429]
        assert int(answers[1].headers["retry-after"]) >= 1
        # Small bodies of the same key are still served.
        assert client.post("/v1/command", json=said(MINE_READ)).status_code == 200


def test_a_server_without_keys_answers_to_this_machine_alone(tmp_path: Any) -> None:
    """It refuses names that a page of another site resolves to this machine, and requests through a proxy."""
    with running(f"sqlite:///{tmp_path}/ledger.db", open_access=True) as server:
        port = server.url.rpartition(":")[2]
        for host in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}", "127.8.8.8"):
            assert httpx.get(f"{server.url}/v1", headers={"Host": host}).status_code == 200, host
        for host in (
            f"evil.example:{port}",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "192.168.1.1",
            "localhost:1:2",
        ):
            assert httpx.get(f"{server.url}/v1", headers={"Host": host}).status_code in (400, 403), host
        for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
            answer = httpx.get(f"{server.url}/v1", headers={name: "203.0.113.7"})
            assert answer.status_code == 403 and "make a key" in answer.json()["message"]
        assert (
            httpx.post(f"{server.url}/v1/command", json=said(replace(MINE_READ, project=KEYS_PROJECT))).status_code
            == 403
        )
        # From the first key on a key is needed, even after the last one is revoked.
        store = open_store(f"sqlite:///{tmp_path}/ledger.db")
        key = create_key(store, MINE)[1]
        end = time.monotonic() + 20
        while httpx.get(f"{server.url}/v1").status_code == 200:
            assert time.monotonic() < end
        revoke_key(store, key)
        store.close()
        while httpx.get(f"{server.url}/v1", headers={"Authorization": f"Bearer {key}"}).status_code == 200:
            assert time.monotonic() < end
        assert httpx.get(f"{server.url}/v1").status_code == 401
    with running(f"sqlite:///{tmp_path}/ledger.db", open_access=True) as server:
        assert httpx.get(f"{server.url}/v1").status_code == 401
        assert (
            "not revoked" in httpx.get(f"{server.url}/v1", headers={"Authorization": f"Bearer {key}"}).json()["message"]
        )
    assert not ServerOptions("memory://").open_access


def test_whether_a_key_is_needed_is_not_guessed() -> None:
    """A server whose store is unreachable at the start cannot know whether there are keys. It answers 503, and nobody is asked
    for a key.
    """
    port = free_port()
    with running(f"redis://127.0.0.1:{port}", open_access=True, store_timeout=0.5) as server:
        assert not server.site.ledger.ring.known
        assert httpx.get(f"{server.url}/v1").status_code == 503
        assert httpx.get(f"{server.url}/login").status_code == 503
        redis = Server(port=port)
        try:
            end = time.monotonic() + 20
            while (status := httpx.get(f"{server.url}/v1").status_code) != 200:
                assert status == 503 and time.monotonic() < end
        finally:
            redis.stop()


def test_reads_without_end(opened: Opened) -> None:
    """A request may have only some commands that read everybody, and the size of a page is bounded."""
    everybody = said(Read(MINE, "user"))
    with opened.client(opened.reader) as client:
        assert client.post("/v1/commands", json={"commands": [everybody] * 10}).status_code == 200
        refused = client.post("/v1/commands", json={"commands": [everybody] * 11})
        assert refused.status_code == 422 and "at most 10 of the commands" in refused.json()["message"]
        refused = client.post("/v1/command", json={**everybody, "page": 10**9})
        assert refused.status_code == 422 and "Read.page must be at most 5000" in refused.json()["message"]


def test_lists_that_nobody_needs(opened: Opened) -> None:
    """The rules look at each subject with each default."""
    command = said(hold_of("h"), project=MINE)
    subjects = [["user", f"u{number}"] for number in range(257)]
    with opened.client() as client:
        refused = client.post("/v1/command", json={**command, "subjects": subjects})
        assert refused.status_code == 422 and "Reserve.subjects may have 256 entries" in refused.json()["message"]
        outcome = client.post("/v1/commands", json={"commands": [{**command, "subjects": subjects}]}).json()[
            "outcomes"
        ][0]
        assert outcome["type"] == "BudgetInputError"
        record = {"total_budget": 1, "duration": 10**400}
        told = client.post("/set_budget", json={"project_name": MINE, "user_dict": {"a": record}})
        assert told.status_code == 422 and "duration must be a number of days" in told.json()["message"]


def test_units_that_there_are_not(opened: Opened) -> None:
    """They are refused in commands and in rows: no rule could be applied to them, and the hourly upkeep of the project would
    fail.
    """
    ref = ["user", "x", "", "none", "foo"]
    hold = {"id": "hh", "state": "open", "at": 1, "legs": [ref]}
    rows = {"accounts": [], "holds": [hold], "usage": []}
    with opened.client() as client:
        command = said(hold_of("h"), project=MINE)
        assert (
            client.post("/v1/command", json={**command, "defaults": [["user", "none", 5, "", "foo", 0]]}).status_code
            == 422
        )
        refused = client.post("/v1/rows/write", json={"project": MINE, "rows": rows})
        assert refused.status_code == 422 and "units must be usd" in refused.json()["message"]


def test_a_ledgers_address_is_not_told(tmp_path: Any) -> None:
    """Clients learn that the store failed; only the log says why."""
    with running(f"sqlite:///{tmp_path}/ledger.db", open_access=True) as server:
        server.site.ledger.store.close()
        answer = httpx.post(f"{server.url}/v1/command", json=said(MINE_READ))
        assert answer.status_code == 503 and str(tmp_path) not in answer.text
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_what_the_reply_says_is_plain_json(opened: Opened) -> None:
    """Whatever a user's name is, the answer is data, and no browser takes it for a page."""
    name = "<script>alert(1)</script>"
    with opened.client() as client:
        client.post("/v1/command", json=said(PutBudget("c", MINE, Subject("user", name), limit=1))).raise_for_status()
        answer = client.post("/v1/command", json=said(MINE_READ))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    reply = wire.decode(answer.json())
    assert isinstance(reply, Accounts) and reply.accounts[0].ref.subject == name


GETS = (
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/v1",
    "/v1/projects",
    "/subjects",
    "/export.csv",
    "/metrics",
    "/login",
    "/static/mark.svg",
)
POSTS = (
    "/v1/command",
    "/v1/commands",
    "/v1/sync",
    "/v1/rows/read",
    "/get_budget",
    "/set_budget",
    "/logout",
    "/subject/limit",
)


def test_a_method_that_there_is_not_is_told_which_there_are(opened: Opened) -> None:
    """The answer lists the methods of all routes of the address."""
    with opened.client() as client:
        for path in (*GETS, *POSTS):
            there = {"GET", "HEAD"} if path in GETS else {"POST"}
            there |= {"POST"} if path == "/login" else set()
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
                if method not in there:
                    answer = client.request(method, path, headers={"Accept": "text/html"} if method == "PUT" else {})
                    assert answer.status_code == 405, (method, path)
                    assert set(answer.headers["allow"].split(", ")) == there, (method, path)


@pytest.mark.parametrize("path", [*GETS, "/nothing"])
def test_head_is_get_without_a_body(opened: Opened, path: str) -> None:
    with opened.client() as client:
        head, got = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers.get("content-type") == got.headers.get("content-type")
    assert path == "/metrics" or head.headers.get("content-length") == got.headers.get("content-length")


def test_an_address_without_a_key_asks_only_so_often(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Health checks are exempt. Clients with a key or a session are not affected."""
    monkeypatch.setattr(access, "_ANONYMOUS_AT_ONCE", 20.0)
    monkeypatch.setattr(access, "_ANONYMOUS_A_SECOND", 0.001)
    with _open(tmp_path) as opened:
        url = opened.server.url
        tab = Tab(url, opened.key)
        # The log-in took two requests.
        paths = ("/login", "/static/mark.svg", "/openapi.json", "/nothing", "/subjects", "/v1")
        answers = [httpx.get(url + paths[number % 6]) for number in range(40)]
        assert [answer.status_code == 429 for answer in answers] == [False] * 18 + [True] * 22
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers[18:])
        assert httpx.post(f"{url}/login", data={"key": opened.key}, headers={"Origin": url}).status_code == 429
        for path in ("/healthz", "/readyz"):
            assert httpx.get(url + path).status_code == 200
        with opened.client() as client:
            assert client.get("/v1").status_code == 200
        assert tab.get("/subjects").status_code == 200
        tab.http.close()


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8:0:0:ffff::1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("testclient", "testclient", True),
    ],
)
def test_addresses_that_one_client_may_have_are_limited_together(one: str, other: str, together: bool) -> None:
    requests = [Request({"type": "http", "client": (host, 1), "headers": []}) for host in (one, other)]
    assert (access._address(requests[0]) == access._address(requests[1])) is together


@pytest.mark.parametrize(
    "record",
    [
        {"total_budget": "12"},
        {"total_budget": True},
        {"total_budget": 1, "current_cost": "0.5"},
        {"total_budget": 1, "current_cost": True},
        {"total_budget": 1, "model_cost": {"m": "1"}},
        {"total_budget": 1, "model_cost": {"m": False}},
        {"total_budget": 1, "duration": "7"},
        {"total_budget": 1, "duration": True},
        {"total_budget": 1, "created_at": "0"},
        {"total_budget": 1, "last_updated_at": True},
        {"total_budget": 1, "window": 7},
    ],
)
def test_texts_and_booleans_are_no_numbers_in_records(opened: Opened, record: dict[str, Any]) -> None:
    with opened.client() as client:
        body = {"project_name": MINE, "user_dict": {"good": {"total_budget": 1}, "a": record}}
        assert client.post("/set_budget", json=body).status_code == 422
        assert client.post("/v1/command", json=said(MINE_READ)).json()["accounts"] == []


def test_rows_are_read_strictly_too(opened: Opened) -> None:
    ref = ["user", "x", "", "none", "usd"]
    account = {"ref": ref, "id": "r", "created_at": 1, "start": 1, "end": None, "spent": 5}
    with opened.client() as client:
        for wrong in (
            {"spent": "5"},
            {"spent": True},
            {"spent": 5.0},
            {"pinned": 1},
            {"ref": [*ref[:3], "fortnight", "usd"]},
        ):
            rows = {"accounts": [{**account, **wrong}], "holds": [], "usage": []}
            assert client.post("/v1/rows/write", json={"project": MINE, "rows": rows}).status_code == 422, wrong


def test_a_window_is_one_account_however_it_is_written(opened: Opened) -> None:
    """This holds for every interface: commands of both kinds, their defaults, records, and forms."""
    user = ["user", "a"]
    put = {"type": "PutBudget", "project": MINE, "subject": user, "limit": 100}
    with opened.client() as client:

        def windows() -> list[tuple[str, int, int]]:
            accounts = client.post("/v1/command", json=said(MINE_READ)).json()["accounts"]
            return [(one["ref"][3], one["limit"], one["spent"]) for one in accounts]

        for number, window in enumerate(("day", "day@UTC")):
            client.post("/v1/command", json={**put, "id": f"a{number}", "window": window}).raise_for_status()
            body = {"commands": [{**put, "id": f"b{number}", "window": window}]}
            assert client.post("/v1/commands", json=body).json()["outcomes"][0]["type"] == "Done"
            charge = said(replace(charge_of(f"h{number}", usd=1), project=MINE), subjects=[user])
            charge["defaults"] = [["user", window, 50, "", "usd", 0]]
            client.post("/v1/command", json=charge).raise_for_status()
            assert windows() == [("day@UTC", 100, number + 1)]
        records = {"a": {"total_budget": 1, "window": "day"}}
        client.post("/set_budget", json={"project_name": MINE, "user_dict": records}).raise_for_status()
        assert [window for window, *_ in windows()] == ["day@UTC"]
        charge["defaults"] = [["user", "day", 50, "", "usd", 0], ["user", "day@UTC", 60, "", "usd", 0]]
        refused = client.post("/v1/command", json=charge)
        assert refused.status_code == 422 and "one account twice" in refused.json()["message"]
        for kind in ("Reset", "DropBudget"):
            body = {"type": kind, "id": kind, "project": MINE, "subject": user, "window": "day"}
            client.post("/v1/command", json=body).raise_for_status()
        assert windows() == []
