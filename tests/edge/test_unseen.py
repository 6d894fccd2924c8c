"""The statements of docs/guarantees.md about functions that are not seen, not reported, or charged what was held."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import litellm
import pytest

from tests.edge.desk import Edge
from tests.edge.test_call_types import UNBOUNDED, _base, _completed, _output_line

_JOB = {
    "id": "ft-1",
    "object": "fine_tuning.job",
    "model": "edge-chat",
    "created_at": 1,
    "finished_at": 2,
    "error": None,
    "fine_tuned_model": "tuned",
    "hyperparameters": {"n_epochs": 1},
    "organization_id": "o",
    "result_files": [],
    "seed": 1,
    "status": "succeeded",
    "trained_tokens": 100_000,
    "training_file": "file-1",
    "validation_file": None,
}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have LiteLLM report calls before it answers, not in threads. Return the functions by which it has reported."""
    reported: list[str] = []

    def submit(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        reported.append(function.__name__)
        function(*args, **kwargs)

    monkeypatch.setattr(litellm.utils.executor, "submit", submit)
    return reported


def test_an_assistants_run_goes_out_whatever_was_spent(open_edge: Callable[..., Edge]) -> None:
    edge = open_edge(default_limit="0")
    run = {"id": "run_1", "object": "thread.run", "status": "completed", "thread_id": "t", "assistant_id": "a"}
    edge.provider.managed |= {
        "/threads/t/runs": json.dumps({**run, "created_at": 1}).encode(),
        "/runs/run_1": json.dumps({**run, "created_at": 1}).encode(),
    }
    litellm.run_thread(
        custom_llm_provider="openai", thread_id="t", assistant_id="a", max_retries=0, **_base(edge.provider)
    )
    assert edge.provider.asked
    assert edge.calm("alice") == 0


def test_a_batch_that_is_read_synchronously_is_not_charged(open_edge: Callable[..., Edge], at_once: list[str]) -> None:
    edge = open_edge(default_limit="1")
    edge.provider.managed |= {
        "/batches/batch_1": json.dumps(_completed()).encode(),
        "/file-out/content": _output_line(),
    }
    litellm.retrieve_batch(batch_id="batch_1", custom_llm_provider="openai", **_base(edge.provider))
    assert at_once
    assert edge.calm("alice") == 0


def test_a_fine_tuning_job_is_not_charged(open_edge: Callable[..., Edge], at_once: list[str]) -> None:
    edge = open_edge(default_limit="1")
    edge.provider.managed |= {"/jobs": json.dumps(_JOB).encode(), "/jobs/ft-1": json.dumps(_JOB).encode()}
    litellm.create_fine_tuning_job(
        model="edge-chat", training_file="file-1", custom_llm_provider="openai", **_base(edge.provider)
    )
    litellm.retrieve_fine_tuning_job(fine_tuning_job_id="ft-1", custom_llm_provider="openai", **_base(edge.provider))
    assert len(at_once) == 2
    assert edge.calm("alice") == 0


def test_a_function_whose_cost_nobody_reports_is_charged_what_was_held(open_edge: Callable[..., Edge]) -> None:
    edge = open_edge(default_limit="1")
    edge.provider.managed["/runs"] = json.dumps({"id": "r", "object": "eval.run", "status": "queued"}).encode()
    source = {"type": "jsonl", "source": {"type": "file_id", "id": "file-1"}}
    with contextlib.suppress(Exception):
        litellm.create_run(eval_id="e", data_source=source, custom_llm_provider="openai", **_base(edge.provider))
    assert edge.provider.asked
    assert edge.calm("alice") == UNBOUNDED
