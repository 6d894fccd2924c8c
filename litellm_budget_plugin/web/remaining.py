"""The caller's own budgets."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.sentences import parse_limit
from litellm_budget_plugin.errors import BudgetError, BudgetUserMissing
from litellm_budget_plugin.hooks.context import payer_here
from litellm_budget_plugin.web.problems import Problem, nobody, plain_headers
from litellm_budget_plugin.web.requests import serving


def remaining() -> dict[str, Any]:
    """Return the budgets of the payer in this context, as an object for JSON.

    Raises BudgetUserMissing if no user is named, BudgetStoreError if the ledger does not answer, and BudgetError
    without an open callback.
    """
    from litellm_budget_plugin.hooks.registration import opened_ledger
    from litellm_budget_plugin.manager.standing import read_standings

    user, given = payer_here()[:2]
    if user is None:
        raise BudgetUserMissing(
            "budgets were asked for without a user: name one to the middleware, or use budget_context"
        )
    ledger = opened_ledger()
    if ledger is None:
        raise BudgetError("no BudgetCallback is open, so there are no budgets to show")
    shared = [] if given.team is None else [Subject("team", given.team)]
    shared += [Subject("tag", tag) for tag in given.tags]
    shared += [Subject("run", run) for run in given.runs]
    shared.append(Subject("project", ledger.project))
    subjects = [Subject("user", user), *(each for each in shared if each.scope in serving().middleware.expose)]
    # Charges of this process that have not been delivered yet count as spent, too.
    ledger.worker.settle_waiting()
    budgets = []
    for standing in read_standings(ledger, subjects):
        for line in standing.lines:
            limit = None if line.left is None else line.left + line.spent + line.held
            budgets.append(
                {
                    "scope": standing.subject.scope,
                    "subject": standing.subject.id,
                    "budget": line.budget,
                    "unit": "usd" if isinstance(line.spent, Decimal) else parse_limit(line.budget).unit,
                    "limit": _number(limit),
                    "spent": _number(line.spent),
                    "held": _number(line.held),
                    "remaining": 0 if standing.blocked else None if line.left is None else _number(max(line.left, 0)),
                    "resets_at": None if line.resets_at is None else line.resets_at.isoformat(),
                    "blocked": standing.blocked,
                }
            )
    return {"user": user, "budgets": budgets}


def _number(amount: Decimal | int | None) -> float | int | None:
    return float(amount) if isinstance(amount, Decimal) else amount


def remaining_answer() -> Problem:
    """Return the response to a client that asks for its budgets. Raises BudgetStoreError, and BudgetError without an
    open callback.
    """
    try:
        body = json.dumps(remaining()).encode()
    except BudgetUserMissing:
        return nobody()
    return Problem(200, {"Content-Type": "application/json", **plain_headers(body)}, body)
