"""Alerts of calls through LiteLLM: the function that an application gives gets each alert once."""

from __future__ import annotations

import queue
from collections.abc import Callable

import litellm
import pytest

from litellm_budget_plugin import Alert, BudgetExceeded, BudgetManager
from tests.hooks.desk import Desk


@pytest.mark.parametrize("url", ["memory://", None])
def test_a_function_gets_each_alert_once(open_desk: Callable[..., Desk], url: str | None) -> None:
    sent: queue.Queue[Alert] = queue.Queue()
    more = {} if url is None else {"store_url": url, "project": "alerts"}
    desk = open_desk(on_alert=sent.put, user_limits="$0.05", default_limit=None, **more)
    # Closing another ledger of the same store first stops nothing.
    BudgetManager(desk.callback.settings.project, settings=desk.callback.settings).close()
    for _ in range(4):  # each is a quarter of the limit
        litellm.completion(**desk.arguments("alice"))
    # The worker looks about once a second, without waiting for its end.
    assert {sent.get(timeout=20).threshold for _ in range(2)} == {80, 100}
    for _ in range(3):
        with pytest.raises(BudgetExceeded):
            litellm.completion(**desk.arguments("alice"))
    desk.callback.close()
    (refused,) = sent.queue
    assert (refused.kind, refused.subject, refused.budget) == ("refused", "alice", "$0.05")


def test_shadow_mode_says_what_would_be_refused(open_desk: Callable[..., Desk]) -> None:
    sent: list[Alert] = []
    desk = open_desk(on_alert=sent.append, user_limits="$0.02", default_limit=None, mode="shadow", alert_at="1000")
    for _ in range(2):
        litellm.completion(**desk.arguments("alice"))
    desk.callback.close()
    assert [alert.kind for alert in sent] == ["refused"] and "would have calls refused" in sent[0].text


def test_off_and_the_setting_turn_alerts_off(open_desk: Callable[..., Desk]) -> None:
    sent: list[Alert] = []
    for values in ({"mode": "off"}, {"alert_at": "off"}):
        desk = open_desk(on_alert=sent.append, **values)
        for _ in range(4):
            litellm.completion(**desk.arguments("alice"))
        desk.callback.close()
    assert sent == []
