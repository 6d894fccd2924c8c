"""A list of a hundred thousand users: sorted, searched and paged, with current numbers."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from litellm_budget_plugin.server.dashboard import scanning
from tests.server.dashboard.conftest import House
from tests.server.dashboard.desk import PROJECT, USD, Tab, account, charge, load, put, text_of, today
from tests.server.running import Running, running

MANY = 100_000


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """User number n has spent n of 100,000 millionths of a dollar; every tenth has no limit; 777 is blocked."""
    url = f"sqlite:///{tmp_path_factory.mktemp('crowd') / 'ledger.db'}"
    load(
        url,
        (
            account(
                f"User-{number:06}",
                None if number % 10 == 0 else MANY * 1000,
                number * 1000,
                number=number,
                blocked=number == 777,
            )
            for number in range(MANY)
        ),
    )
    with running(url, open_access=True) as server:
        tab = Tab(server.url)
        until = time.monotonic() + 120
        while not server.site.rosters.look(PROJECT).complete:
            assert time.monotonic() < until
            time.sleep(0.05)
        tab.http.close()
        yield server


def _ids(page: str) -> list[str]:
    table = page.partition("<tbody")[2]
    return re.findall(r"<bdi>(User-\d+)</bdi>", table)


def _users(server: Running, **parameters: str) -> str:
    return Tab(server.url).page("/subjects", project=PROJECT, **parameters)


def test_who_is_nearest_to_the_limit_comes_first(crowd: Running) -> None:
    page = _users(crowd)
    wanted = [f"User-{number:06}" for number in range(MANY - 1, 0, -1) if number % 10][:50]
    assert _ids(page) == wanted
    assert "50 of 100,000 users" in text_of(page) and "Page 1 of 2,000" in text_of(page)


def test_they_can_be_sorted_by_spend_and_by_id(crowd: Running) -> None:
    assert _ids(_users(crowd, sort="spent"))[:3] == ["User-099999", "User-099998", "User-099997"]
    assert _ids(_users(crowd, sort="id"))[:3] == ["User-000000", "User-000001", "User-000002"]
    assert _ids(_users(crowd, sort="nonsense")) == _ids(_users(crowd))


def test_every_user_is_on_one_page(crowd: Running) -> None:
    assert _ids(_users(crowd, sort="id", page="2"))[0] == "User-000050"
    last = _users(crowd, sort="id", page="2000")
    assert _ids(last)[-1] == "User-099999" and 'rel="next"' not in last and 'rel="prev"' in last
    for beyond in ("2001", "999999999"):
        assert _ids(_users(crowd, sort="id", page=beyond)) == _ids(last)
    for nonsense in ("0", "-3", "x", "٣", "9" * 50):
        assert _ids(_users(crowd, sort="id", page=nonsense))[0] == "User-000000"


def test_they_can_be_searched(crowd: Running) -> None:
    page = _users(crowd, search="uSER-0123", sort="id")
    assert _ids(page)[0] == "User-012300" and "of 100 users" in text_of(page)
    assert "1 of 1 user " in text_of(_users(crowd, search="099999"))
    assert "No user like this" in text_of(_users(crowd, search="nobody"))
    assert _ids(_users(crowd, search="0123", sort="id", page="2"))[0] > _ids(page)[0]


def test_they_can_be_filtered(crowd: Running) -> None:
    assert _ids(_users(crowd, show="blocked")) == ["User-000777"]
    assert "of 10,000 users" in text_of(_users(crowd, show="unlimited"))
    assert "of 18,000 users" in text_of(_users(crowd, show="near"))
    assert "No user like this" in text_of(_users(crowd, show="full"))


def test_a_page_of_them_is_quick(crowd: Running) -> None:
    tab = Tab(crowd.url)
    times = []
    for number in range(9):
        begin = time.perf_counter()
        tab.page("/subjects", project=PROJECT, page=str(number * 200 + 1))
        times.append(time.perf_counter() - begin)
    assert sorted(times)[4] < 0.5


def test_the_overview_counts_them(crowd: Running) -> None:
    text = text_of(Tab(crowd.url).page("/", project=PROJECT))
    assert "Users 100,000 18,000 near or at the limit" in text


def test_the_numbers_of_a_page_are_those_of_now(house: House) -> None:
    """The roster may be older: it is read in the background, but the numbers on a page are read with the page."""
    store = house.server.site.ledger.store
    assert "$2.00" in house.tab.page("/subjects", search="bob")
    charge(store, "bob", 5 * USD, "h1")
    assert "$7.00" in house.tab.page("/subjects", search="bob")
    assert "Spent $7.00" in text_of(house.tab.page("/subject", id="bob"))


def test_the_order_follows_within_seconds(house: House) -> None:
    def first() -> str:
        return re.findall(r"<bdi>([^<]*)</bdi></a>", house.tab.page("/subjects").partition("<tbody")[2])[0]

    assert first() == "alice"
    charge(house.server.site.ledger.store, "bob", 8 * USD, "h1")
    put(house.server.site.ledger.store, "newcomer", 0)
    until = time.monotonic() + 10
    while first() != "bob" or "newcomer" not in house.tab.page("/subjects"):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_who_comes_back_is_shown_a_new_reading(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "_INTERVAL", 3600.0)
    assert "newcomer" not in house.tab.page("/subjects")
    put(house.server.site.ledger.store, "newcomer", USD)
    house.server.site.rosters._watched[scanning.Listed(PROJECT)].looked_at -= 3600.0
    assert "newcomer" in house.tab.page("/subjects")


def test_totals_follow_too(house: House) -> None:
    def today_spent() -> str:
        return re.findall(r"Spent today (\$[\d.,]+)", text_of(house.tab.page("/")))[0]

    assert today_spent() == "$7.75"
    charge(house.server.site.ledger.store, "bob", USD, "h1")
    until = time.monotonic() + 10
    while today_spent() != "$8.75":
        assert time.monotonic() < until
        time.sleep(0.1)


def test_the_overview_adds_everything_up(house: House) -> None:
    page = house.tab.page("/")
    text = text_of(page)
    assert "Spent in 30 days $12.75 107 calls" in text
    assert "Refused 13.7 % 17 calls in 30 days" in text
    assert "Held in flight $0.50" in text
    assert re.search(r"Most spent in 30 days alice \$9\.00 bob \$2\.00", text)
    assert re.search(r"Nearest to their limit alice near 95 % of \$10\.00", text)
    assert f"{today()}" not in text


def test_a_project_has_limits_of_its_own(house: House) -> None:
    from litellm_budget_plugin.core.accounts import Subject
    from litellm_budget_plugin.core.commands import PutBudget
    from litellm_budget_plugin.stores.protocol import ask

    assert "own limits" not in house.tab.page("/")
    store = house.server.site.ledger.store
    ask(store, PutBudget("x", PROJECT, Subject("project", PROJECT), limit=500 * USD, window="month@UTC"))
    text = text_of(house.tab.page("/"))
    assert re.search(r"own limits \$500 per month \d % of \$500\.00 is used", text)


def test_nobody_is_there_yet(tmp_path: Path) -> None:
    with running(f"sqlite:///{tmp_path / 'ledger.db'}", open_access=True) as server:
        tab = Tab(server.url)
        assert "Nothing has been recorded yet" in tab.page("/projects")
        assert "No user has made a call yet" in tab.page("/subjects", project="empty")
        assert "No user has spent anything" in tab.page("/", project="empty")
        assert "no calls yet" in tab.page("/subject", project="empty", id="x")


def test_a_store_in_memory_serves_too() -> None:
    with running("memory://", open_access=True) as server:
        charge(server.site.ledger.store, "alice", USD, "h1")
        put(server.site.ledger.store, "alice", 2 * USD)
        tab = Tab(server.url)
        charge(server.site.ledger.store, "alice", USD, "h2")
        assert "50 % of $2.00" in text_of(tab.page("/subjects", project=PROJECT))
        assert "alice" in tab.page("/export.csv", project=PROJECT)
