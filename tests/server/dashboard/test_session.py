"""Log-in, and forms that other sites send."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from litellm_budget_plugin.server import keys
from litellm_budget_plugin.server.dashboard import forms
from litellm_budget_plugin.server.keys import revoke_key
from tests.server.dashboard.conftest import House
from tests.server.dashboard.desk import PROJECT, USD, Tab, form_on, key_for, state_of
from tests.server.running import Running, running

PAGES = (
    "/",
    "/subjects",
    "/subject?id=alice",
    "/subject/reset?id=alice",
    "/export.csv",
    "/export.json",
    "/subject/export.csv?id=alice",
    "/projects",
)


@pytest.mark.parametrize("path", PAGES)
def test_without_a_key_every_page_leads_to_the_log_in(house: House, path: str) -> None:
    answer = httpx.get(house.server.url + path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


@pytest.mark.parametrize("path", PAGES)
def test_so_does_a_cookie_that_is_no_session(house: House, path: str) -> None:
    """Even a valid key in a cookie is refused, because it would outlive a log-out."""
    session = house.tab.http.cookies["litellm-budget-session"]
    for text in (session[:-1] + ("a" if session[-1] != "a" else "b"), house.key, house.key.replace("lbk", "lbs", 1)):
        for name in ("litellm-budget-session", "litellm-budget-key"):
            answer = httpx.get(house.server.url + path, cookies={name: text})
            assert (answer.status_code, answer.headers["location"]) == (303, "/login")


def _cookie(answer: httpx.Response) -> set[str]:
    (cookie,) = [each for each in answer.headers.get_list("set-cookie") if "-session=" in each]
    return {part.strip().lower() for part in cookie.split(";")[1:]}


def test_the_session_is_a_cookie_that_scripts_and_other_sites_cannot_use(house: House) -> None:
    answer = Tab(house.server.url).log_in(house.key)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert _cookie(answer) == {"httponly", "samesite=strict", "path=/", "max-age=43200"}


def test_behind_tls_it_is_for_https_alone(store_url: str) -> None:
    key = key_for(store_url)
    with running(store_url, behind_tls=True, root_path="/budgets") as server:
        tab = Tab(server.url)
        page = tab.get("/login")
        token = page.headers["set-cookie"].partition(";")[0]
        assert token.startswith("__Host-litellm-budget-form=")
        answer = tab.post("/login", {**form_on(page.text, "/login").fields, "key": key}, cookie=token)
        assert answer.status_code == 303
        assert "__Host-litellm-budget-session=" in "".join(answer.headers.get_list("set-cookie"))
        assert _cookie(answer) == {"httponly", "samesite=strict", "path=/", "max-age=43200", "secure"}


def test_a_bad_key_is_said_on_the_page(house: House) -> None:
    answer = Tab(house.server.url).log_in("lbk_nonsense")
    assert answer.status_code == 401
    assert "This key is not valid" in answer.text and "lbk_nonsense" not in answer.text


def test_guessing_is_slowed_down(house: House) -> None:
    tab = Tab(house.server.url)
    page = tab.page("/login")
    answers = [tab.send(page, "/login", key="lbk_nonsense").status_code for _ in range(25)]
    assert answers[0] == 401 and answers[-1] == 429
    last = tab.send(page, "/login", key="lbk_nonsense")
    assert int(last.headers["retry-after"]) >= 1 and "Too many attempts" in last.text


def test_pages_without_a_cookie_are_no_guesses(house: House) -> None:
    assert {httpx.get(f"{house.server.url}/subjects").status_code for _ in range(40)} == {303}
    assert Tab(house.server.url).log_in(house.key).status_code == 303


def test_logging_out_ends_it_for_a_stolen_cookie_too(house: House, store_url: str) -> None:
    """It ends on this server at once, on other servers of the ledger within REFRESH_SECONDS. Other sessions of the key stay."""
    other = Tab(house.server.url, house.key)
    stolen = {"litellm-budget-session": house.tab.http.cookies["litellm-budget-session"]}
    with running(store_url) as second:
        for server in (house.server, second):
            assert httpx.get(f"{server.url}/subjects", cookies=stolen).status_code == 200
        answer = house.tab.send(house.tab.page("/"), "/logout")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert house.tab.get("/").status_code == 303
        assert httpx.get(f"{house.server.url}/subjects", cookies=stolen).status_code == 303
        end = time.monotonic() + 20
        while httpx.get(f"{second.url}/subjects", cookies=stolen).status_code == 200:
            assert time.monotonic() < end
    assert other.get("/subjects").status_code == 200
    # The log-out ended nothing else. A session's text is not accepted as a key.
    assert Tab(house.server.url).log_in(house.key).status_code == 303
    for kind in ("Bearer", "bearer"):
        session = other.http.cookies["litellm-budget-session"]
        answer = httpx.get(f"{house.server.url}/v1", headers={"Authorization": f"{kind} {session}"})
        assert answer.status_code == 401


def test_logging_out_without_a_session_is_no_error(house: House) -> None:
    tab = Tab(house.server.url)
    answer = tab.post("/logout", {"token": "x" * 5_000})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


def test_a_session_ends_after_its_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends whatever the browser does with the cookie's lifetime; and the ledger drops it."""
    store = house.server.site.ledger.store
    later = time.time_ns() + (keys.SESSION_SECONDS + 60) * 10**9
    with monkeypatch.context() as patch:
        patch.setattr(keys, "time", SimpleNamespace(time_ns=lambda: later))
        assert house.tab.get("/subjects").status_code == 303
        assert len(list(keys.list_sessions(store))) == 2
        house.server.site.ledger._sweep()
    assert list(keys.list_sessions(store)) == []


def test_a_key_has_only_so_many_sessions(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A further session ends the oldest one, which bounds the memory of a server."""
    monkeypatch.setattr(keys, "_MOST_SESSIONS", 3)
    tabs = [Tab(house.server.url, house.key) for _ in range(4)]
    assert [tab.get("/subjects").status_code for tab in tabs] == [303, 200, 200, 200]
    assert house.tab.get("/subjects").status_code == 303 and house.reader.get("/subjects").status_code == 200
    assert len(list(keys.list_sessions(house.server.site.ledger.store))) == 4


def test_the_ledger_keeps_no_session_that_could_be_used(house: House, tmp_path: Path) -> None:
    files = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
    session = house.tab.http.cookies["litellm-budget-session"]
    assert session.encode() not in files and session[17:].encode() not in files


def test_revoking_the_key_ends_it(house: House) -> None:
    assert house.tab.get("/subjects").status_code == 200
    revoke_key(house.server.site.ledger.store, house.key)
    end = time.monotonic() + 20
    while (answer := house.tab.get("/subjects")).status_code == 200:
        assert time.monotonic() < end
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


CHANGES = tuple(forms.CHANGES)
TYPED = {"limit": "$1", "amount": "$1", "payment": "i", "by": "$1", "until": "2090-01-01T00:00"}


def _sent(house: House, change: str, fields: dict[str, str], **headers: str) -> httpx.Response:
    before = state_of(house.server.site.ledger.store, "alice")
    answer = house.tab.post(f"/subject/{change}", {**TYPED, **fields}, **headers)
    if answer.status_code != 303:
        assert state_of(house.server.site.ledger.store, "alice") == before
    return answer


@pytest.mark.parametrize("change", CHANGES)
def test_a_form_of_another_site_changes_nothing(house: House, change: str) -> None:
    page = house.tab.page("/subject", id="alice")
    good = form_on(page, "/subject/limit").fields
    assert _sent(house, change, good, origin="https://evil.example").status_code == 403
    assert _sent(house, change, good, origin="null").status_code == 403
    silent = _sent(house, change, good, origin="")
    assert silent.status_code == 403 and "without saying from which site" in silent.text
    assert _sent(house, change, good, sec_fetch_site="cross-site").status_code == 403
    assert _sent(house, change, good, sec_fetch_site="same-site").status_code == 403
    assert _sent(house, change, {**good, "token": ""}).status_code == 403
    assert _sent(house, change, {**good, "token": good["token"][:-1] + "x"}).status_code == 403
    assert (
        _sent(house, change, {**good, "token": form_on(house.reader.page("/"), "/logout").fields["token"]}).status_code
        == 403
    )
    assert _sent(house, change, {name: value for name, value in good.items() if name != "token"}).status_code == 403
    assert _sent(house, change, good, origin="", sec_fetch_site="same-origin").status_code in (303, 422)


def test_nor_does_one_without_keys(open_house: Running) -> None:
    tab = Tab(open_house.url)
    page = tab.page("/subject", id="alice", project=PROJECT)
    good = {**form_on(page, "/subject/limit").fields, "limit": "$77"}
    store = open_house.site.ledger.store
    assert tab.post("/subject/limit", good, origin="https://evil.example").status_code == 403
    assert tab.post("/subject/limit", {**good, "token": "x" * 43}).status_code == 403
    stranger = Tab(open_house.url)
    assert stranger.post("/subject/limit", good).status_code == 403
    assert stranger.post("/subject/limit", {**good, "token": ""}).status_code == 403
    assert state_of(store, "alice").own_limit == 10 * USD
    assert tab.post("/subject/limit", good).status_code == 303
    assert state_of(store, "alice").own_limit == 77 * USD


def test_nobody_is_logged_in_or_out_by_another_site(house: House) -> None:
    tab = Tab(house.server.url)
    good = {**form_on(tab.page("/login"), "/login").fields, "key": house.key}
    assert tab.post("/login", good, origin="https://evil.example").status_code == 403
    assert tab.post("/login", {**good, "token": "x" * 43}).status_code == 403
    assert Tab(house.server.url).post("/login", good).status_code == 403
    assert house.tab.post("/logout", {"token": ""}).status_code == 403
    assert house.tab.get("/").status_code == 200


def test_a_form_must_be_a_form(house: House) -> None:
    answer = house.tab.http.post("/subject/limit", json={"id": "alice"}, headers={"origin": house.server.url})
    assert answer.status_code == 415
    many = {f"f{number}": "x" for number in range(200)}
    assert house.tab.post("/subject/limit", many).status_code == 400


def test_a_read_only_key_sees_no_forms_and_changes_nothing(house: House) -> None:
    page = house.reader.page("/subject", id="alice")
    assert re.findall(r'action="([^"]*)"', page) == ["/logout"]
    token = form_on(page, "/logout").fields["token"]
    good = form_on(house.tab.page("/subject", id="alice"), "/subject/limit").fields
    before = state_of(house.server.site.ledger.store, "alice")
    for change in CHANGES:
        assert house.reader.post(f"/subject/{change}", {**TYPED, **good, "token": token}).status_code == 403
    assert house.reader.get("/subject/reset", id="alice").status_code == 403
    assert state_of(house.server.site.ledger.store, "alice") == before


def test_a_key_opens_its_project_alone(house: House) -> None:
    other = Tab(house.server.url, house.other_key)
    for path in ("/", "/subjects", "/subject", "/export.csv", "/export.json", "/subject/export.csv"):
        assert other.get(path, project=PROJECT, id="alice").status_code == 403, path
    assert "no calls yet" in other.page("/subject", id="alice")
    assert "alice" not in other.page("/subjects") and "alice" not in other.page("/export.csv")
    good = {**form_on(other.page("/subject", id="alice"), "/subject/limit").fields, "limit": "$1"}
    assert other.post("/subject/limit", {**good, "project": PROJECT}).status_code == 403
    assert house.tab.get("/", project="litellm-budget:keys").status_code == 403
    assert state_of(house.server.site.ledger.store, "alice").own_limit == 10 * USD


def test_without_keys_there_are_projects_to_choose_from(open_house: Running) -> None:
    tab = Tab(open_house.url)
    assert tab.get("/").headers["location"] == "/projects"
    assert 'href="/?project=shop"' in tab.page("/projects")
    assert tab.get("/login").headers["location"] == "/"
    assert tab.get("/subjects", project="litellm-budget:keys").status_code == 403
    assert tab.http.get("/subjects?project=shop", headers={"host": "evil.example"}).status_code == 403
