"""Measure every way of calling and write the table of docs/surface.md: `python -m tests.surface`.

With arguments, only the ways whose names contain one of them are measured, and nothing is written.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

from litellm_budget_plugin import BudgetCallback
from tests.hooks.desk import Desk, register_prices
from tests.surface.facts import BEGIN, BOUNDS, END, PAGE, bounds_table, measure, table
from tests.surface.functions import LISTED, free_table
from tests.surface.provider import Provider
from tests.surface.ways import WAYS, Way, register_models
from tests.upstream import Usage


def measured(way: Way) -> str:
    """Return the row of one way."""
    upstream = Provider()
    upstream.usage = Usage(1000, 1000)
    opened: list[BudgetCallback] = []
    with tempfile.TemporaryDirectory() as directory:

        def open_desk(**settings: Any) -> Desk:
            opened.append(BudgetCallback(store_url=f"sqlite:///{directory}/ledger.db", **settings))
            litellm.callbacks = [opened[-1]]
            return Desk(opened[-1], upstream.url)

        try:
            return measure(way, open_desk, upstream).row
        finally:
            for callback in opened:
                callback.close()
            upstream.close()


def main() -> None:
    """Put the tables into the page."""
    logging.disable(logging.WARNING)
    litellm.suppress_debug_info = True
    counted = bounds_table()
    register_prices()
    register_models()
    rows = []
    wanted = sys.argv[1:]
    for way in [way for way in WAYS if not wanted or any(word in way.name for word in wanted)]:
        rows.append(measured(way))
        print(rows[-1])
    if wanted:
        return
    text = PAGE.read_text("utf-8")
    for begin, measured_table in ((BEGIN, table(rows)), (LISTED, free_table()), (BOUNDS, counted)):
        at = text.index(begin) + len(begin)
        text = f"{text[:at]}\n\n{measured_table}\n\n{text[text.index(END, at) :]}"
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
