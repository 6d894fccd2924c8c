"""The LiteLLM proxy's pass-through routes: requests that it forwards unchanged and that LiteLLM does not price."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin import pricing
from litellm_budget_plugin.hooks.call import Call
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.principal import Principal

CALL_TYPE = "pass_through_endpoint"


class PassThrough(Call):
    """A request on a pass-through route. It is refused for users with no money left, and charged what LiteLLM reports
    as its cost.
    """

    __slots__ = ("_logging",)

    def __init__(self, ledger: BudgetLedger, principal: Principal, body: Mapping[str, Any], logging_obj: Any) -> None:
        model = body.get("model")
        name = model if isinstance(model, str) and model else CALL_TYPE
        super().__init__(ledger, principal, pricing.Request(CALL_TYPE, name, None, {}))
        self._logging = weakref.ref(logging_obj) if logging_obj is not None else lambda: None

    def bound(self, *, exact: bool = False) -> pricing.Estimate:
        """Return the least that can be held, because the cost of such a request is unknown."""
        return pricing.estimate(self.request, output_allowance=1, unbounded_hold=1)

    def sending(self, details: Mapping[str, Any], body: object) -> Call:
        """Record that LiteLLM sends the request. It sends each such request once, unchanged."""
        self._admit_unless_waited()
        self.sent = True
        return self

    def answered(self, response: Any, response_cost: float | None, logging_obj: Any = None) -> None:
        """Charge LiteLLM's figure, or the price of the usage if LiteLLM has read one. No figure, or 0, means that it
        knows none.
        """
        if self.over:
            return
        cost = pricing.Cost(0, self.asked.model, 0, 0, estimated=True)
        if response_cost or getattr(response, "usage", None) is not None:
            cost = pricing.cost_of_response(self.asked, response, response_cost)
        self._settle(cost, response)

    def failed(self, error: BaseException) -> None:
        """Charge what LiteLLM has read of a stream that broke. Other failed requests have no figure."""
        self.abandon()

    def abandon(self) -> None:
        """Charge what LiteLLM has read of the answer. The request was dropped or given up."""
        logging_obj = self._logging()
        details = logging_obj.model_call_details if logging_obj is not None else {}
        usage, figure = details.get("combined_usage_object"), details.get("response_cost")
        if usage is None or not figure:
            self.release()
        elif not self.over:
            received = {"model": self.asked.model, "usage": usage}
            self._settle(pricing.cost_of_response(self.asked, received, figure), None)
