"""The LiteLLM proxy's pass-through routes: requests that it hands on as they are, past everything that LiteLLM prices."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin import pricing
from litellm_budget_plugin.hooks.attempt import Attempt
from litellm_budget_plugin.hooks.call import Call
from litellm_budget_plugin.manager.ledger import BudgetLedger

CALL_TYPE = "pass_through_endpoint"
# What such a request may cost is not known. The least amount that can be held is refused exactly to who has nothing left.
_LEAST = pricing.Estimate(usd=1, floor=0, tokens=0, floor_tokens=0, priced=True, bounded=False, loose=False)


class PassThrough(Call):
    """A request on a pass-through route: refused to who has no money left, and charged what LiteLLM says that it cost."""

    __slots__ = ("_logging",)

    def __init__(self, ledger: BudgetLedger, user: str, body: Mapping[str, Any], logging_obj: Any) -> None:
        model = body.get("model")
        request = pricing.Request(CALL_TYPE, model if isinstance(model, str) and model else CALL_TYPE, None, {})
        super().__init__(ledger, user, request)
        self.attempt = _Unpriced(ledger, user, request, self.attempt.hold, allowance=0)
        self._logging = weakref.ref(logging_obj) if logging_obj is not None else lambda: None

    def sending(self, request: Any) -> None:
        """LiteLLM sends each such request once, as it came."""
        self.attempt.sent = True

    def answered(self, response: Any, response_cost: float | None) -> None:
        """LiteLLM's figure is taken, or its usage where it has read one; no figure, or 0, means that it knows none."""
        if self.attempt.over:
            return
        cost = pricing.Cost(0, self.asked.model, 0, 0, estimated=True)
        if response_cost or getattr(response, "usage", None) is not None:
            cost = pricing.cost_of_response(self.asked, response, response_cost)
        self.attempt.settle(cost, response)

    def failed(self, error: BaseException) -> None:
        """What LiteLLM has read of a stream that broke is charged; nothing else that fails has a figure."""
        self.given_up()

    def given_up(self) -> None:
        """The same, whoever tells it first."""
        logging_obj = self._logging()
        details = logging_obj.model_call_details if logging_obj is not None else {}
        usage, figure = details.get("combined_usage_object"), details.get("response_cost")
        if usage is None or not figure:
            self.attempt.release()
        elif not self.attempt.over:
            received = {"model": self.asked.model, "usage": usage}
            self.attempt.settle(pricing.cost_of_response(self.asked, received, figure))


class _Unpriced(Attempt):
    __slots__ = ()

    def bound(self, *, exact: bool = False) -> pricing.Estimate:
        """As little as can be held."""
        return _LEAST

    def abandon(self) -> None:
        """Dropped without a word: what it cost, nobody says."""
        self.release()
