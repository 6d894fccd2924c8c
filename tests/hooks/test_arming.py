"""Arming: what the package relies on in LiteLLM, and that everything is restored when the gate is removed."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib import import_module
from typing import Any

import litellm
import litellm.utils
import pytest
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.litellm_logging import Logging

from litellm_budget_plugin import BudgetCallback, BudgetExceeded, IncompatibleLiteLLMError
from litellm_budget_plugin.hooks import instrument, registration
from litellm_budget_plugin.hooks.instrument import PATCH_POINTS, PatchPoint
from tests.hooks.desk import WORTH, Desk
from tests.upstream import Upstream


def _owner(point: PatchPoint) -> tuple[Any, str]:
    module, _, path = point.path.partition(":")
    owner: Any = import_module(module)
    *classes, name = path.split(".")
    for part in classes:
        owner = getattr(owner, part)
    return owner, name


@pytest.mark.parametrize("point", PATCH_POINTS, ids=lambda point: point.path)
def test_the_installed_litellm_has_every_patch_point(point: PatchPoint) -> None:
    parameters = inspect.signature(getattr(*_owner(point))).parameters
    assert set(point.needs) <= set(parameters)


def _functions() -> list[Any]:
    return [inspect.getattr_static(*_owner(point), None) for point in PATCH_POINTS]


@pytest.fixture(autouse=True)
def _loaded() -> None:
    """LiteLLM loads this module lazily."""
    assert litellm.utils.update_response_metadata


def test_closing_puts_litellm_back_as_it_was(open_desk: Callable[..., Desk]) -> None:
    before = _functions()
    desk = open_desk()
    assert not any(now is old for now, old in zip(_functions(), before))
    desk.callback.close()
    assert all(now is old for now, old in zip(_functions(), before))
    desk.callback.close()


def test_arming_twice_wraps_once(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    first = open_desk()
    armed = _functions()
    second = open_desk()
    assert _functions() == armed
    first.callback.close()
    assert _functions() == armed
    litellm.completion(**second.arguments("alice"))
    assert second.calm("alice") == WORTH


def test_a_closed_callback_in_front_does_not_switch_the_gate_off(open_desk: Callable[..., Desk]) -> None:
    old = open_desk(default_limit="10", project="old")
    off = open_desk(default_limit="10", mode="off")
    desk = open_desk(default_limit="0.0125")
    old.callback.close()
    litellm.callbacks = [old.callback, off.callback, desk.callback]
    litellm.completion(**desk.arguments("alice"))
    with pytest.raises(BudgetExceeded):
        litellm.completion(**desk.arguments("alice"))


def test_two_registered_callbacks_hold_once(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    first = open_desk(default_limit="0.0125")
    second = open_desk(default_limit="0.0125")
    litellm.callbacks = [first.callback, second.callback]
    litellm.completion(**first.arguments("alice"))
    assert first.calm("alice") == WORTH


@pytest.mark.parametrize("point", PATCH_POINTS, ids=lambda point: point.path)
def test_a_changed_patch_point_stops_the_start_and_patches_nothing(
    point: PatchPoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    before = _functions()
    broken = [other if other is not point else other._replace(needs=("no_such_parameter",)) for other in PATCH_POINTS]
    monkeypatch.setattr(instrument, "PATCH_POINTS", tuple(broken))
    with pytest.raises(IncompatibleLiteLLMError, match="no_such_parameter"):
        BudgetCallback(store_url=f"sqlite:///{tmp_path}/ledger.db")
    assert _functions() == before


@pytest.mark.parametrize("point", PATCH_POINTS, ids=lambda point: point.path)
def test_a_module_that_moved_is_our_error(point: PatchPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _functions()
    moved = point._replace(path="litellm.moved_elsewhere:" + point.path.partition(":")[2])
    monkeypatch.setattr(instrument, "PATCH_POINTS", tuple(moved if p is point else p for p in PATCH_POINTS))
    with pytest.raises(IncompatibleLiteLLMError, match=r"litellm\.moved_elsewhere.*is missing"):
        BudgetCallback(store_url="memory://", default_limit=1)
    assert _functions() == before


def test_a_function_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Logging, "post_call", None)
    with pytest.raises(IncompatibleLiteLLMError, match=r"Logging\.post_call is missing"):
        BudgetCallback(store_url="memory://", default_limit=1)


@pytest.mark.parametrize("name", ["exception_type", "update_response_metadata"])
def test_every_module_that_holds_a_function_under_its_name_is_patched(desk: Desk, name: str) -> None:
    """LiteLLM's Rust bridge looks it up like this, in the module that defines it."""
    path = next(point.path for point in PATCH_POINTS if point.path.endswith(f":{name}"))
    home = import_module(path.partition(":")[0])
    original = inspect.unwrap(getattr(home, name))
    holding = [m for m, module in list(sys.modules.items()) if m.startswith("litellm") and name in vars(module)]
    assert len(holding) > 1
    assert not [m for m in holding if vars(sys.modules[m])[name] is original]


def test_somebody_elses_wrapper_stays_in_place(desk: Desk, upstream: Upstream) -> None:
    ours = litellm.utils.function_setup
    calls: list[str] = []

    def theirs(*args: Any, **kwargs: Any) -> Any:
        calls.append(args[0])
        return ours(*args, **kwargs)

    litellm.utils.function_setup = theirs
    try:
        desk.callback.close()
        assert litellm.utils.function_setup is theirs
        litellm.callbacks = []
        # LiteLLM reports it later, from a thread, to the callback that is then registered. So this call has another
        # user.
        litellm.completion(**desk.arguments("bob"))
        assert (calls, upstream.requests) == (["completion"], 1)
        again = BudgetCallback(store_url="memory://", default_limit="0.0125")
        litellm.callbacks = [again]
        litellm.completion(**desk.arguments("alice"))
        assert again.manager.get_current_cost("alice") == 0.0125
        with pytest.raises(BudgetExceeded):
            litellm.completion(**desk.arguments("alice"))
        again.close()
    finally:
        litellm.utils.function_setup = ours


def test_a_replaced_list_is_reported_once_and_changes_nothing(
    open_desk: Callable[..., Desk], upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    desk = open_desk(default_limit="0.0125")
    litellm.completion(**desk.arguments("alice"))
    litellm.callbacks = []
    for _ in range(2):
        with pytest.raises(BudgetExceeded):
            litellm.completion(**desk.arguments("alice"))
    reports = [record for record in caplog.records if "does not contain" in record.message]
    assert ([record.levelname for record in reports], upstream.requests) == (["INFO"], 1)


def test_a_callback_acts_from_when_it_is_made(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    """For example when LiteLLM's own limit on callbacks has kept it out of the list."""
    desk = open_desk(default_limit="0")
    litellm.callbacks = []
    with pytest.raises(BudgetExceeded):
        litellm.completion(**desk.arguments("alice"))
    assert upstream.requests == 0


def test_a_callback_that_is_off_does_nothing(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_desk(mode="off", default_limit="0")
    litellm.completion(**desk.arguments("alice"))
    assert upstream.requests == 1


def test_a_closed_callback_is_not_reported(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    litellm.completion(**desk.arguments("alice"))
    desk.callback.close()
    litellm.callbacks = []
    litellm.completion(**desk.arguments("alice"))
    assert not [record for record in caplog.records if "does not contain" in record.message]
    assert registration._open == []


def test_a_refused_call_leaves_no_trace_on_the_context(desk: Desk) -> None:
    from litellm._logging import __dict__ as names

    variables = [names[name] for name in ("trace_id_var", "session_id_var") if name in names]
    before = [variable.get(None) or "" for variable in variables]
    with pytest.raises(BudgetExceeded):
        litellm.completion(**desk.arguments("alice", max_tokens=100_000))
    assert [variable.get(None) or "" for variable in variables] == before


def test_other_peoples_callbacks_see_what_they_saw_before(desk: Desk, upstream: Upstream) -> None:
    class Theirs(CustomLogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.events: list[str] = []

        def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
            self.events.append("pre")

        def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            self.events.append(f"success {kwargs['litellm_call_id']} {kwargs['response_cost']}")

    theirs = Theirs()
    for position in (0, 1):
        litellm.callbacks = [desk.callback]
        litellm.callbacks.insert(position, theirs)
        theirs.events.clear()
        litellm.completion(**desk.arguments("alice", litellm_call_id=f"mine-{position}"))
        desk.calm("alice")
        _await_events(theirs.events, 2)
        assert theirs.events == ["pre", f"success mine-{position} 0.0125"]


def _await_events(events: list[str], count: int) -> None:
    import threading
    import time

    deadline = time.monotonic() + 20
    while len(events) < count and time.monotonic() < deadline:
        threading.Event().wait(0.01)


def test_importing_the_package_does_not_import_litellm() -> None:
    program = textwrap.dedent(
        """
        import sys
        import litellm_budget_plugin, litellm_budget_plugin.settings
        import litellm_budget_plugin.core.ledger, litellm_budget_plugin.stores.registry
        import litellm_budget_plugin.stores.sqlite.store, litellm_budget_plugin.stores.memory
        assert "litellm" not in sys.modules
        """
    )
    subprocess.run([sys.executable, "-c", program], check=True)
