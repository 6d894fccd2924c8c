"""litellm-budget usage: its sums equal the spend, its days are UTC days, and its files have the expected formats."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.cli.focus import COLUMNS
from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Settle
from litellm_budget_plugin.core.csv_cells import guarded, unguarded
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.manager.budgets import PERIODS
from litellm_budget_plugin.stores.protocol import Store, ask
from tests.cli.conftest import Command

PROJECT = Subject("project", "p")
DOLLAR = 10**9
Opened = Callable[[Command], Store]

# The columns that version 1.2 of the specification marks as mandatory for a cost and usage dataset.
MANDATORY = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
]


def _now() -> int:
    return int(datetime.now(timezone.utc).timestamp() * 1e6)


def _charge(store: Store, name: str, user: str, model: str, nanos: int, *others: Subject, days_ago: int = 0) -> None:
    at = (_now() // DAY - days_ago) * DAY if days_ago else None
    subjects = (Subject("user", user), PROJECT, *others)
    ask(store, Settle(name, "p", subjects, (model,), nanos, model, 100, 20, at=at))


def _fill(store: Store) -> None:
    search, batch, night = Subject("team", "search"), Subject("tag", "batch"), Subject("tag", "-night")
    _charge(store, "1", "alice", "gpt-4o", 2 * DOLLAR, search, batch, night)
    _charge(store, "2", "alice", "gpt-4o-mini", DOLLAR // 2, search, Subject("run", "42"))
    _charge(store, "3", "=1+1", "gpt-4o", 123_456_789, days_ago=1)
    _charge(store, "4", "bob", "", 1, batch, days_ago=40)


def _csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_every_sum_is_the_spend_on_every_engine(on: Command, opened: Opened) -> None:
    _fill(opened(on))
    spent = Decimal("2.623456790")
    combined = ["day,model", "model,day", "user,model", "user,day,model", "day,project"]
    for by in [*(each for each in PERIODS if each not in ("team", "tag", "run")), *combined]:
        rows = on.rows("usage", "--by", by)
        assert sum(Decimal(row["spent"]) for row in rows) == spent, by
        assert sum(row["calls"] for row in rows) == 4
        assert list(rows[0])[: by.count(",") + 1] == by.split(",")
    assert {row["team"]: row["spent"] for row in on.rows("usage", "--by", "team")} == {"search": "2.5"}
    assert {row["tag"]: row["spent"] for row in on.rows("usage", "--by", "tag")} == {
        "batch": "2.000000001",
        "-night": "2",
    }
    assert [row["spent"] for row in on.rows("usage", "--by", "run,model")] == ["0.5"]
    table = on.run("usage", "--by", "user,model").stdout.splitlines()
    assert table[-1].split()[:2] == ["total", "$2.62345679"] and len(table) == 1 + 4 + 1
    focus = _csv(on.run("usage", "--format", "focus").stdout)
    for column in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"):
        assert sum(Decimal(row[column]) for row in focus) == spent


def test_days_are_those_of_utc(on_file: Command, opened: Opened) -> None:
    _fill(opened(on_file))
    today = datetime.now(timezone.utc).date()

    def spent(*options: str) -> list[str]:
        return [row["spent"] for row in on_file.rows("usage", *options)]

    assert spent("--days", "1") == ["2.5"]
    assert spent("--days", "2") == ["0.123456789", "2.5"]
    assert spent("--days", "41") == ["0.000000001", "0.123456789", "2.5"]
    yesterday = str(today - timedelta(days=1))
    assert spent("--since", yesterday, "--until", yesterday) == ["0.123456789"]
    assert spent("--until", "2001-01-01") == [] and spent("--since", "2001-01-01", "--subject", "bob") == [
        "0.000000001"
    ]
    assert on_file.run("usage", "--until", "2001-01-01").stderr == "no calls\n"


def test_csv_runs_no_formula_and_is_not_summed(on_file: Command, opened: Opened) -> None:
    _fill(opened(on_file))
    rows = _csv(on_file.run("usage", "--by", "user", "--format", "csv").stdout)
    assert [(row["user"], row["spent"], row["calls"]) for row in rows] == [
        ("'=1+1", "0.123456789", "1"), ("alice", "2.5", "2"), ("bob", "0.000000001", "1"),
    ]  # fmt: skip
    assert [row["tag"] for row in _csv(on_file.run("usage", "--by", "tag", "--format", "csv").stdout)] == [
        "'-night",
        "batch",
    ]
    assert on_file.rows("usage", "--by", "user") == [
        json.loads(line) for line in on_file.run("usage", "--by", "user", "--format", "json").stdout.splitlines()
    ]


_SIGNS = "=+-@'\"; ,|a\uff1d"
_printable = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=30) | st.text(_SIGNS, max_size=12)


@given(_printable)
def test_a_guarded_cell_is_no_formula_and_reads_back(text: str) -> None:
    cell = guarded(text)
    assert isinstance(cell, str) and not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert unguarded(cell) == text


def test_focus_has_the_mandatory_columns_and_invents_nothing(on_file: Command, opened: Opened) -> None:
    _fill(opened(on_file))
    assert set(MANDATORY) <= set(COLUMNS) and len(MANDATORY) == 21
    assert len(set(COLUMNS)) == len(COLUMNS)
    rows = {row["SubAccountId"]: row for row in _csv(on_file.run("usage", "--format", "focus", "--days", "2").stdout)}
    assert list(rows) == ["'=1+1", "alice"]
    row = rows["'=1+1"]
    today = datetime.now(timezone.utc).date()
    day = today - timedelta(days=1)
    assert row["ChargePeriodStart"] == f"{day}T00:00:00Z" and row["ChargePeriodEnd"] == f"{today}T00:00:00Z"
    assert row["BillingPeriodStart"] == f"{day:%Y-%m}-01T00:00:00Z"
    assert row["BillingPeriodEnd"][8:] == "01T00:00:00Z" and row["BillingPeriodEnd"] > row["ChargePeriodStart"]
    assert (row["BilledCost"], row["BillingCurrency"], row["BillingAccountId"]) == ("0.123456789", "USD", "p")
    assert (row["ChargeCategory"], row["ServiceCategory"]) == ("Usage", "AI and Machine Learning")
    assert (row["SkuId"], row["ResourceId"], row["ConsumedQuantity"], row["ConsumedUnit"]) == (
        "gpt-4o",
        "gpt-4o",
        "120",
        "Tokens",
    )
    for unknown in ("ProviderName", "PublisherName", "InvoiceIssuerName", "BillingAccountName", "ChargeClass", "Tags"):
        assert row[unknown] == ""
    given_one = _csv(on_file.run("usage", "--format", "focus", "--provider", "OpenAI").stdout)
    assert {(row["ProviderName"], row["PublisherName"], row["InvoiceIssuerName"]) for row in given_one} == {
        ("OpenAI",) * 3
    }
    tags = _csv(on_file.run("usage", "--format", "focus", "--by", "tag").stdout)
    assert {json.loads(row["Tags"])["tag"] for row in tags} == {"-night", "batch"} and not any(
        row["SubAccountId"] for row in tags
    )


@given(st.text(_SIGNS, min_size=1, max_size=10))
def test_the_tags_of_focus_read_as_json_and_are_no_formula(tag: str) -> None:
    from litellm_budget_plugin.cli.focus import _tags

    assert json.loads(_tags("tag", tag)) == {"tag": tag} and guarded(_tags("tag", tag)) == _tags("tag", tag)


def test_days_that_were_folded_are_left_out_of_focus_and_that_is_said(on_file: Command, opened: Opened) -> None:
    store = opened(on_file)
    _charge(store, "old", "alice", "gpt-4o", DOLLAR, days_ago=500)
    _charge(store, "new", "alice", "gpt-4o", 2 * DOLLAR)
    on_file.run("sweep")
    assert [row["day"] for row in on_file.rows("usage")][:1] == ["before"]
    done = on_file.run("usage", "--format", "focus")
    assert [row["BilledCost"] for row in _csv(done.stdout)] == ["2"] and "left out: $1" in done.stderr


@pytest.mark.parametrize("month", [1, 2, 4, 12])
def test_a_billing_period_is_a_month(month: int) -> None:
    from datetime import date

    from litellm_budget_plugin.cli.focus import _cells
    from litellm_budget_plugin.manager.budgets import UsageTotals

    cells = _cells("p", "user", "a", date(2028, month, 28), "m", UsageTotals(Decimal(1), 1, 0, 0, 0, 0))
    following = (2028, month + 1) if month < 12 else (2029, 1)
    assert cells["BillingPeriodEnd"] == "{:04}-{:02}-01T00:00:00Z".format(*following)
    assert (cells["PricingQuantity"], cells["PricingUnit"]) == (1, "Requests")
