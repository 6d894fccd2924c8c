"""The exported numbers are those of the ledger."""

from __future__ import annotations

import csv
import io
import re
import time
from decimal import Decimal

import httpx
import pytest

from litellm_budget_plugin.core.accounts import Usage, UsageKey
from litellm_budget_plugin.core.commands import Accounts, AccountState, Read, ReadUsage, UsageRows
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.stores.protocol import ask
from tests.server.dashboard.conftest import House
from tests.server.dashboard.desk import ODD_IDS, PROJECT, USD, account, load, today


def _rows(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def _states(house: House) -> list[AccountState]:
    found, after = [], ""
    while after is not None:
        reply = ask(house.server.site.ledger.store, Read(PROJECT, "user", after=after, page=700))
        assert isinstance(reply, Accounts)
        found += reply.accounts
        after = reply.after
    return found


def _said(state: AccountState) -> tuple[object, ...]:
    amounts = [None if value is None else Decimal(value) / USD for value in (state.limit, state.spent, state.held)]
    return (state.ref.subject, state.ref.model, state.ref.window, *amounts, state.pinned, state.blocked)


def test_all_users_are_exported_as_they_are_in_the_ledger(house: House, store_url: str) -> None:
    end = time.time_ns() // 1000 + DAY
    load(
        store_url,
        [
            account(f"n{number}", number * USD + number, number + 7, number % 3, number=number, window="7d", end=end)
            for number in range(2500)
        ]
        + [
            account(
                "alice", USD, 1, 0, model="gpt-4o", window="1d", end=end, blocked=True, raised_by=USD, raised_until=end
            )
        ],
    )
    wanted = [_said(state) for state in _states(house)]
    assert len(wanted) == 2500 + 4 + len(ODD_IDS)
    found = [
        (
            row["user"],
            row["model"],
            row["window"],
            *(Decimal(row[name]) if row[name] else None for name in ("limit", "spent", "held")),
            row["own_limit"] == "yes",
            row["blocked"] == "yes",
        )
        for row in _rows(house.tab.get("/export.csv"))
    ]
    assert found == wanted
    found = [
        (
            row["user"],
            row["model"],
            row["window"],
            *(None if row[name] is None else Decimal(row[name]) for name in ("limit", "spent", "held")),
            row["own_limit"],
            row["blocked"],
        )
        for row in house.tab.get("/export.json").json()
    ]
    assert found == wanted
    (raised,) = [row for row in _rows(house.tab.get("/export.csv")) if row["model"] == "gpt-4o"]
    assert (raised["raised_by"], raised["limit"]) == ("1.00", "2.00")
    assert (
        raised["raised_until"] == raised["window_end"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end // 10**6))
    )


def test_one_users_days_are_too(house: House, store_url: str) -> None:
    load(store_url, [], [(UsageKey("user", "alice", 0, "old"), Usage(7, 1, 2, 3, 4, 5))])
    reply = house.server.site.ledger.store.execute(ReadUsage(PROJECT, "user", "alice"))
    assert isinstance(reply, UsageRows) and len(reply.rows) == 3
    dates = {0: "earlier", today(): time.strftime("%Y-%m-%d", time.gmtime(today() * 86400))}
    for rows in (
        _rows(house.tab.get("/subject/export.csv", id="alice")),
        house.tab.get("/subject/export.json", id="alice").json(),
    ):
        for row, (key, usage) in zip(rows, reply.rows, strict=True):
            assert row["day"] == dates.get(key.day, row["day"]) and row["model"] == key.model
            assert Decimal(row["spent"]) * USD == usage.spent
            assert [int(row[name]) for name in Usage._fields[1:]] == list(usage[1:])


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\uff1d1"])
def test_a_spreadsheet_runs_nothing(house: House, store_url: str, name: str) -> None:
    load(store_url, [account(name)], [(UsageKey("user", "alice", today(), name), Usage(1, 1))])
    assert f"'{name}" in [row["user"] for row in _rows(house.tab.get("/export.csv"))]
    assert f"'{name}" in [row["model"] for row in _rows(house.tab.get("/subject/export.csv", id="alice"))]
    assert name in [row["user"] for row in house.tab.get("/export.json").json()]
    for row in _rows(house.tab.get("/export.csv")):
        assert not [value for value in row.values() if value[:1] in "=+-@\t\r\uff1d" and value]


def test_nor_after_what_some_spreadsheet_takes_for_the_end_of_a_cell(house: House, store_url: str) -> None:
    """A spreadsheet with German settings splits at semicolons, also within quotes that began later."""
    ends = (";", ",", "\t", "\n", "\r", "\r\n", "|", "\x0b", "\u2028", "; ", ';"', ";'", "a;b;", "\t\t")
    parts = [(f"x{end}", f"{sign}1+1") for end in ends for sign in "=+-@\uff1d\uff0b"]
    names = ["".join(part) for part in parts]
    load(
        store_url,
        [account(name, model=name, number=number) for number, name in enumerate(names)],
        [(UsageKey("user", "alice", today(), name), Usage(1, 1)) for name in names],
    )
    files = house.tab.get("/export.csv"), house.tab.get("/subject/export.csv", id="alice")
    told = [
        row[column]
        for answer, columns in zip(files, (("user", "model"), ("model",)))
        for row in _rows(answer)
        for column in columns
    ]
    assert {told.count("'".join(part)) for part in parts} == {3}
    for answer in files:
        for divider in ";,|\t":
            cells = re.split(rf"[{divider}\r\n\x0b\u2028]", answer.text)
            assert not [cell for cell in cells if re.match(r"[\s\"]*[=+@\uff1d\uff0b-]", cell)]


def test_what_is_no_formula_is_not_changed(house: House, store_url: str) -> None:
    name = "a-b = c; d, e+f@g.example"
    load(store_url, [account(name)])
    assert name in [row["user"] for row in _rows(house.tab.get("/export.csv"))]


def test_a_program_may_send_its_key_as_to_the_api(house: House) -> None:
    headers = {"authorization": f"Bearer {house.reader_key}"}
    answer = httpx.get(f"{house.server.url}/export.json", headers=headers)
    assert answer.status_code == 200 and len(answer.json()) == 3 + len(ODD_IDS)


def test_an_empty_project_is_an_empty_file(house: House) -> None:
    headers = {"authorization": f"Bearer {house.other_key}"}
    assert httpx.get(f"{house.server.url}/export.json", headers=headers).json() == []
    assert _rows(httpx.get(f"{house.server.url}/export.csv", headers=headers)) == []
    assert httpx.get(f"{house.server.url}/subject/export.json?id=x", headers=headers).json() == []
