"""One user's page, and what can be changed there."""

from __future__ import annotations

import re
import time

import pytest

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject, Usage, UsageKey
from litellm_budget_plugin.core.commands import Granted, PutBudget, Refused, Reserve
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.server.dashboard import scanning
from litellm_budget_plugin.stores.protocol import ask
from tests.server.dashboard.conftest import House
from tests.server.dashboard.desk import (
    PROJECT,
    USD,
    account,
    charge,
    form_on,
    load,
    state_of,
    states_of,
    text_of,
    today,
)


def test_the_page_says_all_of_a_user(house: House, store_url: str) -> None:
    end = time.time_ns() // 1000 + 2 * DAY + 3 * 3600 * SECOND + 59 * SECOND
    load(store_url, [account("dora", 8 * USD, 3 * USD, USD, window="7d", end=end, raised_by=2 * USD, raised_until=end)])
    text = text_of(house.tab.page("/user", id="dora"))
    assert "7 days 40 % of $10.00 is used" in text
    assert "Spent $3.00 Held in flight $1.00 Left $6.00" in text
    assert (
        "Limit $8.00, of its own , raised by $2.00 until 20" in text
        or "Limit $8.00, of its own, raised by $2.00 until 20" in text
    )
    assert "Resets in 2 d 3 h" in text


def test_spend_by_day_and_model_is_drawn_and_told(house: House) -> None:
    page = house.tab.page("/user", id="alice")
    svg = page.partition('<svg class="plot"')[2].partition("</svg>")[0]
    assert len(re.findall(r'<rect class="series-\d"', svg)) == 2
    assert re.search(r"<title>\d{4}-\d\d-\d\d, gpt-4o: \$4\.00</title>", svg) and "o3: $5.00" in svg
    assert "$9.00 in 30 days; most on" in svg and 'role="img"' in page
    heights = sorted(float(height) for height in re.findall(r'height="([\d.]+)"', svg) if float(height) < 180)
    assert heights == [144.0, 180.0] or heights == [144.0]
    text = text_of(page)
    assert re.search(r"\d{4}-\d\d-\d\d \$4\.00 40 1,200 10 ", text)
    assert "o3 $5.00 10 600 0" in text
    assert "Refused 10 16.7 % of the calls" in text


def test_more_models_than_colours_share_one(house: House, store_url: str) -> None:
    day = today()
    load(
        store_url,
        [],
        [(UsageKey("user", "bob", day, f"m{number}"), Usage(number * USD, 1, 1, 1)) for number in range(1, 10)],
    )
    page = house.tab.page("/user", id="bob")
    assert re.findall(r"<bdi>([^<]*)</bdi></li>", page.partition('class="legend"')[2].partition("</ul>")[0]) == [
        "m9", "m8", "m7", "m6", "m5", "other models",
    ]  # fmt: skip
    assert "other models: $12.00" in page  # 1 + 2 + 3 + 4, and the 2 that bob had
    assert "m1" in page


def test_a_default_limit_is_shown_as_the_calls_bring_it(house: House) -> None:
    store = house.server.site.ledger.store
    defaults = (Default("user", "none", 4 * USD),)
    house.server.site.ledger._seen[PROJECT] = defaults
    ask(store, Reserve("h", PROJECT, (Subject("user", "eve"),), ("m",), Amounts(USD), 60 * SECOND, defaults))
    text = text_of(house.tab.page("/user", id="eve"))
    assert "25 % of $4.00 is used" in text and "Limit the default" in text
    house.server.site.ledger._seen.clear()
    assert "no limit known here" in text_of(house.tab.page("/user", id="eve"))


def test_a_limit_is_set(house: House) -> None:
    store = house.server.site.ledger.store
    answer = house.tab.send(house.tab.page("/user", id="bob"), "/user/limit", amount="1,234.50")
    assert answer.status_code == 303 and answer.headers["location"] == "/user?id=bob&done=limit"
    assert "The limit is set." in house.tab.page("/user", id="bob", done="limit")
    state = state_of(store, "bob")
    assert (state.own_limit, state.spent, state.ref.window) == (1_234_500_000_000, 2 * USD, "none")
    house.tab.send(house.tab.page("/user", id="bob"), "/user/limit", amount="$0.000000001", window="month")
    state = state_of(store, "bob")
    assert (state.own_limit, state.spent, state.ref.window) == (1, 2 * USD, "month@UTC")
    house.tab.send(house.tab.page("/user", id="bob"), "/user/limit", kind="unlimited", amount="")
    assert state_of(store, "bob").limit is None
    assert state_of(store, "bob").ref.window == "month@UTC"


def test_a_limit_for_a_model_stands_beside_the_other(house: House) -> None:
    house.tab.send(house.tab.page("/user", id="bob"), "/user/limit", amount="3", model="gpt-4o", window="day")
    found = {
        state.ref.model: (state.own_limit, state.ref.window)
        for state in states_of(house.server.site.ledger.store, "bob")
    }
    assert found == {"": (10 * USD, "none"), "gpt-4o": (3 * USD, "day@UTC")}
    assert "gpt-4o calendar day" in text_of(house.tab.page("/user", id="bob"))


def test_a_user_gets_a_limit_before_the_first_call(house: House) -> None:
    house.tab.send(house.tab.page("/user", id="new@example.com"), "/user/limit", amount="3")
    assert state_of(house.server.site.ledger.store, "new@example.com").own_limit == 3 * USD
    answer = house.tab.send(house.tab.page("/user", id=" new"), "/user/limit", amount="3")
    assert answer.status_code == 422 and "without white space" in answer.text
    assert states_of(house.server.site.ledger.store, " new") == ()


@pytest.mark.parametrize(
    "typed", ["five", "-1", "1e3", "nan", "1,23", "٣", "1_0", "9007199.26", "", "  ", "0.0000000001", "1.2.3"]
)
def test_a_bad_amount_is_said_beside_the_field(house: House, typed: str) -> None:
    before = state_of(house.server.site.ledger.store, "bob")
    answer = house.tab.send(house.tab.page("/user", id="bob"), "/user/limit", amount=typed, window="7d")
    assert answer.status_code == 422
    field = answer.text.partition('id="limit-amount"')[2].partition("</div>")[0]
    assert f'value="{typed}"' in field
    assert 'aria-invalid="true" aria-describedby="limit-amount-error limit-amount-hint"' in field
    assert '<p class="error" id="limit-amount-error">' in field
    assert 'value="7d"' in answer.text.partition('id="limit-window"')[2].partition(">")[0]
    assert state_of(house.server.site.ledger.store, "bob") == before


@pytest.mark.parametrize("typed", ["fortnight", "10s", "month@Nowhere/City", "<b>"])
def test_so_is_a_bad_window(house: House, typed: str) -> None:
    answer = house.tab.send(house.tab.page("/user", id="bob"), "/user/limit", amount="1", window=typed)
    assert answer.status_code == 422 and "limit-window-error" in answer.text and "<b>" not in answer.text
    assert state_of(house.server.site.ledger.store, "bob").own_limit == 10 * USD


def test_a_limit_is_raised_until_a_time(house: House) -> None:
    store = house.server.site.ledger.store
    answer = house.tab.send(house.tab.page("/user", id="alice"), "/user/raise", by="2.5", until="2090-01-01T12:30")
    assert answer.status_code == 303
    state = state_of(store, "alice")
    assert (state.own_limit, state.limit, state.raised_until) == (10 * USD, 12_500_000_000, 3_786_957_000 * SECOND)
    page = house.tab.page("/user", id="alice")
    assert "raised by $2.50 until 2090-01-01 12:30 UTC" in text_of(page)
    form = form_on(page, "/user/raise")
    assert house.tab.post("/user/lower", {**form.fields, "by": "", "until": ""}).status_code == 303
    assert state_of(store, "alice").limit == 10 * USD


@pytest.mark.parametrize(
    ("by", "until", "field"),
    [
        ("0", "2090-01-01T00:00", "by"),
        ("", "2090-01-01T00:00", "by"),
        ("1", "2020-01-01T00:00", "until"),
        ("1", "", "until"),
        ("1", "tomorrow", "until"),
        ("1", "2090-02-31T00:00", "until"),
        ("1", "9999-01-01T00:00", "until"),
    ],
)
def test_a_bad_raise_is_said_beside_the_field(house: House, by: str, until: str, field: str) -> None:
    answer = house.tab.send(house.tab.page("/user", id="alice"), "/user/raise", by=by, until=until)
    assert answer.status_code == 422
    assert re.findall(r'id="raise-(\w+)-error"', answer.text) == [field]
    assert state_of(house.server.site.ledger.store, "alice").limit == 10 * USD


def test_there_must_be_a_limit_to_raise(house: House) -> None:
    for user in ("carol", "nobody"):
        answer = house.tab.send(house.tab.page("/user", id=user), "/user/raise", by="1", until="2090-01-01T00:00")
        assert answer.status_code == 422 and "There is no limit to raise here" in answer.text


def test_a_default_can_be_raised_for_one(house: House) -> None:
    defaults = (Default("user", "7d", 4 * USD),)
    ledger = house.server.site.ledger
    ledger._seen[PROJECT] = defaults
    ask(ledger.store, Reserve("h", PROJECT, (Subject("user", "eve"),), ("m",), Amounts(USD), 60 * SECOND, defaults))
    house.tab.send(house.tab.page("/user", id="eve"), "/user/raise", by="1", until="2090-01-01T00:00")
    assert "20 % of $5.00 is used" in text_of(house.tab.page("/user", id="eve"))
    assert not state_of(ledger.store, "eve").pinned


def test_a_new_users_limit_has_the_window_of_the_default(house: House) -> None:
    house.server.site.ledger._seen[PROJECT] = (Default("user", "7d", 4 * USD),)
    house.tab.send(house.tab.page("/user", id="eve"), "/user/limit", amount="6")
    assert state_of(house.server.site.ledger.store, "eve").ref.window == "7d"


def test_a_change_is_in_the_list_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for when the next reading is due."""
    monkeypatch.setattr(scanning, "_INTERVAL", 3600.0)
    assert "of 1 user" in text_of(house.tab.page("/users", show="near"))
    house.tab.send(house.tab.page("/user", id="bob"), "/user/limit", amount="2")
    until = time.monotonic() + 10
    while "of 2 users" not in text_of(house.tab.page("/users", show="near")):
        assert time.monotonic() < until
        time.sleep(0.05)


def _reserve(house: House, hold: str, user: str) -> object:
    command = Reserve(hold, PROJECT, (Subject("user", user),), ("gpt-4o",), Amounts(1), 60 * SECOND)
    return ask(house.server.site.ledger.store, command)


def test_a_user_is_blocked_and_unblocked(house: House) -> None:
    assert isinstance(_reserve(house, "h1", "bob"), Granted)
    house.tab.send(house.tab.page("/user", id="bob"), "/user/block")
    refused = _reserve(house, "h2", "bob")
    assert isinstance(refused, Refused) and refused.reason == "blocked"
    page = house.tab.page("/user", id="bob", done="block")
    assert "The user is blocked." in page and "/user/block" not in page
    house.tab.send(page, "/user/unblock")
    assert isinstance(_reserve(house, "h3", "bob"), Granted)


def test_somebody_without_a_budget_can_be_blocked(house: House) -> None:
    house.tab.send(house.tab.page("/user", id="stranger"), "/user/block")
    refused = _reserve(house, "h1", "stranger")
    assert isinstance(refused, Refused) and refused.reason == "blocked"


def test_who_changed_what_is_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "litellm_budget_plugin.server")
    house.tab.send(house.tab.page("/user", id="bob"), "/user/block")
    assert f"key {house.key[4:16]} changed user 'bob' of project 'shop': block" in caplog.text
    assert house.key not in caplog.text


def test_a_reset_asks_first(house: House) -> None:
    store = house.server.site.ledger.store
    assert "/user/reset?id=alice" in house.tab.page("/user", id="alice")
    question = house.tab.page("/user/reset", id="alice")
    assert "$9.00" in question and state_of(store, "alice").spent == 9 * USD
    assert house.tab.send(question, "/user/reset").headers["location"] == "/user?id=alice&done=reset"
    state = state_of(store, "alice")
    assert (state.spent, state.held, state.own_limit) == (0, USD // 2, 10 * USD)
    assert "Spent in 30 days $9.00" in text_of(house.tab.page("/user", id="alice"))


def test_a_form_sent_twice_changes_nothing_twice(house: House) -> None:
    store = house.server.site.ledger.store
    question = house.tab.page("/user/reset", id="alice")
    assert house.tab.send(question, "/user/reset").status_code == 303
    charge(store, "alice", USD, "after the reset")
    assert house.tab.send(question, "/user/reset").status_code == 303
    assert state_of(store, "alice").spent == USD
    page = house.tab.page("/user", id="alice")
    house.tab.send(page, "/user/limit", amount="20")
    ask(store, PutBudget("somebody else", PROJECT, Subject("user", "alice"), limit=30 * USD))
    house.tab.send(page, "/user/limit", amount="20")
    assert state_of(store, "alice").own_limit == 30 * USD


def test_the_same_page_with_something_else_typed_is_another_change(house: House) -> None:
    """Somebody goes back, corrects the amount and sends again."""
    page = house.tab.page("/user", id="alice")
    house.tab.send(page, "/user/limit", amount="20")
    house.tab.send(page, "/user/limit", amount="25")
    assert state_of(house.server.site.ledger.store, "alice").own_limit == 25 * USD


def test_a_form_without_its_number_is_refused(house: House) -> None:
    form = form_on(house.tab.page("/user", id="alice"), "/user/limit")
    for nonce in ("", "x", "0" * 33):
        answer = house.tab.post("/user/limit", {**form.fields, "amount": "1", "nonce": nonce})
        assert answer.status_code == 422 and "not complete" in answer.text
    assert state_of(house.server.site.ledger.store, "alice").own_limit == 10 * USD


def test_addresses_that_cannot_be(house: House) -> None:
    assert house.tab.get("/user").status_code == 422
    assert house.tab.get("/user", id="x" * 513).status_code == 422
    assert house.tab.get("/user", id="alice", done="<script>").status_code == 200
    form = form_on(house.tab.page("/user", id="alice"), "/user/limit")
    assert house.tab.post("/user/delete", form.fields).status_code == 404
    assert house.tab.post("/user/limit", {**form.fields, "id": ""}).status_code == 422
