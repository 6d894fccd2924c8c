"""Properties of every page: it runs nothing that a user's id contains, and its headers forbid the browser to do so."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from litellm_budget_plugin.server.dashboard import pages
from tests.server.dashboard.conftest import House
from tests.server.dashboard.desk import (
    NASTY,
    ODD_IDS,
    PROJECT,
    USD,
    Tab,
    account,
    form_on,
    key_for,
    load,
    state_of,
    text_of,
)
from tests.server.running import Running, running

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Elements(HTMLParser):
    """Collects everything that a browser would find on a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


def _every_page(tab: Tab, user: str) -> dict[str, httpx.Response]:
    """Return each kind of page, with a user's id wherever one can be."""
    page = tab.page("/subject", id=user)
    return {
        "overview": tab.get("/"),
        "users": tab.get("/subjects", search=user),
        "nobody": tab.get("/subjects", search=user + user),
        "odd sort": tab.get("/subjects", sort=user, show=user, page=user),
        "user": tab.get("/subject", id=user, done=user),
        "reset": tab.get("/subject/reset", id=user),
        "bad limit": tab.send(page, "/subject/limit", limit=user),
        "bad payment": tab.send(page, "/subject/top-up", amount=user, payment=user),
        "team": tab.get("/subject", scope="team", id=user),
        "bad scope": tab.get("/subjects", scope=user),
        "bad raise": tab.send(page, "/subject/raise", by=user, until=user),
        "no such form": tab.post("/subject/" + user.replace("/", "_"), {}),
        "other project": tab.get("/", project=user),
        "bad project": tab.get("/", project=user * 3),
        "missing": tab.get("/" + user.replace("..", "")),
        "bad log-in": tab.send(Tab(tab.url).page("/login"), "/login", key=user),
        "log-in": Tab(tab.url).get("/login"),
    }


@pytest.mark.parametrize("user", ODD_IDS)
def test_ids_are_text_on_every_page(house: House, user: str) -> None:
    for name, answer in _every_page(house.tab, user).items():
        assert answer.headers["content-type"].startswith("text/html"), name
        for tag, attributes in Elements(answer.text).found:
            assert tag != "img", name
            assert not [each for each in attributes if each.startswith("on") or each == "style"], (name, tag)
            assert tag != "script" or re.fullmatch(r"/static/dashboard\.js\?v=[0-9a-f]{12}", attributes["src"]), name
        assert str(12345 * 54321) not in text_of(answer.text), name


@pytest.mark.parametrize("user", ODD_IDS)
def test_a_page_of_each_id_can_be_reached_and_used(house: House, user: str) -> None:
    listing = house.tab.page("/subjects", search=user)
    links = [
        attributes["href"]
        for tag, attributes in Elements(listing).found
        if tag == "a" and "/subject?" in attributes["href"]
    ]
    assert len(links) == 1
    page = house.tab.page(links[0])
    assert (
        f"<bdi>{html.escape(user, quote=True).replace('&#x27;', '&#39;').replace('&quot;', '&#34;')}</bdi></h1>" in page
    )
    assert "$5.00 is used" in text_of(page)
    answer = house.tab.send(page, "/subject/limit", limit="$6")
    assert answer.status_code == 303
    assert "$6.00 is used" in text_of(house.tab.page(answer.headers["location"]))
    assert state_of(house.server.site.ledger.store, user).own_limit == 6 * USD


def test_every_page_has_the_headers(house: House) -> None:
    answers = _every_page(house.tab, NASTY)
    answers["csv"], answers["json"] = house.tab.get("/export.csv"), house.tab.get("/subject/export.json", id=NASTY)
    _check_headers(answers)


def test_so_have_those_of_a_server_without_keys(open_house: Running) -> None:
    tab = Tab(open_house.url)
    _check_headers({"projects": tab.get("/projects"), "user": tab.get("/subject", project=PROJECT, id=NASTY)})


def _check_headers(answers: dict[str, httpx.Response]) -> None:
    for name, answer in answers.items():
        assert answer.headers["content-security-policy"] == CSP, name
        assert answer.headers["x-content-type-options"] == "nosniff", name
        assert answer.headers["x-frame-options"] == "DENY", name
        assert answer.headers["cache-control"] == "no-store", name
        # With "no-referrer" browsers would send forms with the Origin "null", which are refused.
        assert answer.headers["referrer-policy"] == "same-origin", name


def test_no_page_asks_for_anything_of_another_host(house: House) -> None:
    for name, answer in _every_page(house.tab, "alice").items():
        for tag, attributes in Elements(answer.text).found:
            for attribute in ("src", "href", "action", "formaction", "data-live-from"):
                assert attributes.get(attribute, "/").startswith(("/", "#")) or attributes[attribute] == "", (name, tag)
                assert not attributes.get(attribute, "").startswith("//"), (name, tag)
    for file in (Path(pages.__file__).parent / "static").iterdir():
        assert "http" not in file.read_text("utf-8").replace("http://www.w3.org/2000/svg", ""), file


def test_every_page_is_built_the_same(house: House) -> None:
    for name, answer in _every_page(house.tab, "alice").items():
        tags = [tag for tag, _ in Elements(answer.text).found]
        assert tags.count("h1") == 1 and tags.count("main") == 1 and tags.count("title") >= 1, name
        assert 'lang="en"' in answer.text and 'href="#main"' in answer.text, name
        ids = [attributes["id"] for _, attributes in Elements(answer.text).found if "id" in attributes]
        assert len(ids) == len(set(ids)), name


def test_the_files_are_kept_by_browsers_until_they_change(house: House) -> None:
    page = house.tab.page("/login")
    for address in re.findall(r'(?:src|href)="(/static/[^"]*)"', page):
        answer = httpx.get(house.server.url + address)
        assert answer.status_code == 200 and answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"].partition(";")[0] in ("text/css", "text/javascript", "image/svg+xml")
    for name in ("nothing.css", "..%2Fpages.py", "%2e%2e/app.py"):
        assert httpx.get(f"{house.server.url}/static/{name}").status_code == 404


def test_errors_are_pages_for_browsers_and_objects_for_programs(house: House) -> None:
    page = house.tab.get("/nothing/here")
    assert page.status_code == 404 and "<h1>No such page</h1>" in page.text
    program = httpx.get(f"{house.server.url}/nothing/here")
    assert program.status_code == 404 and program.json()["error"] == "not_found"
    api = httpx.get(f"{house.server.url}/v1")
    assert api.status_code == 401 and api.json()["error"] == "unauthorized"
    assert httpx.post(f"{house.server.url}/subjects").json()["error"] == "method_not_allowed"


def test_a_store_that_is_away_is_said(store_url: str) -> None:
    load(store_url, [account("alice")])
    with running(store_url, open_access=True) as server:
        tab = Tab(server.url)
        assert "alice" in tab.page("/subjects", project=PROJECT)
        server.site.ledger.store.close()
        answer = tab.get("/subject", project=PROJECT, id="alice")
        assert answer.status_code == 503 and "<h1>The ledger does not answer</h1>" in answer.text
        assert store_url.removeprefix("sqlite:///") not in answer.text


@pytest.mark.parametrize("stripped", [True, False], ids=["the proxy strips it", "the proxy leaves it"])
def test_everything_works_below_a_path(store_url: str, stripped: bool) -> None:
    load(store_url, [account("alice")])
    key = key_for(store_url)
    with running(store_url, root_path="/budgets") as server:
        tab = Tab(server.url)

        def get(address: str) -> httpx.Response:
            assert address.startswith("/budgets/"), address
            return tab.get(address.removeprefix("/budgets") if stripped else address)

        def send(page: str, ending: str, **fields: str) -> httpx.Response:
            form = form_on(page, ending)
            assert form.action.startswith("/budgets/")
            # The cookie is for the path that the browser uses; httpx uses the one behind the proxy.
            cookie = "; ".join(f"{name}={value}" for name, value in tab.http.cookies.items())
            path = form.action.removeprefix("/budgets") if stripped else form.action
            return tab.post(path, {**form.fields, **fields}, cookie=cookie)

        assert get("/budgets/").headers["location"] == "/budgets/login"
        answer = send(get("/budgets/login").text, "/login", key=key)
        assert answer.headers["location"] == "/budgets/"
        assert "Path=/budgets;" in "".join(answer.headers.get_list("set-cookie"))
        tab.http.headers["cookie"] = f"litellm-budget-session={tab.http.cookies['litellm-budget-session']}"
        tab.http.cookies.clear()
        seen, waiting = set(), {"/budgets/"}
        while waiting:
            address = waiting.pop()
            seen.add(address)
            answer = get(address)
            assert answer.status_code == 200, address
            if answer.headers["content-type"].startswith("text/html"):
                found = [
                    each
                    for _, one in Elements(answer.text).found
                    for name, each in one.items()
                    if name in ("href", "src")
                ]
                waiting |= {each.partition("#")[0] for each in found if each and each[0] != "#"} - seen
        assert {"/budgets/subjects", "/budgets/subject?id=alice", "/budgets/export.csv"} <= seen
        answer = send(get("/budgets/subject?id=alice").text, "/subject/limit", limit="$4", cookie="")
        assert answer.status_code == 303 and answer.headers["location"].startswith("/budgets/subject?id=alice")
