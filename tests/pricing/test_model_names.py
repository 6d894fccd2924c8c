"""Names by which a budget can limit a call's model."""

from __future__ import annotations

import pytest

from litellm_budget_plugin import pricing
from litellm_budget_plugin.core.models import covers_any

CALLS = [
    ("gpt-4o", "gpt-4o-2024-08-06"),
    ("gpt-4o", "openrouter/openai/gpt-4o"),
    ("gpt-4o", "azure/gpt-4o-2024-08-06"),
    ("gpt-4o", "azure/eu/gpt-4o-2024-08-06"),
    ("gpt-4o", "ft:gpt-4o-2024-08-06:org::id"),
    ("openai/*", "gpt-4o"),
    ("azure/*", "azure/gpt-4o"),
    ("claude-3-5-sonnet", "bedrock/us.anthropic.claude-3-5-sonnet-20240620-v1:0"),
    ("claude*", "bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0"),
    ("claude-3-5-sonnet", "vertex_ai/claude-3-5-sonnet@20240620"),
]
OTHERS = [
    ("gpt-4o", "gpt-4o-mini"),
    ("openai/*", "openrouter/openai/gpt-4o"),
    ("gpt-4", "gpt-4o"),
    ("azure/*", "gpt-4o"),
]


def _names(model: str) -> tuple[str, ...]:
    return pricing.model_names(pricing.Request("completion", model, None, {}))


@pytest.mark.parametrize(("budget", "model"), CALLS)
def test_a_budget_is_for_a_model_behind_gateways_regions_and_versions(budget: str, model: str) -> None:
    assert covers_any(budget, _names(model)), _names(model)


@pytest.mark.parametrize(("budget", "model"), OTHERS)
def test_a_budget_is_for_no_other_model(budget: str, model: str) -> None:
    assert not covers_any(budget, _names(model)), _names(model)


def test_a_budget_is_for_the_base_model_of_a_deployment() -> None:
    request = pricing.Request("completion", "azure/mydep", None, {"base_model": "azure/gpt-4o"})
    assert covers_any("gpt-4o", pricing.model_names(request))
