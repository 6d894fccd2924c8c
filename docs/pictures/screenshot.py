"""Take the dashboard's picture: `python -m docs.pictures.screenshot`, in the environment that the tests use.

It shows four weeks of an invented company, served on loopback. Only the dates differ between two runs.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path

from litellm_budget_plugin import BudgetSettings
from litellm_budget_plugin.core.accounts import Amounts, Subject
from litellm_budget_plugin.core.commands import Reserve, Settle
from litellm_budget_plugin.manager.policies import Policies
from litellm_budget_plugin.stores.protocol import ask
from litellm_budget_plugin.stores.registry import open_store
from tests.server.browser import Watched, chromium
from tests.server.running import running

_CENT = 10_000_000
_DAY = 86_400_000_000
_MINUTE = 60_000_000
_USERS = {"alice": 64, "bo": 21, "chen": 17, "dipa": 11, "emre": 8, "farah": 5, "goran": 3}
_MODELS = {"gpt-4o": 6, "claude-sonnet-4-5": 4, "gpt-4o-mini": 1}
_DAYS = 28


def _fill(url: str, settings: BudgetSettings) -> None:
    store = open_store(url)
    policy = Policies(settings).look()
    now = time.time_ns() // 1000
    charges = [(day, user, model) for day in range(_DAYS) for user in _USERS for model in _MODELS]
    for number, (day, user, model) in enumerate(charges):
        share, price = _USERS[user], _MODELS[model]
        team = Subject("team", "search" if share % 2 else "support")
        subjects = (Subject("user", user), team, Subject("project", "default"))
        cost = round(_CENT * share * price * (1.2 + math.sin(day / 3 + price)) / 40)
        at = now - (_DAYS - 1 - day) * _DAY
        defaults = policy.defaults_of(subjects)
        ask(store, Settle(f"{number}", "default", subjects, (model,), cost, model, 900, 300, defaults=defaults, at=at))
    alice = (Subject("user", "alice"),)
    want, defaults = Amounts(40 * _CENT, 1), policy.defaults_of(alice)
    ask(store, Reserve("in flight", "default", alice, ("gpt-4o",), want, _MINUTE, defaults))
    store.close()


def main() -> None:
    """Write dashboard.png beside this script."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/ledger.db"
        settings = BudgetSettings(store_url=url, user_limits="$7 per month", team_limits="$20 per month")
        _fill(url, settings)
        with running(url, open_access=True, settings=settings) as server, chromium() as browser:
            tab = Watched(browser, server.url, viewport={"width": 1000, "height": 900}, color_scheme="light")
            tab.page.goto("/")
            tab.page.get_by_role("link", name="default").click()
            tab.page.wait_for_load_state("networkidle")
            tab.page.screenshot(path=Path(__file__).with_name("dashboard.png"))
            tab.close()


if __name__ == "__main__":
    main()
