"""The application of tests/frameworks/celery.py. Its worker imports it before it forks, and the sender of tasks imports it too."""

from __future__ import annotations

import os
from typing import Any

import litellm
from celery import Celery

from litellm_budget_plugin import BudgetCallback, BudgetRefused, budget_context

_CALL: Any = {"model": "gpt-4o", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}


def _application(name: str) -> Celery:
    folder = f"{os.environ['CELERY_FOLDER']}/{name}"
    made = Celery(name, broker="filesystem://", backend=f"file://{folder}", set_as_current=False)
    made.conf.broker_transport_options = {
        "data_folder_in": folder,
        "data_folder_out": folder,
        "control_folder": f"{folder}/control",
    }
    return made


app = _application("json")
pickling = _application("pickle")
pickling.conf.update(result_serializer="pickle", result_accept_content=["json", "pickle"])
if "CELERY_WORKER" in os.environ:
    litellm.callbacks = [BudgetCallback()]


def _answer(user: str) -> str:
    with budget_context(user=user):
        return str(litellm.completion(**_CALL).choices[0].message.content)


@app.task
def ask(user: str) -> str:
    """Ask the model."""
    return _answer(user)


@pickling.task
def ask_and_pickle(user: str) -> str:
    """Ask the model; the result or the exception is pickled."""
    return _answer(user)


@app.task
def read(user: str, most: int | None) -> int:
    """Read a stream, up to `most` chunks."""
    with budget_context(user=user):
        stream = litellm.completion(**_CALL, stream=True)
    return sum(1 for _, _chunk in zip(range(most or 1000), stream))


@app.task(autoretry_for=(Exception,), default_retry_delay=0, max_retries=3)
def ask_again(user: str) -> str:
    """Ask the model until it answers."""
    return _answer(user)


@app.task(autoretry_for=(Exception,), dont_autoretry_for=(BudgetRefused,), default_retry_delay=0, max_retries=3)
def ask_again_unless_refused(user: str) -> str:
    """Ask the model until it answers or refuses."""
    return _answer(user)
