"""Files of limits compared with a plain model of their meaning: the limits that count, the refused calls, and the refusal's fields."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.budget_file import read_file
from litellm_budget_plugin.core.accounts import Amounts, Subject
from litellm_budget_plugin.core.commands import Granted, Refused, Reserve, Settle
from litellm_budget_plugin.policy import Policy
from litellm_budget_plugin.stores.protocol import ask
from litellm_budget_plugin.stores.registry import open_store
from tests import limits_model as model
from tests.generated import examples

CALLS = 7
HOUR = 3_600_000_000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model") / "budgets.toml"


@given(st.integers(0, 2**64))
@examples(2000)
def test_a_file_means_what_the_model_says(path: Path, seed: int) -> None:
    dice = random.Random(seed)
    file, classes = model.File(dice), model.random_classes(dice)
    path.write_text(file.text)
    policy, ledger, now = read_file(path, "UTC", {}), model.Ledger(file), model.NOON
    store = open_store("memory://", test_clock=True)
    for number in range(CALLS):
        now += timedelta(hours=dice.choice((0, 0, 1, 13, 24)))
        call = model.random_call(dice, classes)
        refused = _made(store, policy, call, f"c{number}", round(now.timestamp() * 1_000_000))
        full = ledger.full(call, now)
        assert (refused is None) == (not full), (file.text, call, refused, full)
        if refused is None:
            ledger.charge(call, now)
            continue
        budget = model.named(full, refused.account)
        assert budget is not None, (file.text, call, refused, full)
        assert (refused.limit, refused.spent) == (budget.amount, ledger.spent(budget, now))
        assert refused.reason == "spent" and refused.requested == call.charge(budget.unit)
    store.close()


def _made(store: object, policy: Policy, call: model.Call, hold: str, now: int) -> Refused | None:
    """Hold and settle. Returns the refusal, if there is one."""
    subjects = tuple(Subject(*each) for each in call.subjects)
    defaults = policy.defaults_of(subjects, call.user_class)
    names = model.NAMES[call.model]
    want = Amounts(call.cost, 1, call.tokens)
    reply = ask(store, Reserve(hold, model.PROJECT, subjects, names, want, HOUR, defaults, now=now))  # type: ignore[arg-type]
    if isinstance(reply, Refused):
        return reply
    assert isinstance(reply, Granted)
    settle = Settle(
        hold, model.PROJECT, subjects, names, call.cost, call.model, call.tokens, defaults=defaults, now=now
    )
    ask(store, settle)  # type: ignore[arg-type]
    return None
