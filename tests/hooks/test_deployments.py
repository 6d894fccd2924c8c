"""The requests that a request to a Router's group becomes."""

from __future__ import annotations

from typing import Any

from litellm_budget_plugin import pricing
from litellm_budget_plugin.hooks.deployments import chosen
from litellm_budget_plugin.pricing import Request


def _info(identity: str, price: float) -> dict[str, Any]:
    return {"id": identity, "input_cost_per_token": price, "output_cost_per_token": price}


def test_the_prices_of_an_attempt_stay_when_the_router_goes_on() -> None:
    """The Router writes each deployment that it tries into the same metadata."""
    metadata = {"model_info": _info("first", 0.001)}
    params = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 10, "metadata": metadata}
    request = Request("completion", "gate-somewhere", "openai", params)
    attempt = chosen(request, {"litellm_params": {"metadata": metadata, "model_info": metadata["model_info"]}})
    before = pricing.estimate(attempt, output_allowance=1, unbounded_hold=0)
    metadata["model_info"] = _info("second", 0.1)
    assert pricing.estimate(attempt, output_allowance=1, unbounded_hold=0) == before
    assert pricing.estimate(request, output_allowance=1, unbounded_hold=0).usd == 100 * before.usd


def test_a_request_without_a_deployment_stays_as_it_is() -> None:
    request = Request("completion", "gate-somewhere", None, {})
    assert chosen(request, {"litellm_params": None}) is request
