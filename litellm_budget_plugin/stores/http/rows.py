"""Rows of a ledger as JSON."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from litellm_budget_plugin.core.wire import first_problem, strict_validator
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.rows import Rows

_ROWS = TypeAdapter(Rows)


def rows_to(rows: Rows) -> dict[str, Any]:
    """Rows as an object that JSON can hold."""
    accounts, holds, usage = _ROWS.dump_python(rows, mode="json")
    return {"accounts": accounts, "holds": holds, "usage": usage}


def rows_from(data: Any) -> Rows:
    """The rows that `rows_to` made. Raises BudgetInputError, naming the place, for anything else."""
    if not isinstance(data, dict) or data.keys() != {"accounts", "holds", "usage"}:
        raise BudgetInputError("rows must be an object with accounts, holds and usage")
    try:
        return strict_validator(Rows).validate_python((data["accounts"], data["holds"], data["usage"]))  # type: ignore[no-any-return]
    except ValidationError as error:
        raise BudgetInputError(f"rows.{first_problem(error)}") from None
