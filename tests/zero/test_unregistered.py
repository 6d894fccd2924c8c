"""Limits that are set but not enforced are reported once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from litellm_budget_plugin import BudgetCallback, BudgetManager, budget_context
from litellm_budget_plugin.manager import unregistered


def _enter() -> None:
    with budget_context(user="alice"):
        """No call is made."""


@budget_context(user="alice")
def _decorated() -> None:
    """No call is made."""


def _charge() -> None:
    manager = BudgetManager("default")
    manager.create_budget(1, "alice")
    manager.update_cost("alice", model="gpt-4o", input_text="x", output_text="x")
    manager.close()


USES = [_enter, _decorated, _charge]
LIMITED = {
    "USER_LIMITS": "$1/day",
    "DEFAULT_LIMIT": "0",
    "PROJECT_LIMITS": "5 calls",
    "FILE": "limits.toml",
    "HOLD_TTL": "bad",
}
NOT_LIMITED = {"PROJECT": "p", "MODE": "off"}


@pytest.fixture(autouse=True)
def _new(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(unregistered, "_known", False)
    monkeypatch.chdir(tmp_path)
    Path("limits.toml").write_text('[class.pro]\nusers = ["alice"]\nlimits = ["$1/day"]\n')
    monkeypatch.setenv("LITELLM_BUDGET_STORE_URL", "memory://")
    import litellm

    assert litellm


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "there is no BudgetCallback" in record.message]


@pytest.mark.parametrize("setting", LIMITED)
@pytest.mark.parametrize("use", USES)
def test_it_is_said_once(
    use: Callable[[], None], setting: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if (setting, use) == ("HOLD_TTL", _charge):
        return  # it does not get so far
    monkeypatch.setenv(f"LITELLM_BUDGET_{setting}", LIMITED[setting])
    use()
    use()
    assert len(_said(caplog)) == 1


@pytest.mark.parametrize("setting", NOT_LIMITED)
@pytest.mark.parametrize("use", USES)
def test_without_limits_there_is_nothing_to_say(
    use: Callable[[], None], setting: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(f"LITELLM_BUDGET_{setting}", NOT_LIMITED[setting])
    if setting == "MODE":
        monkeypatch.setenv("LITELLM_BUDGET_USER_LIMITS", "$1/day")
    use()
    assert _said(caplog) == []


@pytest.mark.parametrize("use", USES)
def test_nor_where_a_callback_was_made(
    use: Callable[[], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_USER_LIMITS", "$1/day")
    BudgetCallback().close()
    use()
    assert _said(caplog) == []


def test_it_is_said_when_litellm_is_in_use_and_not_before(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_USER_LIMITS", "$1/day")
    with monkeypatch.context() as without:
        without.delitem(sys.modules, "litellm")
        _enter()
    assert _said(caplog) == []
    _enter()
    assert len(_said(caplog)) == 1
