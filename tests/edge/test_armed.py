"""The gate acts from its registration until it is closed, even if other code assigns, clears or fills
`litellm.callbacks`.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import litellm
import pytest
from litellm.integrations.custom_logger import CustomLogger

from litellm_budget_plugin import BudgetCallback, BudgetExceeded
from tests.edge.desk import Edge

MESSAGES = [{"role": "user", "content": "x"}]


class Own(CustomLogger):  # type: ignore[misc]  # LiteLLM's classes are Any here
    """A callback that an application or a framework registers for itself."""


class CrewLLM:
    """CrewAI's behaviour: it assigns a list of its own when it is created, and again at every kickoff."""

    def __init__(self) -> None:
        self.own = Own()
        self._assign()

    def _assign(self) -> None:
        litellm.success_callback = []
        litellm.callbacks = [self.own]

    def kickoff(self, edge: Edge) -> Any:
        self._assign()
        return litellm.completion(**_arguments(edge))


def _arguments(edge: Edge, user: str = "alice") -> dict[str, Any]:
    return {
        "model": "openai/edge-chat",
        "messages": MESSAGES,
        "max_tokens": 10,
        "api_base": edge.provider.url,
        "api_key": "sk-test",
        "max_retries": 0,
        "litellm_metadata": {"budget_user": user},
    }


def _assign_own() -> None:
    litellm.callbacks = [Own()]


def _assign_nothing() -> None:
    litellm.callbacks = []


def _clear() -> None:
    litellm.callbacks.clear()


def _delete_all() -> None:
    del litellm.callbacks[:]


def _delete_one() -> None:
    del litellm.callbacks[0]


def _pop() -> None:
    litellm.callbacks.pop()


def _overwrite() -> None:
    litellm.callbacks[:] = [Own()]


def _replace_one() -> None:
    litellm.callbacks[0] = Own()


def _fill() -> None:
    # LiteLLM takes no more than 30.
    litellm.callbacks = [Own() for _ in range(40)]


def _names() -> None:
    litellm.callbacks = ["langsmith_that_is_not_there"][:0] + [Own()]


def _a_new_list_of_old() -> None:
    litellm.callbacks = [*litellm.callbacks, Own()]


def _in_front() -> None:
    litellm.callbacks.insert(0, Own())


def _reset_everything() -> None:
    for name in ("callbacks", "success_callback", "failure_callback", "_async_success_callback", "input_callback"):
        setattr(litellm, name, [])


_DEEDS = (
    _assign_own,
    _assign_nothing,
    _clear,
    _delete_all,
    _delete_one,
    _pop,
    _overwrite,
    _replace_one,
    _fill,
    _names,
    _a_new_list_of_old,
    _in_front,
    _reset_everything,
)
DEEDS = pytest.mark.parametrize("deed", _DEEDS, ids=lambda deed: deed.__name__.strip("_"))


def _attempts(edge: Edge) -> Iterator[Callable[[], Any]]:
    arguments = _arguments(edge)
    yield lambda: litellm.completion(**arguments)
    yield lambda: asyncio.run(litellm.acompletion(**arguments))
    yield lambda: list(litellm.completion(**arguments, stream=True))
    yield lambda: litellm.responses(
        **{name: arguments[name] for name in arguments if name not in ("messages", "max_tokens")}, input="x"
    )
    yield lambda: litellm.embedding(
        **{
            **{name: arguments[name] for name in arguments if name not in ("messages", "max_tokens")},
            "model": "openai/edge-embed",
        },
        input=["x"],
    )


def _all_refused(edge: Edge) -> None:
    for attempt in _attempts(edge):
        with pytest.raises(BudgetExceeded):
            attempt()
    assert edge.provider.requests == 0


def _goes_out(edge: Edge) -> None:
    before = edge.provider.requests
    litellm.completion(**_arguments(edge))
    assert edge.provider.requests == before + 1


@pytest.fixture
def exhausted(open_edge: Callable[..., Edge]) -> Edge:
    """An edge on which Alice has no money left."""
    return open_edge(default_limit="0")


@DEEDS
def test_nobody_takes_the_gate_off_by_the_list(deed: Callable[[], None], exhausted: Edge) -> None:
    deed()
    _all_refused(exhausted)
    exhausted.callback.close()
    _goes_out(exhausted)


@DEEDS
def test_nobody_takes_it_off_between_two_calls(deed: Callable[[], None], exhausted: Edge) -> None:
    _all_refused(exhausted)
    deed()
    _all_refused(exhausted)
    litellm.callbacks = [exhausted.callback]
    deed()
    _all_refused(exhausted)
    exhausted.callback.close()
    _goes_out(exhausted)


@DEEDS
def test_what_was_done_to_the_list_before_does_not_matter(
    deed: Callable[[], None], open_edge: Callable[..., Edge]
) -> None:
    litellm.callbacks = [Own()]
    deed()
    edge = open_edge(default_limit="0")
    _all_refused(edge)
    deed()
    _all_refused(edge)
    edge.callback.close()
    _goes_out(edge)


def test_crewai_assigns_a_list_of_its_own_at_every_kickoff(exhausted: Edge) -> None:
    crew = CrewLLM()
    for _ in range(3):
        with pytest.raises(BudgetExceeded):
            crew.kickoff(exhausted)
    assert exhausted.provider.requests == 0
    exhausted.callback.close()
    crew.kickoff(exhausted)
    assert exhausted.provider.requests == 1


def test_crewai_first_and_the_budget_behind_it(open_edge: Callable[..., Edge]) -> None:
    crew = CrewLLM()
    edge = open_edge(default_limit="0")
    with pytest.raises(BudgetExceeded):
        crew.kickoff(edge)
    assert edge.provider.requests == 0


def test_a_new_list_for_each_call(exhausted: Edge) -> None:
    for _ in range(5):
        litellm.callbacks = [Own()]
        with pytest.raises(BudgetExceeded):
            litellm.completion(**_arguments(exhausted))
    assert exhausted.provider.requests == 0


def test_another_thread_assigns_the_list_all_the_time(exhausted: Edge) -> None:
    over = threading.Event()

    def assign() -> None:
        while not over.is_set():
            litellm.callbacks = [Own()]
            litellm.callbacks = []

    other = threading.Thread(target=assign)
    other.start()
    try:
        for _ in range(20):
            with pytest.raises(BudgetExceeded):
                litellm.completion(**_arguments(exhausted))
    finally:
        over.set()
        other.join()
    assert exhausted.provider.requests == 0


@DEEDS
def test_calls_are_charged_whoever_replaced_the_list(deed: Callable[[], None], open_edge: Callable[..., Edge]) -> None:
    edge = open_edge(default_limit="1")
    deed()
    for _ in range(3):
        litellm.completion(**_arguments(edge))
    assert edge.calm("alice") == edge.provider.bill > 0


@pytest.mark.parametrize("registered", ["both", "first", "second", "neither"])
def test_two_callbacks_hold_once(registered: str, open_edge: Callable[..., Edge]) -> None:
    first, second = open_edge(default_limit="1"), open_edge(default_limit="1")
    chosen = {"both": [first, second], "first": [first], "second": [second], "neither": []}[registered]
    litellm.callbacks = [edge.callback for edge in chosen]
    outcome = first.call(litellm.completion, "alice", **_arguments(first))
    assert outcome.error is None and outcome.bill > 0
    assert first.calm("alice") == second.calm("alice") == outcome.bill
    assert first.usage("alice").calls == 1


def test_closing_one_of_two_leaves_the_gate_to_the_other(open_edge: Callable[..., Edge]) -> None:
    first, second = open_edge(default_limit="0"), open_edge(default_limit="0")
    litellm.callbacks = []
    first.callback.close()
    _all_refused(second)
    second.callback.close()
    _goes_out(second)


def test_a_closed_callback_that_is_still_in_the_list_does_nothing(exhausted: Edge) -> None:
    exhausted.callback.close()
    litellm.callbacks = [exhausted.callback, Own()]
    _goes_out(exhausted)


def _lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [
        record
        for record in caplog.records
        if record.name.startswith("litellm_budget_plugin") and "litellm.callbacks" in record.getMessage()
    ]


def test_one_line_says_that_the_list_was_replaced(exhausted: Edge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "litellm_budget_plugin")
    _refuse(exhausted)
    assert not _lines(caplog)
    for _ in range(3):
        litellm.callbacks = [Own()]
        _refuse(exhausted)
        _refuse(exhausted)
    assert [record.levelno for record in _lines(caplog)] == [logging.INFO]


def test_nothing_is_said_while_the_callback_is_in_the_list(exhausted: Edge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "litellm_budget_plugin")
    litellm.callbacks = [Own(), exhausted.callback]
    _refuse(exhausted)
    litellm.callbacks.append(Own())
    _refuse(exhausted)
    assert not _lines(caplog)


def _refuse(edge: Edge) -> None:
    with pytest.raises(BudgetExceeded):
        litellm.completion(**_arguments(edge))


def _disabled() -> AbstractContextManager[Any]:
    found: AbstractContextManager[Any] = importlib.import_module("litellm_budget_plugin.testing").disabled()
    return found


def test_tests_of_applications_switch_it_off(exhausted: Edge) -> None:
    _refuse(exhausted)
    with _disabled():
        _goes_out(exhausted)
        with _disabled():
            _goes_out(exhausted)
        # The inner block has ended, the outer one has not.
        _goes_out(exhausted)
    before = exhausted.provider.requests
    _refuse(exhausted)
    assert exhausted.provider.requests == before
    assert exhausted.calm("alice") == 0


def test_it_is_off_for_every_thread(exhausted: Edge) -> None:
    with ThreadPoolExecutor(4) as pool:
        with _disabled():
            list(pool.map(lambda _: litellm.completion(**_arguments(exhausted)), range(8)))
        assert exhausted.provider.requests == 8
        errors = [pool.submit(litellm.completion, **_arguments(exhausted)).exception() for _ in range(8)]
    assert all(isinstance(error, BudgetExceeded) for error in errors)
    assert exhausted.provider.requests == 8


def test_it_is_off_for_awaited_calls_and_streams(exhausted: Edge) -> None:
    with _disabled():
        for attempt in _attempts(exhausted):
            attempt()
        assert exhausted.provider.requests == 5
    before = exhausted.provider.requests
    for attempt in _attempts(exhausted):
        with pytest.raises(BudgetExceeded):
            attempt()
    assert exhausted.provider.requests == before


def test_the_gate_is_back_after_an_error(exhausted: Edge) -> None:
    with pytest.raises(ZeroDivisionError), _disabled():
        raise ZeroDivisionError
    _refuse(exhausted)


def test_two_threads_overlap_in_switching_it_off(exhausted: Edge) -> None:
    """The one that began first ends first. The gate is off until the last of them has ended."""
    first, second = _disabled(), _disabled()
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with second:
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with first:
        thread.start()
        assert entered.wait(30)
    _goes_out(exhausted)
    leave.set()
    thread.join()
    before = exhausted.provider.requests
    _refuse(exhausted)
    assert exhausted.provider.requests == before


def test_a_callback_made_while_it_is_off_acts_afterwards(open_edge: Callable[..., Edge]) -> None:
    with _disabled():
        edge = open_edge(default_limit="0")
        _goes_out(edge)
    before = edge.provider.requests
    _refuse(edge)
    assert edge.provider.requests == before


def test_a_callback_that_was_dropped_without_being_closed_still_acts(exhausted: Edge) -> None:
    """Only the framework's list was replaced. The application may no longer refer to the list that it assigned."""
    callback: BudgetCallback = exhausted.callback
    litellm.callbacks = []
    del callback
    _all_refused(exhausted)
