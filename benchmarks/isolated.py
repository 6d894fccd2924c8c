"""A benchmark in its own process and directory, so that patches and warm caches of other benchmarks do not affect it."""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context

from benchmarks.report import Section


def run_isolated(name: str) -> Section:
    """Run a benchmark in a fresh process, without the caller's settings."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        return fresh.submit(_run, name).result()


def _run(name: str) -> Section:
    for setting in [key for key in os.environ if key.startswith("LITELLM_BUDGET_")]:
        del os.environ[setting]
    benchmark = import_module(f"benchmarks.{name}")
    home = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="budget-benchmark-", ignore_cleanup_errors=True) as directory:
        os.chdir(directory)
        try:
            begun = time.perf_counter()
            rows = benchmark.run()
            seconds = time.perf_counter() - begun
        finally:
            os.chdir(home)
    return Section(name, (benchmark.__doc__ or "").strip(), rows, seconds, getattr(benchmark, "MISSED", ""))
