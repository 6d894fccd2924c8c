"""Charges that were estimated also have totals of their own."""

from __future__ import annotations

import litellm
import pytest

from litellm_budget_plugin.core.accounts import ESTIMATED, Usage
from litellm_budget_plugin.core.commands import Read, ReadUsage
from litellm_budget_plugin.hooks.call import settlement_of
from litellm_budget_plugin.pricing import Cost
from tests.hooks.desk import Desk
from tests.upstream import Upstream


def _estimated(desk: Desk) -> Usage:
    desk.callback.flush()
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    assert ledger.ask(Read(ledger.project, ESTIMATED)).accounts == ()
    total = Usage()
    for key, usage in ledger.ask(ReadUsage(ledger.project, ESTIMATED)).rows:
        assert key.subject == ledger.project
        total = total.plus(usage)
    return total


def test_an_answer_with_usage_is_reported(desk: Desk, upstream: Upstream) -> None:
    litellm.completion(**desk.arguments("alice"))
    assert desk.usage("alice").spent > 0 and _estimated(desk) == Usage()


def test_a_stream_that_is_dropped_is_estimated(desk: Desk, upstream: Upstream) -> None:
    stream = litellm.completion(**desk.arguments("alice"), stream=True)
    next(iter(stream))
    del stream
    desk.calm("alice")
    spent = desk.usage("alice").spent
    assert spent > 0 and _estimated(desk).spent == spent and _estimated(desk).calls == 1


@pytest.mark.parametrize(
    ("usd", "estimated", "nanos", "told"),
    [(5, False, 5, False), (5, True, 5, True), (None, False, 7, True), (0, True, 0, False), (None, True, 0, False)],
)
def test_what_counts_as_estimated(desk: Desk, usd: int | None, estimated: bool, nanos: int, told: bool) -> None:
    """A charge of what was held because the cost is unknown counts, too. A charge of nothing does not."""
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    principal = ledger.principal("alice")
    command = settlement_of(ledger, principal, (), Cost(usd, "m", 1, 1, estimated), nanos, "h", ())
    assert (command.subjects[-1].scope == ESTIMATED) == told
    assert [one for one in command.subjects if one.scope != ESTIMATED] == list(principal.subjects)
