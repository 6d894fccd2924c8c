"""The sources of prices, and when they are read again."""

from __future__ import annotations

from typing import Any

import litellm
import pytest

from litellm_budget_plugin.pricing import Request, estimate, model_names


def _usd(model: str, **params: Any) -> int:
    return _estimate(model, **params).usd


def _estimate(model: str, **params: Any) -> Any:
    messages = [{"role": "user", "content": "hello"}]
    return estimate(
        Request("completion", model, None, {"messages": messages, "max_tokens": 10, **params}),
        output_allowance=1,
        unbounded_hold=0,
    )


def _input(model: str, **params: Any) -> int:
    return int(_estimate(model, **params).tokens) - 10


def test_callers_prices_come_first() -> None:
    found = _usd("gpt-4o", input_cost_per_token=1e-3, output_cost_per_token=2e-3)
    assert found == _input("gpt-4o") * 1_000_000 + 10 * 2_000_000


def test_callers_prices_make_an_unknown_model_known() -> None:
    assert not _estimate("openai/never-heard-of").priced
    known = _estimate("openai/never-heard-of", input_cost_per_token=0.0, output_cost_per_token=1e-6)
    assert (known.priced, known.usd) == (True, 10_000)


def test_a_lone_price_is_not_below_the_public_one() -> None:
    public = _usd("gpt-4o")
    assert _usd("gpt-4o", input_cost_per_token=1e-9) == public
    assert _usd("gpt-4o", input_cost_per_token=1e-3) > public


def test_zero_is_a_price_and_nothing_is_not() -> None:
    free = _estimate("gpt-4o", input_cost_per_token=0, output_cost_per_token=0)
    assert (free.usd, free.floor, free.priced, free.bounded) == (0, 0, True, True)
    unknown = _estimate("openai/never-heard-of")
    assert (unknown.usd, unknown.floor, unknown.priced, unknown.bounded) == (0, 0, False, False)


def test_zero_covers_cache_prices_of_the_public_entry_too() -> None:
    message = {"role": "user", "content": "hello", "cache_control": {"type": "ephemeral"}}
    model = "claude-sonnet-4-5"
    assert _usd(model, messages=[message]) > 0
    assert _usd(model, messages=[message], input_cost_per_token=0, output_cost_per_token=0) == 0


def test_a_routers_deployment_is_priced_by_its_own_id(cost_map: dict[str, Any]) -> None:
    cost_map["deployment-1"] = {"id": "deployment-1", "input_cost_per_token": 1e-3, "output_cost_per_token": 1e-3}
    found = _usd("openai/gpt-4o", model_info={"id": "deployment-1"})
    assert found == (_input("openai/gpt-4o") + 10) * 1_000_000
    assert _usd("openai/gpt-4o", metadata={"model_info": {"id": "deployment-1"}}) == found


def test_a_real_router_registers_what_is_found(cost_map: dict[str, Any]) -> None:
    price = {"input_cost_per_token": 2e-3, "output_cost_per_token": 2e-3}
    parameters = {"model": "openai/unheard", "api_key": "none", **price}
    deployments = [{"model_name": "group", "litellm_params": parameters, "model_info": {"id": "deployment-2"}}]
    litellm.Router(model_list=deployments)
    assert "deployment-2" in cost_map
    found = _usd("openai/unheard", model_info={"id": "deployment-2"})
    assert found == (_input("openai/unheard") + 10) * 2_000_000


def test_a_router_without_prices_leaves_an_unknown_model_unknown(cost_map: dict[str, Any]) -> None:
    deployment = {"model_name": "group", "litellm_params": {"model": "openai/unheard2", "api_key": "none"}}
    litellm.Router(model_list=[{**deployment, "model_info": {"id": "deployment-3"}}])
    assert not _estimate("openai/unheard2", model_info={"id": "deployment-3"}).priced


def test_the_base_model_prices_an_azure_deployment() -> None:
    assert not _estimate("azure/mine").priced
    assert _usd("azure/mine", base_model="azure/gpt-4o-2024-08-06") > 0
    by_info = _estimate("azure/mine", model_info={"base_model": "azure/gpt-4o-2024-08-06"})
    assert by_info.usd == _usd("azure/mine", base_model="azure/gpt-4o-2024-08-06")


def test_register_model_drops_the_cached_terms(cost_map: dict[str, Any]) -> None:
    before = _usd("gpt-4o")
    prices = {"input_cost_per_token": 1.0, "output_cost_per_token": 1.0, "litellm_provider": "openai"}
    litellm.register_model({"gpt-4o": prices})
    assert _usd("gpt-4o") > before * 1000


def test_a_price_changed_inside_the_entry_drops_the_cached_terms(cost_map: dict[str, Any]) -> None:
    before = _usd("gpt-4o")
    cost_map["gpt-4o"]["output_cost_per_token"] = 1.0
    assert _usd("gpt-4o") > before * 1000


def test_an_unknown_model_becomes_known_when_registered(cost_map: dict[str, Any]) -> None:
    assert not _estimate("openai/tomorrows").priced
    prices = {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6, "litellm_provider": "openai"}
    litellm.register_model({"openai/tomorrows": prices})
    assert _estimate("openai/tomorrows").priced


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("gpt-4o", ("gpt-4o", "openai/gpt-4o", "openai/*")),
        ("openai/gpt-4o", ("openai/gpt-4o", "gpt-4o", "openai/*")),
        ("azure/mine", ("azure/mine", "mine", "azure/*")),
        ("some-group", ("some-group",)),
    ],
)
def test_names_and_families_for_per_model_budgets(model: str, names: tuple[str, ...]) -> None:
    assert model_names(Request("completion", model, None, {})) == names


def test_the_base_model_is_a_name_too() -> None:
    assert "gpt-4o" in model_names(Request("completion", "azure/mine", None, {"base_model": "gpt-4o"}))


def test_an_unknown_prefix_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _estimate("group/of-a-router")
    _estimate("plain-group")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("model", ["github_copilot/gpt-4o", "ollama/llama3", "huggingface/a/b"])
def test_providers_whose_lookup_asks_the_network_are_looked_up_in_the_map_alone(model: str) -> None:
    provider, _, _ = model.partition("/")
    assert f"{provider}/*" in model_names(Request("completion", model, None, {}))
