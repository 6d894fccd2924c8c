"""check() says whether budgets hold in this process, and does not affect other calls."""

from __future__ import annotations

from collections.abc import Callable

import litellm
import pytest
from litellm.integrations.custom_logger import CustomLogger

from litellm_budget_plugin import check
from litellm_budget_plugin.hooks import admission, call
from litellm_budget_plugin.hooks.instrument import PATCH_POINTS
from tests.hooks.desk import Desk
from tests.upstream import Upstream


def test_a_registered_callback_is_found_to_hold(desk: Desk, upstream: Upstream) -> None:
    found = check()
    assert found.ok and found.registered and found.blocks and found.settles
    assert len(found.armed) == len(PATCH_POINTS) and not found.missing
    assert "budgets hold" in str(found) and litellm.utils.function_setup.__name__ in str(found)
    assert upstream.requests == 0
    assert desk.usage("budget-check").calls == 0


def test_a_replaced_list_of_callbacks_changes_nothing(desk: Desk) -> None:
    litellm.callbacks = []
    assert check().ok


def test_nothing_armed_is_said(desk: Desk) -> None:
    desk.callback.close()
    found = check()
    assert (found.ok, found.armed) == (False, ())
    assert "litellm.utils:function_setup" in found.missing


def test_a_gate_that_lets_everything_pass_is_noticed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_refuse", lambda *_: None)
    found = check()
    assert not found.ok and not found.blocks and found.settles


def test_a_settlement_that_charges_nothing_is_noticed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call.Call, "_settle", lambda self, cost, response=None: self.release())
    found = check()
    assert not found.ok and found.blocks and not found.settles


def test_the_settings_of_the_environment_do_not_matter(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"MODE": "off", "DEFAULT_LIMIT": "0", "USER_FROM": "default", "CLIENT_TYPE": "hosted"}
    for name, value in {**values, "CAP_OUTPUT": "true", "MIN_OUTPUT": "1", "FALLBACK_MODELS": '{"a": "b"}'}.items():
        monkeypatch.setenv(f"LITELLM_BUDGET_{name}", value)
    assert check().ok


def test_somebody_elses_failing_hook_is_no_reason_to_raise(open_desk: Callable[..., Desk]) -> None:
    class Theirs(CustomLogger):  # type: ignore[misc]
        def log_pre_api_call(self, model: object, messages: object, kwargs: object) -> None:
            raise RuntimeError("theirs")

    desk = open_desk()
    litellm.callbacks = [Theirs(), desk.callback]
    assert check().ok


def test_shadow_mode_does_not_hold_budgets(open_desk: Callable[..., Desk]) -> None:
    open_desk(mode="shadow")
    found = check()
    assert (found.ok, found.registered, found.mode) == (False, True, "shadow")
    assert "mode shadow" in str(found)


def test_the_applications_cache_is_left_alone(desk: Desk) -> None:
    litellm.cache = litellm.Cache(type="local")
    assert check().ok and check().ok
    assert not litellm.cache.cache.cache_dict
