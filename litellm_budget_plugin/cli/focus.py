"""Totals by the FinOps Open Cost and Usage Specification (FOCUS) 1.2: its mandatory columns, and others that the ledger can
fill.

Cells that the ledger cannot fill are empty, which means null: the company that bills, unless it is given, and the names of
accounts. All four costs are the charged amount, because the ledger knows neither list prices nor discounts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta

from litellm_budget_plugin.manager.budgets import UsageTotals

COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "x_Calls",
    "x_InputTokens",
    "x_OutputTokens",
)
"""The ids of the columns, in their order. Columns that the specification does not have begin with "x_"."""

Cell = object
_Found = Iterable[tuple[tuple[str, ...], UsageTotals]]


def rows(project: str, scope: str, found: _Found, provider: str | None) -> Iterator[Sequence[Cell]]:
    """Yield a row for each total by (subject, day, model) with calls or costs. A subject's days before the last 400 are left
    out.
    """
    for (subject, day, model), totals in found:
        if day != "before" and (totals.spent or totals.calls):
            cells = _cells(project, scope, subject, date.fromisoformat(day), model, totals)
            cells |= dict.fromkeys(("InvoiceIssuerName", "ProviderName", "PublisherName"), provider)
            yield [cells.get(column) for column in COLUMNS]


def _cells(project: str, scope: str, subject: str, day: date, model: str, totals: UsageTotals) -> dict[str, Cell]:
    tokens = totals.input_tokens + totals.output_tokens
    quantity, unit = (tokens, "Tokens") if tokens else (totals.calls, "Requests")
    month = day.replace(day=1)
    return {
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), totals.spent),
        **dict.fromkeys(("ConsumedQuantity", "PricingQuantity"), quantity),
        **dict.fromkeys(("ConsumedUnit", "PricingUnit"), unit),
        **dict.fromkeys(("ResourceId", "ServiceName", "SkuId"), model or None),
        "BillingAccountId": project,
        "BillingCurrency": "USD",
        "BillingPeriodStart": _midnight(month),
        "BillingPeriodEnd": _midnight((month + timedelta(days=31)).replace(day=1)),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{totals.calls} calls of {model or 'a model that was not named'}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _midnight(day),
        "ChargePeriodEnd": _midnight(day + timedelta(days=1)),
        "ResourceType": "Model",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "SubAccountId": subject if scope == "user" else None,
        "Tags": None if scope in ("user", "project") else _tags(scope, subject),
        "x_Calls": totals.calls,
        "x_InputTokens": totals.input_tokens,
        "x_OutputTokens": totals.output_tokens,
    }


def _midnight(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"


def _tags(scope: str, subject: str) -> str:
    """Return a JSON object in which nothing looks like a formula, so that guarding the cell does not change it."""
    text = json.dumps({scope: subject})
    for sign in "=+-@":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
