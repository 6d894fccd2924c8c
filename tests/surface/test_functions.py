"""docs/surface.md lists every function that is not gated, and every one that has no estimate."""

from __future__ import annotations

from litellm_budget_plugin.hooks.call_types import CALL_TYPES, FREE, STARTS_JOB
from tests.edge.functions import client_functions
from tests.surface.functions import free_table, page_table, unestimated_on_page


def test_the_page_lists_the_free_functions() -> None:
    assert page_table() == free_table()


def test_the_page_lists_every_function_without_an_estimate() -> None:
    """The functions are those of the installed LiteLLM; an asynchronous one may be listed by its synchronous twin."""
    listed = unestimated_on_page()
    for found in client_functions():
        name = found.function.__name__
        if name not in CALL_TYPES and not set(found.names) & set(FREE):
            own = f"{found.function.__module__.removeprefix('litellm.')}:{name}"
            assert {own, own.replace(":a", ":", 1)} & listed, f"{own} is held for with UNBOUNDED_HOLD"


def test_no_function_with_an_estimate_is_listed() -> None:
    listed = unestimated_on_page()
    names = {name.partition(":")[2] for name in listed}
    assert names.isdisjoint(CALL_TYPES) and listed.isdisjoint(FREE)
    assert {name for name in STARTS_JOB if not name.startswith("a")} <= names
