"""The page of a user, a team, a tag, a run or the project, and the changes that it offers."""

from __future__ import annotations

import html
import re
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject, Usage, UsageKey
from litellm_budget_plugin.core.commands import Granted, PutBudget, Refused, Reserve, SetLimits
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.server import history
from litellm_budget_plugin.server.dashboard import scanning
from litellm_budget_plugin.stores.protocol import ask
from tests.server.dashboard.conftest import House
from tests.server.dashboard.desk import (
    PROJECT,
    USD,
    Tab,
    account,
    charge,
    form_on,
    load,
    state_of,
    states_of,
    text_of,
    today,
)
from tests.server.running import running


def test_the_page_says_all_of_a_user(house: House, store_url: str) -> None:
    end = time.time_ns() // 1000 + 2 * DAY + 3 * 3600 * SECOND + 59 * SECOND
    load(store_url, [account("dora", 8 * USD, 3 * USD, USD, window="7d", end=end, raised_by=2 * USD, raised_until=end)])
    text = text_of(house.tab.page("/subject", id="dora"))
    assert "$8 per 7d 40 % of $10.00 is used" in text
    assert "Spent $3.00 Held in flight $1.00 Left $6.00" in text
    assert "Set by hand; raised by $2.00 until 20" in text
    assert "Resets in 2 d 3 h" in text


def test_what_runs_out_early_is_foretold(house: House, store_url: str) -> None:
    """The forecast is on the page of the subject, on that of the project, and in the answer over HTTP."""
    day, month = today(), "30d"
    spent = [(UsageKey("user", "fred", day - before, "gpt-4o"), Usage(USD, 1, 10, 5)) for before in range(6)]
    limited = [account("fred", 8 * USD, 6 * USD, window=month, end=(day + 20) * DAY)]
    load(store_url, limited, spent)
    house.server.site.ledger.budgets(PROJECT).set_limits("project", "$40")
    foretold = r"At this rate \$8 per 30d runs out on 20\d\d-\d\d-\d\d\."
    assert re.search(foretold, text_of(house.tab.page("/subject", id="fred")))
    assert re.search(r"At this rate \$40 runs out on 20", text_of(house.tab.page("/")))
    assert "At this rate" not in text_of(house.tab.page("/subject", id="bob"))
    asked = {"headers": {"Authorization": f"Bearer {house.key}"}, "timeout": 60}
    said = httpx.get(f"{house.server.url}/v1/subjects/fred", **asked).json()["forecast"]
    assert said["budget"] == "$8 per 30d" and said["sentence"].endswith(said["runs_out_at"][:10])
    assert httpx.get(f"{house.server.url}/v1/subjects/bob", **asked).json()["forecast"] is None
    metrics = httpx.get(f"{house.server.url}/metrics", **asked).text
    (line,) = [line for line in metrics.splitlines() if line.startswith("litellm_budget_runs_out_timestamp_seconds{")]
    assert f'project="{PROJECT}"' in line and time.time() < float(line.split()[-1]) < time.time() + 60 * 86_400


def test_spend_by_day_and_model_is_drawn_and_told(house: House) -> None:
    page = house.tab.page("/subject", id="alice")
    svg = page.partition('<svg class="plot"')[2].partition("</svg>")[0]
    assert len(set(re.findall(r'<rect class="series-(\d+)"', svg))) == 2
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
    page = house.tab.page("/subject", id="bob")
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
    text = text_of(house.tab.page("/subject", id="eve"))
    assert "$4 25 % of $4.00 is used" in text and "A default: set in the environment or a file" in text
    house.server.site.ledger._seen.clear()
    assert "no limit known here" in text_of(house.tab.page("/subject", id="eve"))


def _limits(house: House, subject: str = "bob", **scope: str) -> list[str]:
    """Return the sentences that can be changed on a page."""
    page = house.tab.page("/subject", id=subject, **scope)
    return [html.unescape(each) for each in re.findall(r'name="old" value="([^"]+)"', page)]


def _send(house: House, change: str = "limit", subject: str = "bob", **fields: str) -> httpx.Response:
    """Send a change of the first limit of a user unless the fields say otherwise."""
    return house.tab.send(house.tab.page("/subject", id=subject), f"/subject/{change}", **fields)


def test_a_limit_is_changed_as_a_sentence(house: House) -> None:
    store = house.server.site.ledger.store
    answer = _send(house, limit="$1,234.50")
    assert answer.status_code == 303 and answer.headers["location"] == "/subject?id=bob&done=limit"
    assert "The limit is set." in house.tab.page("/subject", id="bob", done="limit")
    state = state_of(store, "bob")
    assert (state.own_limit, state.spent, state.ref.window) == (1_234_500_000_000, 2 * USD, "none")
    _send(house, limit="$0.000000001 / month")
    state = state_of(store, "bob")
    assert (state.own_limit, state.ref.window) == (1, "month@UTC")
    _send(house, limit="unlimited per month")
    assert state_of(store, "bob").limit is None and _limits(house) == ["unlimited per month"]


def test_limits_are_added_and_deleted_and_the_others_stay(house: House) -> None:
    assert _limits(house) == ["$10"]
    for sentence in ("$3 per day for gpt-4o", "100 calls/hour"):
        assert _send(house, old="", limit=sentence).status_code == 303
    assert _limits(house) == ["100 calls per hour", "$10", "$3 per day for gpt-4o"]
    assert _send(house, old="$10", limit="$12").status_code == 303
    assert _send(house, "delete", old="100 calls per hour", limit="").status_code == 303
    assert _limits(house) == ["$12", "$3 per day for gpt-4o"]
    text = text_of(house.tab.page("/subject", id="bob"))
    assert "16 % of $12.00 is used" in text and "$3 per day for gpt-4o" in text and "* " not in _limits(house)
    answer = _send(house, old="", limit="$4 per day for GPT-4o")
    assert answer.status_code == 422 and "limit the same thing" in text_of(answer.text)
    assert _limits(house) == ["$12", "$3 per day for gpt-4o"]


def test_a_long_list_can_be_changed_and_a_longer_one_says_how(house: House) -> None:
    store, bob = house.server.site.ledger.store, Subject("user", "bob")
    long = [Limit(USD, "day@UTC", f"{'long-name-of-a-model-' * 8}{number:02}") for number in range(51)]
    ask(store, SetLimits("s", PROJECT, bob, tuple(long[:49])))
    assert _send(house, old="", limit="$5").status_code == 303
    assert _send(house, "delete", old=str(long[7])).status_code == 303
    assert set(_limits(house)) == {"$5", *map(str, long[:7]), *map(str, long[8:49])}
    ask(store, SetLimits("t", PROJECT, bob, tuple(long)))
    page = house.tab.page("/subject", id="bob")
    assert "There are 51 limits: too many for this page. Change them over HTTP" in page and 'name="seen"' not in page


def test_deleting_the_last_one_forgets_what_was_set_by_hand(house: House) -> None:
    house.server.site.ledger._seen[PROJECT] = (Default("user", "day@UTC", 4 * USD),)
    assert _send(house, "delete").status_code == 303
    page = house.tab.page("/subject", id="bob")
    assert _limits(house) == ["$4 per day"] and "come from the environment or a file" in page
    # A limit that is set elsewhere is removed for this user only.
    assert _send(house, "delete").status_code == 303
    assert _limits(house) == ["unlimited"] and _limits(house, "zoe") == ["$4 per day"]
    assert _send(house, "clear").status_code == 303
    assert _limits(house) == ["$4 per day"]


def test_a_default_that_is_changed_becomes_a_list_set_by_hand(house: House) -> None:
    house.server.site.ledger._seen[PROJECT] = (Default("user", "7d", 4 * USD), Default("user", "day@UTC", USD))
    assert _send(house, subject="eve", old="$4 per 7d", limit="$6 per 7d").status_code == 303
    assert _limits(house, "eve") == ["$6 per 7d", "$1 per day"]
    house.server.site.ledger._seen[PROJECT] = (Default("user", "day@UTC", 9 * USD),)
    assert _limits(house, "eve") == ["$6 per 7d", "$1 per day"]


def test_two_people_who_change_a_list_at_once_delete_nothing(house: House) -> None:
    page = house.tab.page("/subject", id="bob")
    assert _send(house, old="", limit="$1/day").status_code == 303
    answer = house.tab.send(page, "/subject/limit", old="", limit="$5/week")
    assert answer.status_code == 422 and "have changed since this page was loaded" in answer.text
    assert _limits(house) == ["$1 per day", "$10"] or _limits(house) == ["$10", "$1 per day"]
    assert house.tab.send(answer.text, "/subject/limit", old="", limit="$5/week").status_code == 303
    assert set(_limits(house)) == {"$10", "$1 per day", "$5 per week"}


def test_forms_that_are_sent_at_one_moment_delete_nothing(house: House) -> None:
    """Each form reads the list before it writes it."""
    form = form_on(house.tab.page("/subject", id="bob"), "/subject/limit")
    sentences = [f"${number} per day for m{number}" for number in range(1, 9)]

    def send(sentence: str) -> int:
        return house.tab.post(form.action, {**form.fields, "old": "", "limit": sentence}).status_code

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(send, sentences))
    assert sorted(statuses) == [303] + [422] * 7
    kept = sentences[statuses.index(303)]
    assert set(_limits(house)) == {"$10", kept}


def test_a_user_gets_a_limit_before_the_first_call(house: House) -> None:
    page = house.tab.page("/subject", id="new@example.com")
    house.tab.send(page, "/subject/limit", limit="$3")
    assert state_of(house.server.site.ledger.store, "new@example.com").own_limit == 3 * USD
    answer = house.tab.send(house.tab.page("/subject", id=" new"), "/subject/limit", limit="$3")
    assert answer.status_code == 422 and "without white space" in answer.text
    assert states_of(house.server.site.ledger.store, " new") == ()


@pytest.mark.parametrize(
    "typed",
    [
        "five", "-1", "$1e3", "nan", "$1,23", "$٣", "$9007199.26", "", "  ", "$1.2.3", "$1 per fortnight",
        "$1 per 10s", "$1 per month@Nowhere/City", "<b>", "$1 for two models",
    ],
)  # fmt: skip
def test_a_bad_sentence_is_said_beside_the_field(house: House, typed: str) -> None:
    before = state_of(house.server.site.ledger.store, "bob")
    for old, name in (("$10", "limit-1-limit"), ("", "limit-new-limit")):
        answer = _send(house, old=old, limit=typed)
        assert answer.status_code == 422 and "<b>" not in answer.text
        field = answer.text.partition(f'id="{name}"')[2].partition("</div>")[0]
        assert f'value="{html.escape(typed)}"' in field
        assert f'aria-invalid="true" aria-describedby="{name}-error' in field
        assert f'<p class="error" id="{name}-error">' in field
        assert answer.text.count('class="error"') == 1
    assert "$10 per month" in html.unescape(answer.text.partition('class="error"')[2])
    assert state_of(house.server.site.ledger.store, "bob") == before


def test_a_model_that_nobody_has_called_is_pointed_out(house: House) -> None:
    assert _send(house, old="", limit="$1 per day for gpt4o").status_code == 303
    assert "No call here has used this model in 30 days. Did you mean gpt-4o?" in text_of(
        house.tab.page("/subject", id="bob")
    )
    _send(house, old="$1 per day for gpt4o", limit="$1 per day for gpt-4*")
    assert "No call here" not in house.tab.page("/subject", id="bob")


@pytest.mark.parametrize("scope", ["team", "tag", "run", "project"])
def test_others_than_users_have_pages_too(house: House, scope: str) -> None:
    store, name = house.server.site.ledger.store, PROJECT if scope == "project" else "search"
    page = house.tab.page("/subject", scope=scope, id=name)
    assert f"<bdi>{name}</bdi></h1>" in page
    answer = house.tab.send(page, "/subject/limit", old="", limit="$500/month")
    assert answer.status_code == 303
    # A new monthly limit of the project begins with the month's totals.
    assert re.search(r"\$500 per month \d % of \$500\.00", text_of(house.tab.page(answer.headers["location"])))
    assert state_of(store, name, scope).own_limit == 500 * USD
    answer = house.tab.send(house.tab.page(answer.headers["location"]), "/subject/block")
    page = house.tab.page(answer.headers["location"])
    assert f'<bdi>{name}</bdi></h1> <span class="badge full">blocked</span>' in page
    subjects = (Subject("user", "alice"), Subject(scope, name))
    refused = ask(store, Reserve("h", PROJECT, subjects, ("gpt-4o",), Amounts(1), 60 * SECOND))
    assert isinstance(refused, Refused) and (refused.account.scope, refused.reason) == (scope, "blocked")
    listing = house.tab.page("/subjects", scope=scope)
    assert f"{name} blocked" in text_of(listing) and "alice" not in listing
    assert house.tab.send(page, "/subject/unblock").status_code == 303
    exported = house.tab.page("/export.csv", scope=scope)
    assert exported.startswith(f"{scope},model,") and f"{name},,month@UTC,usd,500.00" in exported


def test_a_scope_that_there_is_not(house: House) -> None:
    for path in ("/subject", "/subjects", "/export.csv", "/subject/export.json", "/subject/reset"):
        answer = house.tab.get(path, scope="session", id="x")
        assert answer.status_code == 422 and "user, team, tag, run, project" in answer.text, path
    fields = {**form_on(house.tab.page("/subject", id="bob"), "/subject/limit").fields, "limit": "$1"}
    assert house.tab.post("/subject/limit", {**fields, "scope": "credit:user"}).status_code == 422


def test_a_balance_is_topped_up_and_refunded(house: House) -> None:
    store = house.server.site.ledger.store
    answer = _send(house, "top-up", amount="$5", payment="invoice-17")
    assert answer.status_code == 303
    assert _send(house, "top-up", amount="$5", payment="invoice-17").status_code == 303
    assert _send(house, "top-up", amount="$2.50", payment="invoice-18").status_code == 303
    page = house.tab.page("/subject", id="bob")
    text = text_of(page)
    assert "Balance $7.50" in text and "Prepaid balance 0 % of $7.50 is used" in text
    assert re.search(r"invoice-18 20.* \$2\.50 Refund invoice-17 20.* \$5\.00 Refund", text)
    assert _limits(house) == ["$10"]
    charge(store, "bob", USD, "h1")
    assert "Balance $6.50" in text_of(house.tab.page("/subject", id="bob"))
    assert _send(house, "refund", payment="invoice-18").status_code == 303
    text = text_of(house.tab.page("/subject", id="bob"))
    assert "Balance $4.00" in text and re.search(r"invoice-18 20\S* \S* UTC \$2\.50 refunded", text)
    # Changes of limits do not affect payments.
    assert _send(house, "delete").status_code == 303
    assert house.tab.send(house.tab.page("/subject/reset", id="bob"), "/subject/reset").status_code == 303
    assert "Balance $4.00" in text_of(house.tab.page("/subject", id="bob"))
    answer = _send(house, "top-up", amount="$6", payment="invoice-17")
    assert answer.status_code == 422 and "was made before" in answer.text and 'id="credit-amount-error"' in answer.text
    answer = _send(house, "top-up", amount="much", payment="invoice-19")
    assert answer.status_code == 422 and 'id="credit-amount-error"' in answer.text
    assert 'id="credit-payment-error"' in _send(house, "top-up", amount="$1", payment=" ").text


def test_a_payment_of_another_one_is_not_refunded_here(house: House) -> None:
    assert _send(house, "top-up", amount="$5", payment="mine").status_code == 303
    fields = form_on(house.tab.page("/subject", id="bob"), "/subject/refund").fields
    assert house.tab.post("/subject/refund", {**fields, "id": "alice"}).status_code == 422
    assert "Balance $5.00" in text_of(house.tab.page("/subject", id="bob"))


def test_changes_are_remembered(house: House, store_url: str) -> None:
    """They are stored with the label of the key, visible on every server of the ledger, and bounded in number."""
    store = house.server.site.ledger.store
    _send(house, limit="$20")
    _send(house, "block")
    with running(store_url) as second:
        text = text_of(Tab(second.url, house.reader_key).page("/subject", id="bob"))
    assert re.search(r"Changes When .* UTC key blocked 20\S* \S* UTC key limits: \$20 ", text)
    assert "Changes" not in text_of(house.tab.page("/subject", id="alice"))
    for number in range(history.MOST):
        history.note(store, PROJECT, Subject("user", "bob"), "me", f"{number} {'x' * 300}", f"id{number}")
    found = history.changes_of(store, PROJECT, Subject("user", "bob"))
    assert len(found) == history.MOST and "limits: $20" not in {each.what for each in found}
    history.note(store, PROJECT, Subject("user", "bob"), *found[0][1:], f"id{history.MOST - 1}")
    assert history.changes_of(store, PROJECT, Subject("user", "bob")) == found
    assert house.tab.get("/", project=history.HISTORY_PROJECT).status_code == 403


def test_the_period_can_be_chosen(house: House, store_url: str) -> None:
    old = UsageKey("user", "bob", today() - 60, "o3")
    load(store_url, [], [(old, Usage(3 * USD, 1, 1, 1))])
    for path, parameters in (("/subject", {"id": "bob"}), ("/", {})):
        page = house.tab.page(path, **parameters)
        assert ">30 days</a>" in page and "Spent in 30 days" in page and "Models in 30 days" in page
        for days in ("7", "90", "400"):
            assert f"days={days}" in page
            chosen = house.tab.page(path, **parameters, days=days)
            assert f"Spent in {days} days" in chosen and f'aria-current="true">{days} days</a>' in chosen
            assert ("$3.00 1 2 0" in text_of(chosen)) == (days != "7")
        assert "Spent in 30 days" in house.tab.page(path, **parameters, days="1000")


def test_a_model_has_one_colour_on_all_pages(house: House) -> None:
    def colours(page: str) -> dict[str, str]:
        legend = page.partition('class="legend"')[2].partition("</ul>")[0]
        return {name: colour for colour, name in re.findall(r'series-(\d+)".*?<bdi>([^<]*)</bdi>', legend)}

    project, alice = colours(house.tab.page("/")), colours(house.tab.page("/subject", id="alice"))
    bob = colours(house.tab.page("/subject", id="bob"))
    assert set(alice) == {"gpt-4o", "o3"} and set(bob) == {"gpt-4o"}
    assert alice["gpt-4o"] == bob["gpt-4o"] == project["gpt-4o"] != alice["o3"] == project["o3"]


def test_a_limit_is_raised_until_a_time(house: House) -> None:
    store = house.server.site.ledger.store
    answer = house.tab.send(
        house.tab.page("/subject", id="alice"), "/subject/raise", by="$2.50", until="2090-01-01T12:30"
    )
    assert answer.status_code == 303
    state = state_of(store, "alice")
    assert (state.own_limit, state.limit, state.raised_until) == (10 * USD, 12_500_000_000, 3_786_957_000 * SECOND)
    page = house.tab.page("/subject", id="alice")
    assert "raised by $2.50 until 2090-01-01 12:30 UTC" in text_of(page)
    form = form_on(page, "/subject/raise")
    assert house.tab.post("/subject/lower", {**form.fields, "by": "", "until": ""}).status_code == 303
    assert state_of(store, "alice").limit == 10 * USD


@pytest.mark.parametrize(
    ("by", "until", "field"),
    [
        ("5", "2090-01-01T00:00", "by"),
        ("", "2090-01-01T00:00", "by"),
        ("$5 per day", "2090-01-01T00:00", "by"),
        ("$1", "2020-01-01T00:00", "until"),
        ("$1", "", "until"),
        ("$1", "tomorrow", "until"),
        ("$1", "2090-02-31T00:00", "until"),
        ("$1", "9999-01-01T00:00", "until"),
    ],
)
def test_a_bad_raise_is_said_beside_the_field(house: House, by: str, until: str, field: str) -> None:
    answer = house.tab.send(house.tab.page("/subject", id="alice"), "/subject/raise", by=by, until=until)
    assert answer.status_code == 422
    assert re.findall(r'id="raise-(\w+)-error"', answer.text) == [field]
    assert state_of(house.server.site.ledger.store, "alice").limit == 10 * USD


def test_there_must_be_a_limit_to_raise(house: House) -> None:
    for user in ("carol", "nobody"):
        answer = house.tab.send(
            house.tab.page("/subject", id=user), "/subject/raise", by="$1", until="2090-01-01T00:00"
        )
        assert answer.status_code == 422 and "has no limit in US dollars that could be raised" in answer.text


def test_a_default_can_be_raised_for_one(house: House) -> None:
    defaults = (Default("user", "7d", 4 * USD),)
    ledger = house.server.site.ledger
    ledger._seen[PROJECT] = defaults
    ask(ledger.store, Reserve("h", PROJECT, (Subject("user", "eve"),), ("m",), Amounts(USD), 60 * SECOND, defaults))
    house.tab.send(house.tab.page("/subject", id="eve"), "/subject/raise", by="$1", until="2090-01-01T00:00")
    assert "20 % of $5.00 is used" in text_of(house.tab.page("/subject", id="eve"))
    assert not state_of(ledger.store, "eve").pinned


def test_a_change_is_in_the_list_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for the next regular reading."""
    monkeypatch.setattr(scanning, "_INTERVAL", 3600.0)
    assert "of 1 user" in text_of(house.tab.page("/subjects", show="near"))
    house.tab.send(house.tab.page("/subject", id="bob"), "/subject/limit", limit="$2")
    until = time.monotonic() + 10
    while "of 2 users" not in text_of(house.tab.page("/subjects", show="near")):
        assert time.monotonic() < until
        time.sleep(0.05)


def _reserve(house: House, hold: str, user: str) -> object:
    command = Reserve(hold, PROJECT, (Subject("user", user),), ("gpt-4o",), Amounts(1), 60 * SECOND)
    return ask(house.server.site.ledger.store, command)


def test_a_user_is_blocked_and_unblocked(house: House) -> None:
    assert isinstance(_reserve(house, "h1", "bob"), Granted)
    house.tab.send(house.tab.page("/subject", id="bob"), "/subject/block")
    refused = _reserve(house, "h2", "bob")
    assert isinstance(refused, Refused) and refused.reason == "blocked"
    page = house.tab.page("/subject", id="bob", done="block")
    assert "Every call is refused from now on." in page and "/subject/block" not in page
    house.tab.send(page, "/subject/unblock")
    assert isinstance(_reserve(house, "h3", "bob"), Granted)


def test_somebody_without_a_budget_can_be_blocked(house: House) -> None:
    house.tab.send(house.tab.page("/subject", id="stranger"), "/subject/block")
    refused = _reserve(house, "h1", "stranger")
    assert isinstance(refused, Refused) and refused.reason == "blocked"


def test_who_changed_what_is_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "litellm_budget_plugin.server")
    house.tab.send(house.tab.page("/subject", id="bob"), "/subject/block")
    assert f"key {house.key[4:16]} changed user 'bob' of project 'shop': block" in caplog.text
    assert house.key not in caplog.text


def test_a_reset_asks_first(house: House) -> None:
    store = house.server.site.ledger.store
    assert "/subject/reset?id=alice" in house.tab.page("/subject", id="alice")
    question = house.tab.page("/subject/reset", id="alice")
    assert "$9.00" in question and state_of(store, "alice").spent == 9 * USD
    assert house.tab.send(question, "/subject/reset").headers["location"] == "/subject?id=alice&done=reset"
    state = state_of(store, "alice")
    assert (state.spent, state.held, state.own_limit) == (0, USD // 2, 10 * USD)
    assert "Spent in 30 days $9.00" in text_of(house.tab.page("/subject", id="alice"))


def test_a_form_sent_twice_changes_nothing_twice(house: House) -> None:
    store = house.server.site.ledger.store
    question = house.tab.page("/subject/reset", id="alice")
    assert house.tab.send(question, "/subject/reset").status_code == 303
    charge(store, "alice", USD, "after the reset")
    assert house.tab.send(question, "/subject/reset").status_code == 303
    assert state_of(store, "alice").spent == USD
    page = house.tab.page("/subject", id="alice")
    house.tab.send(page, "/subject/limit", limit="$20")
    ask(store, PutBudget("somebody else", PROJECT, Subject("user", "alice"), limit=30 * USD))
    house.tab.send(page, "/subject/limit", limit="$20")
    assert state_of(store, "alice").own_limit == 30 * USD


def test_a_form_without_its_number_is_refused(house: House) -> None:
    form = form_on(house.tab.page("/subject", id="alice"), "/subject/limit")
    for nonce in ("", "x", "0" * 33):
        answer = house.tab.post("/subject/limit", {**form.fields, "limit": "$1", "nonce": nonce})
        assert answer.status_code == 422 and "not complete" in answer.text
    assert state_of(house.server.site.ledger.store, "alice").own_limit == 10 * USD


def test_addresses_that_cannot_be(house: House) -> None:
    assert house.tab.get("/subject").status_code == 422
    assert house.tab.get("/subject", id="x" * 513).status_code == 422
    assert house.tab.get("/subject", id="alice", done="<script>").status_code == 200
    form = form_on(house.tab.page("/subject", id="alice"), "/subject/limit")
    assert house.tab.post("/subject/drop", form.fields).status_code == 404
    assert house.tab.post("/subject/limit", {**form.fields, "id": ""}).status_code == 422
