"""Costs that LiteLLM reports for functions that are not gated are charged once for each object."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from litellm_budget_plugin.hooks import settlement
from litellm_budget_plugin.hooks.call_binding import mark_free
from tests.hooks.desk import Desk


def _report(function: str, job: str, cost: float = 0.5) -> None:
    details: dict[str, Any] = {"litellm_params": {"metadata": {"budget_user": "alice"}}, "litellm_call_id": "call"}
    logging_obj = SimpleNamespace(model_call_details=details)
    mark_free(logging_obj, function)
    settlement._charge_reported(logging_obj, {"id": job}, cost)


@pytest.fixture
def rich(open_desk: Any) -> Desk:
    desk: Desk = open_desk(default_limit="10")
    return desk


def test_one_job_is_charged_once_by_whatever_function_or_route_it_is_reported(rich: Desk) -> None:
    for function in ("batches.main:retrieve_batch", "batches.main:aretrieve_batch", "aretrieve_batch"):
        _report(function, "reported_1")
    assert rich.calm("alice") == 500_000_000
    _report("aretrieve_batch", "reported_2")
    assert rich.calm("alice") == 1_000_000_000


@pytest.mark.parametrize("job", ["b" * 1000, "batch\n1", "\u00e9" * 256])
def test_an_id_that_no_store_can_keep_loses_no_charge(rich: Desk, job: str) -> None:
    _report("aretrieve_batch", job)
    _report("aretrieve_batch", job)
    assert rich.calm("alice") == 500_000_000


@pytest.mark.parametrize("function", ["responses.main:get_responses", "videos.main:avideo_status", "aget_responses"])
def test_an_answer_that_was_charged_when_it_was_made_is_not_charged_for_being_shown(rich: Desk, function: str) -> None:
    _report(function, "resp_1")
    assert rich.calm("alice") == 0
