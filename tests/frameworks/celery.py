"""Celery's prefork workers, which inherit the callback from the process that forked them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from tests.frameworks.framework import HELPER, STREAM, Framework, Setup, Way
from tests.pages import ROOT

_LONGEST = 60


def _ways(setup: Setup) -> list[Way]:
    folder = setup.folder / "celery"
    os.environ["CELERY_FOLDER"] = str(folder)
    for name in ("json", "pickle"):
        (folder / name / "control").mkdir(parents=True)
    from celery import group

    from tests.frameworks import celery_app

    def start(application: str) -> None:
        application = f"tests.frameworks.celery_app:{application}"
        options = ["worker", "-P", "prefork", "-c", "2", "--loglevel", "CRITICAL"]
        worker = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "celery", "-A", application, *options],
            cwd=ROOT,
            env={**os.environ, "CELERY_WORKER": "1"},
            stdout=subprocess.DEVNULL,
        )
        setup.closing.callback(worker.wait, 30)
        setup.closing.callback(worker.terminate)

    start("app")
    start("pickling")
    waiting: Any = {"timeout": _LONGEST, "interval": 0.01}

    def get(task: Any, *arguments: Any) -> Any:
        return task.delay(*arguments).get(**waiting)

    def together(user: str) -> Any:
        return group(celery_app.ask.s(user) for _ in range(4)).apply_async().get(**waiting)

    return [
        Way("a task", lambda user: get(celery_app.ask, user), context=False),
        Way("a stream in a task", lambda user, most: get(celery_app.read, user, most), STREAM, context=False),
        Way("autoretry_for=(Exception,)", lambda user: get(celery_app.ask_again, user), context=False),
        Way(
            "the same, dont_autoretry_for=(BudgetRefused,)",
            lambda user: get(celery_app.ask_again_unless_refused, user),
            context=False,
        ),
        Way("result_serializer='pickle'", lambda user: get(celery_app.ask_and_pickle, user), context=False),
        Way("a group", together, HELPER, context=False),
    ]


FRAMEWORK = Framework(
    title="Celery, prefork",
    requires=("celery[redis]",),
    shown=("celery",),
    named="`budget_context` in the task",
    ways=_ways,
    in_process=False,
)
