"""The time that `litellm-budget run` and `import litellm_budget_plugin.auto` add to the start of a program that never imports LiteLLM:
`python -c pass` with them, against without.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import litellm_budget_plugin
from benchmarks.report import Row, duration
from benchmarks.rounds import in_turn
from litellm_budget_plugin.environment import STARTUP

PROGRAMS = 10
ROUNDS = 15
AIM = 0.002
_PACKAGE = str(Path(litellm_budget_plugin.__file__).parents[1])


def start(path: list[str], text: str) -> float:
    """Return the mean seconds of one start."""
    given = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, _PACKAGE])}
    # Byte code is written, because an installed package is compiled.
    given.pop("PYTHONDONTWRITEBYTECODE", None)
    begun = time.perf_counter()
    for _ in range(PROGRAMS):
        subprocess.run([sys.executable, "-c", text], env=given, check=True)
    return (time.perf_counter() - begun) / PROGRAMS


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    start([STARTUP], "import litellm_budget_plugin.auto")
    arms = {"nothing": ([], "pass"), "run": ([STARTUP], "pass"), "auto": ([], "import litellm_budget_plugin.auto")}
    timings = in_turn({arm: partial(start, *given) for arm, given in arms.items()}, ROUNDS)
    bare = timings.seconds("nothing")
    rows = []
    for arm, what in (("run", "a start under run"), ("auto", "a start with import auto")):
        ratio = timings.ratio(arm, "nothing")
        # Computed from the ratio, so that a slow minute affects both.
        added = (ratio - 1) * bare
        aim = f"at most {duration(AIM)} more"
        rows.append(
            Row(what, duration(timings.seconds(arm)), f"{duration(bare)} bare", f"{ratio:.2f}x", aim, added <= AIM)
        )
    return rows
