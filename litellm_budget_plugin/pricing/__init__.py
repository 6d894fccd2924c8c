"""The greatest possible cost of a call before it is made, and its cost afterwards. LiteLLM is only imported inside
functions.
"""

from __future__ import annotations

from litellm_budget_plugin.pricing.actual import cost_of_chunks, cost_of_output, cost_of_raw, cost_of_response
from litellm_budget_plugin.pricing.bound import dearest, estimate, estimate_sent
from litellm_budget_plugin.pricing.known_models import nearest_model, unknown_models
from litellm_budget_plugin.pricing.price_sheet import model_names
from litellm_budget_plugin.pricing.values import Cost, Estimate, Request

__all__ = [
    "Cost",
    "Estimate",
    "Request",
    "cost_of_chunks",
    "cost_of_output",
    "cost_of_raw",
    "cost_of_response",
    "dearest",
    "estimate",
    "estimate_sent",
    "model_names",
    "nearest_model",
    "unknown_models",
]
