"""LiteLLM's budget protocol: two questions, as `litellm.BudgetManager(client_type="hosted")` asks them."""

from __future__ import annotations

from typing import Any, Protocol

from litellm_budget_plugin.errors import BudgetStoreError, BudgetStoreUnavailable

STATUSES = ("success", "error")
"""What every answer says of itself."""


class Exchange(Protocol):
    """One endpoint and the way to it."""

    def post(self, path: str, body: object, deadline: float) -> object:
        """The decoded JSON of a 2xx answer. `deadline` is a time of time.monotonic().

        Raises BudgetStoreUnavailable if nobody answered until then or the answer was a 5xx or 429, and
        BudgetStoreError for what a person must mend: 401, 403, 404, or no JSON.
        """

    def close(self) -> None:
        """Let go of it."""


def get_budget(exchange: Exchange, name: str, project: str, deadline: float) -> dict[str, Any] | None:
    """The project's dictionary; None if the endpoint says that it has none. Raises what `post` raises, and BudgetStoreError
    for an answer that is not the protocol's.
    """
    answer = exchange.post("/get_budget", {"project_name": project}, deadline)
    if _status(answer, name, "get_budget") == "error":
        return None
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, dict):
        raise BudgetStoreError(
            f"{name}: get_budget must answer with the users' records in 'data', got {data!r:.80}; is this an endpoint "
            "of LiteLLM's budget protocol?"
        )
    return data


def set_budget(exchange: Exchange, name: str, project: str, records: dict[str, Any], deadline: float) -> None:
    """Replace the project's dictionary. Raises what `post` raises, and BudgetStoreUnavailable if the endpoint says that it
    failed.
    """
    answer = exchange.post("/set_budget", {"project_name": project, "user_dict": records}, deadline)
    if _status(answer, name, "set_budget") == "error":
        raise BudgetStoreUnavailable(f"{name}: set_budget failed: {answer!r:.200}")


def _status(answer: object, name: str, question: str) -> str:
    status = answer.get("status") if isinstance(answer, dict) else None
    if status not in STATUSES:
        raise BudgetStoreError(
            f"{name}: {question} must answer with a 'status' of 'success' or 'error', got {answer!r:.80}; is this an "
            "endpoint of LiteLLM's budget protocol?"
        )
    return str(status)
