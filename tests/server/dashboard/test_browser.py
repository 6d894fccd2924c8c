"""The dashboard in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import PutBudget, SetLimits, TopUp
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.server.history import note
from litellm_budget_plugin.server.keys import begin_session
from litellm_budget_plugin.stores.protocol import ask
from tests.server.browser import NAME, Watched, chromium
from tests.server.dashboard.conftest import fill
from tests.server.dashboard.desk import NASTY, PROJECT, USD, charge, key_for, state_of
from tests.server.running import Running, running

Open = Callable[..., Watched]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Running, str]]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    fill(url)
    key = key_for(url)
    with running(url) as server:
        yield server, key


@pytest.fixture
def watched(browser: Browser, served: tuple[Running, str]) -> Iterator[Open]:
    """Return a function that opens tabs, logged in by a cookie unless told otherwise."""
    tabs: list[Watched] = []

    def opened(*expected: str, logged_in: bool = True, **options: Any) -> Watched:
        server, key = served
        tab = Watched(browser, server.url, *expected, **options)
        tabs.append(tab)
        if logged_in:
            session = begin_session(server.site.ledger.store, key[4:16])
            tab.context.add_cookies([{"name": "litellm-budget-session", "value": session, "url": server.url}])
        return tab

    yield opened
    for tab in tabs:
        tab.close()


def _spent(page: Page) -> Any:
    return page.locator(".tile", has_text="Spent today")


def test_a_walk_from_the_log_in_to_a_reset(watched: Open, served: tuple[Running, str]) -> None:
    server, key = served
    store, tab = server.site.ledger.store, watched("422", logged_in=False)  # the console calls 422 an error
    page = tab.page
    page.goto("/")
    expect(page).to_have_url(f"{server.url}/login")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name=PROJECT, level=1)).to_be_visible()
    page.get_by_label("Search users").fill("ALI")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("rowheader")).to_have_text(["alice near"])
    page.get_by_role("link", name="alice").click()
    expect(page.get_by_text("95 % of $10.00 is used")).to_be_visible()

    page.get_by_label("Raise by").fill("$10")
    page.get_by_label("Until (UTC)").fill("2090-01-01T12:00")
    page.get_by_role("button", name="Raise the limits").click()
    expect(page.get_by_role("status")).to_have_text("The limit is raised.")
    expect(page.get_by_text("47 % of $20.00 is used")).to_be_visible()

    page.get_by_label("Limit 1").fill("a lot")
    page.get_by_role("button", name="Change").click()
    expect(page.get_by_label("Limit 1")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Limit 1")).to_have_value("a lot")
    page.get_by_label("Limit 1").fill("$40")
    page.get_by_role("button", name="Change").click()
    expect(page.get_by_text("19 % of $50.00 is used")).to_be_visible()

    page.get_by_role("link", name="Reset what was spent").click()
    expect(page.get_by_role("heading", name="Reset what was spent?")).to_be_visible()
    assert state_of(store, "alice").spent == 9 * USD
    page.get_by_role("button", name="Reset").click()
    expect(page.get_by_text("1 % of $50.00 is used")).to_be_visible()
    assert state_of(store, "alice").spent == 0

    page.get_by_role("link", name="Users", exact=True).first.click()
    expect(page.get_by_role("heading", name="Users", level=1)).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{server.url}/login")
    page.goto("/subjects")
    expect(page).to_have_url(f"{server.url}/login")


def test_forms_work_on_a_plain_http_host(browser: Browser, served: tuple[Running, str]) -> None:
    """On such a host a browser sends no Sec-Fetch-Site, and the right Origin only because of the pages' Referrer-Policy."""
    server, key = served
    tab = Watched(browser, server.url.replace("127.0.0.1", NAME), "Cross-Origin-Opener-Policy")  # only on https
    page = tab.page
    page.goto("/login")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Log in").click()
    page.goto("/subject?id=bob")
    page.get_by_label("Limit 1").fill("$4")
    page.get_by_role("button", name="Change").click()
    expect(page.get_by_text("50 % of $4.00 is used")).to_be_visible()
    tab.close()


def test_numbers_go_live_without_a_reload(watched: Open, served: tuple[Running, str]) -> None:
    tab = watched()
    page, store = tab.page, served[0].site.ledger.store
    page.goto("/subject?id=bob")
    page.evaluate("window.same = 1")
    page.get_by_label("Another limit").fill("$77")
    page.get_by_text("Table by day").click()
    expect(page.get_by_text("20 % of $10.00 is used")).to_be_visible()
    charge(store, "bob", 3 * USD, "h1")
    expect(page.get_by_text("50 % of $10.00 is used")).to_be_visible()
    # Text that is being typed, and a table that was opened, stay.
    expect(page.get_by_label("Another limit")).to_have_value("$77")
    expect(page.get_by_role("columnheader", name="Day (UTC)")).to_be_visible()
    page.goto("/")
    expect(_spent(page)).to_contain_text("$10.75")
    page.evaluate("window.same = 2")
    charge(store, "bob", USD, "h2")
    expect(_spent(page)).to_contain_text("$11.75")
    assert page.evaluate("window.same") == 2


def test_the_focus_stays_where_it_was(watched: Open, served: tuple[Running, str]) -> None:
    page = watched().page
    page.goto("/subjects")
    page.get_by_role("link", name="carol").focus()
    charge(served[0].site.ledger.store, "carol", USD, "h1")
    expect(page.get_by_role("row", name="carol")).to_contain_text("$4.00")
    assert page.evaluate("document.activeElement.textContent") == "carol"


def test_it_can_be_paused(watched: Open, served: tuple[Running, str]) -> None:
    tab = watched()
    page = tab.page
    page.clock.install()
    page.goto("/subject?id=bob")
    with page.expect_request("**/subject?id=bob"):
        page.clock.run_for(4_000)
    button = page.get_by_role("button", name="Live")
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    expect(page.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "false")
    asked = len(tab.requests)
    charge(served[0].site.ledger.store, "bob", 3 * USD, "h1")
    page.clock.run_for(60_000)
    assert len(tab.requests) == asked
    page.get_by_role("button", name="Paused").click()
    expect(page.get_by_text("50 % of $10.00 is used")).to_be_visible()


def test_an_ended_session_leads_to_the_log_in(watched: Open, served: tuple[Running, str]) -> None:
    tab = watched()
    tab.page.goto("/subjects")
    tab.context.clear_cookies()
    expect(tab.page).to_have_url(f"{served[0].url}/login")


def test_an_id_that_is_a_script_is_not_run(watched: Open) -> None:
    page = watched().page
    for path in ("/", "/subjects", "/subjects?search=%3Cscript", "/subject?id=alice"):
        page.goto(path)
        assert page.evaluate("window.hacked === undefined")
    page.goto("/subjects?search=script")
    page.get_by_role("link", name=NASTY).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(NASTY)
    page.get_by_role("link", name="Reset what was spent").click()
    expect(page.get_by_role("main")).to_contain_text(NASTY)
    assert page.evaluate("window.hacked === undefined")


def test_the_policy_would_stop_one_that_got_in(watched: Open) -> None:
    page = watched("Content Security Policy").page
    page.goto("/subjects")
    for script in (
        (
            "document.body.insertAdjacentHTML('beforeend', '<p onclick=\"window.hacked=1\">x</p>');"
            "document.querySelector('p[onclick]').click()"
        ),
        "document.head.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked=2'}))",
    ):
        with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
            page.evaluate(script)
        assert page.evaluate("window.hacked === undefined")


PAGES = (
    "/",
    "/subjects",
    "/subjects?search=nobody",
    "/subject?id=alice",
    "/subject?id=new",
    "/subject/reset?id=alice",
    "/nothing",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_keeps_anybody_out(watched: Open, served: tuple[Running, str], scheme: Any, width: int) -> None:
    """axe finds no violation on any page, in both colour schemes and on a phone."""
    store = served[0].site.ledger.store
    for command in (
        TopUp("invoice-17", PROJECT, Subject("user", "paying"), 5 * USD),
        SetLimits("s", PROJECT, Subject("user", "paying"), parse_limits("$1/day, $10/month, 5 calls/hour for o3")),
        PutBudget("b", PROJECT, Subject("user", "paying"), blocked=True),
    ):
        ask(store, command)
    note(store, PROJECT, Subject("user", "paying"), "the shop's key", "limits: $1 per day", "x")
    tab = watched("404", "422", color_scheme=scheme, viewport={"width": width, "height": 900}, reduced_motion="reduce")
    page = tab.page
    for path in PAGES:
        page.goto(path)
        for details in page.locator("details").all():
            details.locator("summary").click()
        _check(page, path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    page.goto("/subject?id=alice")
    page.get_by_label("Another limit").fill("a lot")
    page.get_by_role("button", name="Add the limit").click()
    expect(page.get_by_role("alert")).to_be_visible()
    _check(page, "a form with an error")
    tab.context.clear_cookies()
    page.goto("/login")
    _check(page, "the log-in")


def test_changes_are_near_the_top_on_a_phone(watched: Open) -> None:
    page = watched(viewport={"width": 390, "height": 844}).page
    page.goto("/subject?id=alice")
    expect(page.get_by_role("link", name="Change", exact=True)).to_be_in_viewport()
    page.get_by_role("link", name="Change", exact=True).click()
    expect(page.get_by_label("Limit 1")).to_be_in_viewport()


def test_a_field_suggests_windows_and_models_for_what_is_typed(watched: Open, served: tuple[Running, str]) -> None:
    page = watched().page
    page.goto("/subject?id=alice")

    def suggested() -> list[str]:
        found: list[str] = page.evaluate(
            "[...document.querySelectorAll('#sentences option')].map((each) => each.value)"
        )
        return found

    assert "$10 per month" in suggested() and "$2 per day for gpt-4o" in suggested()
    page.get_by_label("Another limit").press_sequentially("$7.5")
    assert {"$7.5 per month", "$7.5 per week", "$7.5 per day for gpt-4o"} <= set(suggested())
    page.get_by_label("Another limit").fill("300 calls per h")
    assert "300 calls per hour" in suggested()
    page.get_by_label("Another limit").fill("300 calls per hour")
    page.get_by_role("button", name="Add the limit").click()
    expect(page.get_by_role("heading", name="300 calls per hour")).to_be_visible()
    expect(page.get_by_role("heading", name="$10", exact=True)).to_be_visible()


def _check(page: Page, what: str) -> None:
    results = Axe().run(page)
    assert results.violations_count == 0, f"{what}: {results.generate_report()}"


def test_everything_works_without_javascript(watched: Open, served: tuple[Running, str]) -> None:
    page = watched(java_script_enabled=False).page
    page.goto("/")
    page.get_by_label("Search users").fill("bob")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="bob").click()
    page.get_by_label("Limit 1").fill("$4")
    page.get_by_role("button", name="Change").click()
    expect(page.get_by_text("50 % of $4.00 is used")).to_be_visible()
    charge(served[0].site.ledger.store, "bob", USD, "h1")
    page.get_by_role("link", name="Reload").click()
    expect(page.get_by_text("75 % of $4.00 is used")).to_be_visible()
    page.get_by_role("link", name="Reset what was spent").click()
    page.get_by_role("button", name="Reset").click()
    expect(page.get_by_text("0 % of $4.00 is used")).to_be_visible()
    expect(page.get_by_role("button", name="Live")).to_have_count(0)


def test_the_keyboard_reaches_everything(watched: Open) -> None:
    page = watched().page
    page.goto("/subject?id=alice")
    page.keyboard.press("Tab")
    assert _focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    seen: list[str] = []
    for _ in range(50):
        page.keyboard.press("Tab")
        seen.append(_focused(page))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", seen[-1]
        if seen[-1].startswith("Reset what was spent"):
            break
    wanted = [
        "Change",
        "limit",
        "Delete",
        "Add the limit",
        "by",
        "until",
        "Raise the limits",
        "Block",
        "Reset what was spent…",
    ]
    assert [name for name in dict.fromkeys(seen) if name in wanted] == wanted
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Reset what was spent?")).to_be_visible()


def _focused(page: Page) -> str:
    found: str = page.evaluate("(document.activeElement.name || document.activeElement.textContent).trim()")
    return found
