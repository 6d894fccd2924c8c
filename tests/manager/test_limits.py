"""BudgetManager's own methods: they take sentences and return exact amounts, for every scope."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from litellm_budget_plugin import BudgetInputError, BudgetManager
from litellm_budget_plugin.core.accounts import Amounts
from litellm_budget_plugin.core.commands import Granted, Refused, Reserve, Settle
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.manager.budgets import Payment, Remaining, UsageRow, parse_subject
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.principal import Given
from tests.manager.conftest import OpenManager
from tests.stores.processes import Child

NANO = Decimal(10) ** -9
MODEL = "gpt-4o"


def charge(manager: BudgetManager, user: str, usd: str, model: str = MODEL, calls: int = 1, **given: Any) -> None:
    """Charge a call that cost `usd`."""
    ledger = manager._ledger
    principal = ledger.principal(user, Given(**given))
    cost = int(Decimal(usd) / NANO)
    ledger.ask(
        Settle(new_id(), ledger.project, principal.subjects, (model,), cost, model, 10, 5, calls, principal.defaults)
    )


def hold(manager: BudgetManager, user: str, usd: str, model: str = MODEL, **given: Any) -> Granted | Refused:
    """Hold `usd` for a call that begins."""
    ledger = manager._ledger
    principal = ledger.principal(user, Given(**given))
    want = Amounts(int(Decimal(usd) / NANO), 1, 15)
    command = Reserve(new_id(), ledger.project, principal.subjects, (model,), want, 10**8, principal.defaults)
    reply = ledger.ask(command)
    assert isinstance(reply, (Granted, Refused))
    return reply


def refused(manager: BudgetManager, user: str, usd: str, **more: Any) -> Refused:
    reply = hold(manager, user, usd, **more)
    assert isinstance(reply, Refused)
    return reply


def test_subjects_are_text() -> None:
    said = ("alice", 17, "user:team:x", "team:search", "tag:a:b", "run:42", "project:p", "a:b")
    assert [tuple(parse_subject(text)) for text in said] == [
        ("user", "alice"),
        ("user", "17"),
        ("user", "team:x"),
        ("team", "search"),
        ("tag", "a:b"),
        ("run", "42"),
        ("project", "p"),
        ("user", "a:b"),
    ]
    for bad in (
        "",
        "team:",
        "team: x",
        " a",
        None,
        1.5,
        "x" * 257,
        "teams:x",
        "teem:x",
        "Team:x",
        "class:pro",
        "users:a",
    ):
        with pytest.raises(BudgetInputError):
            parse_subject(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("subject", ["alice", "team:search", "tag:batch", "run:7", "project"])
def test_several_limits_of_any_subject(manager: BudgetManager, subject: str) -> None:
    given = {"team": "search", "tags": ("batch",), "runs": ("7",)}
    assert manager.set_limits(subject, "$1/day", "$10 per month", "$2/day for gpt-4o*, 7 calls") == [
        "$1 per day",
        "$10 per month",
        "$2 per day for gpt-4o*",
        "7 calls",
    ]
    assert sorted(manager.limits(subject)) == ["$1 per day", "$10 per month", "$2 per day for gpt-4o*", "7 calls"]
    charge(manager, "alice", "0.123456789", **given)
    left = manager.remaining(subject)
    assert left == Remaining(Decimal("0.876543211"), "$1 per day", left.resets_at, Decimal(0), 6, None, False)
    assert left.resets_at is not None and left.resets_at.hour == 0 and left.resets_at > datetime.now(timezone.utc)
    assert refused(manager, "alice", "0.9", **given).account.window == "day@UTC"
    manager.clear_limits(subject)
    assert manager.limits(subject) == [] and manager.remaining(subject) == Remaining()
    assert isinstance(hold(manager, "alice", "100", **given), Granted)


def test_what_is_left_is_of_the_budget_that_binds(manager: BudgetManager) -> None:
    manager.set_limits("alice", "$1/day", "$1.50", "$0.25/month for gpt-4o*", "40k tokens")
    assert manager.remaining("alice")[:2] == (1, "$1 per day")
    assert manager.remaining("alice", "gpt-4o-mini")[:2] == (Decimal("0.25"), "$0.25 per month for gpt-4o*")
    charge(manager, "alice", "0.75", "o3")
    hold(manager, "alice", "0.0625", "o3")
    assert manager.remaining("alice") == Remaining(
        Decimal("0.1875"), "$1 per day", manager.remaining("alice").resets_at, Decimal("0.0625"), None, 39970
    )
    charge(manager, "bob", "3")
    assert manager.remaining("bob") == Remaining()
    manager.set_limits("bob", "unlimited")
    assert manager.remaining("bob") == Remaining() and manager.limits("bob") == ["unlimited"]


def test_the_file_the_class_and_the_hand(open_manager: OpenManager, here: Path) -> None:
    (here / "budgets.toml").write_text(
        '[user]\nlimits = ["$1/day"]\n[user.bob]\nlimits = ["$7", "3 calls"]\n'
        '[class.pro]\nusers = ["*@x"]\nlimits = ["$5/month"]\n[team.red]\nlimits = ["$2"]\n'
    )
    manager = open_manager(file="budgets.toml")
    said = {user: manager.limits(user) for user in ("ann", "bob", "a@x", "team:red", "team:blue")}
    assert said == {
        "ann": ["$1 per day"],
        "bob": ["3 calls", "$7"],
        "a@x": ["$5 per month"],
        "team:red": ["$2"],
        "team:blue": [],
    }
    manager.set_limits("bob", "$9")
    assert (manager.limits("bob"), manager.remaining("bob").usd) == (["$9"], 9)
    manager.clear_limits("bob")
    assert manager.limits("bob") == ["3 calls", "$7"]


def test_a_block_and_its_end(manager: BudgetManager) -> None:
    for subject, given in (("alice", {}), ("team:red", {"team": "red"}), ("run:1", {"runs": ("1",)}), ("project", {})):
        manager.block(subject)
        assert refused(manager, "alice", "0.1", **given).reason == "blocked"
        assert manager.remaining(subject).blocked
        manager.unblock(subject)
        assert isinstance(hold(manager, "alice", "0.1", **given), Granted)
        assert manager.remaining(subject) == Remaining()
    manager.set_limits("alice", "$1/day for o3", "3 calls")
    manager.block("alice")
    assert refused(manager, "alice", "0.1").reason == "blocked"
    manager.set_limits("alice", "$5/month")
    assert refused(manager, "alice", "0.1").reason == "blocked"
    manager.unblock("alice")
    assert isinstance(hold(manager, "alice", "0.1"), Granted) and manager.limits("alice") == ["$5 per month"]


def test_limits_are_raised_for_a_while(open_manager: OpenManager) -> None:
    manager = open_manager(user_limits="$1/day, $2/month, $1/day for o3, 100 calls")
    manager.set_limits("carol", "$3")
    soon = datetime.now(timezone.utc) + timedelta(hours=1)
    for user, before in (("alice", 1), ("carol", 3)):
        charge(manager, user, "0.5")
        manager.raise_limit(user, "$5", until=soon)
        assert manager.remaining(user).usd == before + Decimal("4.5")
    # A raise sets no limit by hand, so the other defaults still count.
    assert sorted(manager.limits("alice")) == ["$1 per day", "$1 per day for o3", "$2 per month", "100 calls"]
    assert isinstance(hold(manager, "alice", "4"), Granted)
    assert refused(manager, "alice", "1.1", model="o3").account.model == "o3"
    manager.raise_limit("carol", "$5", until=datetime.now(timezone.utc) - timedelta(hours=1))
    assert manager.remaining("carol").usd == Decimal("2.5")
    with pytest.raises(BudgetInputError, match="no limit in US dollars"):
        manager.raise_limit("team:none", "$5", until=soon)
    for bad in ("$5/day", "5 calls", "unlimited", "$5 for o3"):
        with pytest.raises(BudgetInputError, match="an amount of US dollars"):
            manager.raise_limit("alice", bad, until=soon)
    with pytest.raises(BudgetInputError, match="time zone"):
        manager.raise_limit("alice", "$5", until=datetime(2999, 1, 1))


def test_reset_and_forget(manager: BudgetManager) -> None:
    manager.set_limits("alice", "$1/day", "$2 for gpt-4o")
    manager.top_up("alice", "$10", id="one")
    charge(manager, "alice", "0.5")
    manager.reset("alice")
    assert manager.remaining("alice", MODEL).usd == 1 and manager.balance("alice") == Decimal("9.5")
    manager.forget("alice")
    assert manager.limits("alice") == ["credit"] and manager.balance("alice") == Decimal("9.5")
    assert [row.spent for row in manager.usage(subject="alice")] == [Decimal("0.5")]


def test_a_limit_set_in_the_middle_of_a_window_knows_what_was_spent(manager: BudgetManager) -> None:
    charge(manager, "alice", "0.4")
    charge(manager, "alice", "0.1", "o3")
    for limits in (("$1/day", "$10/month"), ("$10/month", "$1/day for gpt-4o*", "$1/year")):
        manager.set_limits("alice", *limits)
        assert manager.remaining("alice").usd == Decimal("0.5")
    assert manager.remaining("alice", MODEL).usd == Decimal("0.5")


def test_usage_by_every_period_and_scope(manager: BudgetManager) -> None:
    given = {"team": "search", "tags": ("a", "b"), "runs": ("7",)}
    charge(manager, "alice", "0.25", **given)
    charge(manager, "alice", "0.25", "o3", **given)
    charge(manager, "bob", "0.125")
    manager.set_limits("bob", "$0.01")
    refused(manager, "bob", "1", model="o3")
    today = datetime.now(timezone.utc).date()
    total = UsageRow(today.isoformat(), Decimal("0.625"), 3, 30, 15, 1, 0)
    assert manager.usage() == [total]
    assert manager.usage(since=today) == manager.usage(until=today) == [total]
    assert manager.usage(since=today + timedelta(1)) == manager.usage(until=today - timedelta(1)) == []
    by = {
        period: [(row.key, row.spent) for row in manager.usage(by=period)] for period in ("model", "user", "tag", "run")
    }
    assert by == {
        "model": [("gpt-4o", Decimal("0.375")), ("o3", Decimal("0.25"))],
        "user": [("alice", Decimal("0.5")), ("bob", Decimal("0.125"))],
        "tag": [("a", Decimal("0.5")), ("b", Decimal("0.5"))],
        "run": [("7", Decimal("0.5"))],
    }
    assert manager.usage(by="team") == manager.usage(by="team", subject="team:search")
    assert [row.spent for row in manager.usage(by="project")] == [Decimal("0.625")]
    assert [row.key for row in manager.usage(by="model", subject="run:7")] == ["gpt-4o", "o3"]
    assert list(manager.subjects("tag")) == [] and list(manager.subjects("user")) == ["alice", "bob"]
    for bad in ({"by": "week"}, {"by": "team", "subject": "alice"}, {"subject": ""}):
        with pytest.raises(BudgetInputError):
            manager.usage(**bad)  # type: ignore[arg-type]


def test_a_balance(manager: BudgetManager) -> None:
    assert (manager.balance("alice"), manager.payments("alice")) == (0, [])
    for _ in range(2):
        manager.top_up("alice", "$10", id="invoice-17")
    manager.top_up("alice", "$0.50", id="invoice-18")
    charge(manager, "alice", "4.25")
    hold(manager, "alice", "1")
    assert manager.balance("alice") == Decimal("5.25")
    assert manager.remaining("alice")[:2] == (Decimal("5.25"), "credit")
    assert refused(manager, "alice", "5.5").account.window == "credit"
    for _ in range(2):
        manager.refund("invoice-17")
    assert manager.balance("alice") == Decimal("-4.75") and manager.remaining("alice").usd == 0
    said = [(paid.id, paid.amount, paid.refunded) for paid in manager.payments("alice")]
    assert said == [("invoice-17", 10, True), ("invoice-18", Decimal("0.5"), False)]
    assert all(
        isinstance(paid, Payment) and abs(paid.at.timestamp() - time.time()) < 600 for paid in manager.payments("alice")
    )
    manager.top_up("alice", "$10", id="invoice-17")
    assert manager.balance("alice") == Decimal("-4.75")
    with pytest.raises(BudgetInputError, match=r"invoice-17.*was made before, for user 'alice', of \$10"):
        manager.top_up("bob", "$10", id="invoice-17")
    with pytest.raises(BudgetInputError, match="no top-up 'invoice-99'"):
        manager.refund("invoice-99")
    for bad in ("$0", "$1/day", "10 calls", "credit", "unlimited"):
        with pytest.raises(BudgetInputError, match=r"an amount of US dollars|more than 0"):
            manager.top_up("alice", bad, id="x")


def test_who_needs_a_balance_and_has_none_is_refused(open_manager: OpenManager) -> None:
    manager = open_manager(user_limits="credit, $5/day")
    assert refused(manager, "alice", "0.01").account.window == "credit"
    assert manager.limits("alice") == ["credit", "$5 per day"] and manager.remaining("alice")[:2] == (0, "credit")
    manager.top_up("alice", "$1", id="1")
    assert manager.remaining("alice").usd == 1 and isinstance(hold(manager, "alice", "1"), Granted)
    # Alice's call in flight also holds money of the project, but not of this team.
    for subject, balance in (("team:red", 1), ("project", 0)):
        manager.top_up(subject, "$1", id=f"for {subject}")
        assert manager.balance(subject) == balance


def test_payments_survive_a_kill_and_are_not_taken_twice(open_manager: OpenManager) -> None:
    """The process is killed during the payments, and the next one sends all of them again."""
    manager = open_manager(store_url="sqlite:///ledger.db")
    settings = manager._ledger.settings

    def pay(child: Child) -> None:
        own = BudgetManager("shop", settings=settings)
        for number in range(10_000):
            own.top_up("alice", "$1", id=f"invoice-{number}")
            if number % 3 == 0:
                own.refund(f"invoice-{number}")
            if number == 6:
                child.tell()

    child = Child(pay)
    child.wait()
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    paid = manager.payments("alice")
    assert len(paid) >= 7 and manager.balance("alice") == sum(not each.refunded for each in paid)
    for number in range(len(paid) + 1):
        manager.top_up("alice", "$1", id=f"invoice-{number}")
        if number % 3 == 0:
            manager.refund(f"invoice-{number}")
    assert len(manager.payments("alice")) == len(paid) + 1
    expected = sum(1 for number in range(len(paid) + 1) if number % 3)
    assert manager.balance("alice") == expected


def test_litellms_surface_shows_the_budget_that_binds_first(manager: BudgetManager, here: Path) -> None:
    manager.set_limits("alice", "$10/month", "$3/day", "$1/day for o3", "5 calls")
    manager.top_up("alice", "$100", id="1")
    assert (manager.get_total_budget("alice"), manager.user_dict["alice"]["window"]) == (3, "day@UTC")
    charge(manager, "alice", "2")
    assert (manager.get_current_cost("alice"), manager.get_users()) == (2, ["alice"])
    manager.set_limits("alice", "$10/month", "$9/day")
    hold(manager, "alice", "0.5")
    assert manager.get_total_budget("alice") == 9
    manager.raise_limit("alice", "$2", until=datetime.now(timezone.utc) + timedelta(hours=1))
    manager.set_limits("alice", "$4/month", "$9/day")
    assert manager.user_dict["alice"]["total_budget"] == 4
    manager.save_data()
    (record,) = json.loads((here / "user_cost.json").read_text()).values()
    assert (record["total_budget"], record["current_cost"], record["model_cost"]) == (4, 2, {"gpt-4o": 2})


def test_litellms_surface_knows_no_balance_and_no_marks(manager: BudgetManager) -> None:
    manager.top_up("alice", "$100", id="1")
    manager.set_limits("bob", "$1/day for o3")
    manager.block("carol")
    assert manager.get_users() == [] and manager.user_dict == {}
    assert not any(manager.is_valid_user(user) for user in ("alice", "bob", "carol", "1"))
    manager.create_budget(5, "alice")
    assert (manager.get_total_budget("alice"), manager.get_users()) == (5, ["alice"])
    del manager.user_dict["alice"]
    assert manager.balance("alice") == 100


def test_litellms_surface_follows_the_users_own_table(open_manager: OpenManager, here: Path) -> None:
    (here / "budgets.toml").write_text(
        '[user]\nlimits = ["$1/day"]\n[user.bob]\nlimits = ["$7/month", "$8"]\n[user.eve]\nlimits = ["unlimited"]\n'
        '[class.pro]\nusers = ["*@x"]\nlimits = ["$5/month", "$6/day"]\n'
    )
    manager = open_manager(file="budgets.toml")
    for user in ("ann", "bob", "a@x", "eve"):
        charge(manager, user, "0.5")
    said = {user: record["total_budget"] for user, record in manager.user_dict.items()}
    assert said == {"a@x": 5, "ann": 1, "bob": 7}
    assert [manager.get_current_cost(user) for user in said] == [0.5] * 3
    assert not manager.is_valid_user("eve")


def test_litellms_upkeep_leaves_all_budgets(manager: BudgetManager) -> None:
    """A method that rolls or writes one budget drops no other."""
    manager.set_limits("alice", "$3/12h", "$10/month", "$1/day for o3")
    charge(manager, "alice", "1")
    manager.user_dict["alice"]["last_updated_at"] -= 86_400
    manager.update_budget_all_users()
    manager.reset_on_duration("alice")
    assert sorted(manager.limits("alice")) == ["$1 per day for o3", "$10 per month", "$3 per 12h"]
    assert manager.remaining("alice").usd == 3
    manager.user_dict["alice"]["current_cost"] = 2.5
    manager.user_dict["alice"]["total_budget"] = 4
    assert manager.remaining("alice")[:2] == (Decimal("1.5"), "$4 per 12h")
    assert sorted(manager.limits("alice")) == ["$1 per day for o3", "$10 per month", "$4 per 12h"]
    manager.create_budget(6, "alice", "daily")
    assert sorted(manager.limits("alice")) == ["$1 per day for o3", "$6 per 1d"]


def test_runs_are_listed(open_manager: OpenManager) -> None:
    manager = open_manager(run_limits="$1, 10 calls")
    charge(manager, "alice", "0.25", runs=("a",))
    manager.set_limits("run:b", "$2", "$1 for o3")
    manager.block("run:b")
    found = {run.id: run for run in manager.runs()}
    assert list(found) == ["a", "b"] and found["a"] == manager.run("a")
    assert found["a"][1:6] == (Decimal("0.25"), 0, Decimal("0.75"), ["10 calls", "$1"], False)
    assert found["b"][1:6] == (0, 0, 0, ["$2", "$1 for o3"], True)
    assert manager.run("never")[1:6] == (0, 0, 1, ["10 calls", "$1"], False)
    assert abs(found["a"].created_at.timestamp() - time.time()) < 600


def test_what_cannot_be_read_changes_nothing(manager: BudgetManager) -> None:
    manager.set_limits("alice", "$1/day")
    bad: list[Callable[[], object]] = [
        lambda: manager.set_limits("alice"),
        lambda: manager.set_limits("alice", "$5", "1 elephant"),
        lambda: manager.set_limits("alice", "$5", "$6"),
        lambda: manager.set_limits("", "$5"),
        lambda: manager.block("team: x"),
        lambda: list(manager.subjects("teams")),
        lambda: manager.run(""),
    ]
    for each in bad:
        with pytest.raises(BudgetInputError):
            each()
    assert manager.limits("alice") == ["$1 per day"]


def test_amounts_are_decimals_too(open_manager: OpenManager) -> None:
    manager = open_manager(user_limits="credit, $1/day")
    manager.top_up("alice", Decimal("2.5"), id="a")
    manager.top_up("alice", 1, id="b")
    manager.raise_limit("alice", Decimal("0.5"), until=datetime.now(timezone.utc) + timedelta(hours=1))
    assert (manager.balance("alice"), manager.remaining("alice").usd) == (Decimal("3.5"), Decimal("1.5"))


def test_wrong_types_are_said(manager: BudgetManager) -> None:
    for ask in (
        lambda: manager.usage(since="2026-11-01"),  # type: ignore[arg-type]
        lambda: manager.raise_limit("alice", "$1", until="tomorrow"),  # type: ignore[arg-type]
        lambda: manager.set_limits("project:another", "$1"),
        lambda: parse_limits(None),  # type: ignore[arg-type]
    ):
        with pytest.raises(BudgetInputError):
            ask()


def test_a_window_that_is_yet_to_open_shows_what_it_will_begin_with(open_manager: OpenManager) -> None:
    charge(open_manager(user_limits="$100/day"), "alice", "0.5")
    assert open_manager(user_limits="$2/month").remaining("alice").usd == Decimal("1.5")


def test_blocked_stays_blocked_when_litellms_budget_is_made(manager: BudgetManager) -> None:
    manager.block("alice")
    manager.set_limits("alice", "$9/month")
    manager.create_budget(5, "alice", "daily")
    assert manager.remaining("alice").blocked


def test_the_defaults_apply_again_to_a_user_who_was_deleted(open_manager: OpenManager) -> None:
    manager = open_manager(user_limits="$1/day")
    manager.set_limits("alice", "$5/day", "$2/day for gpt-4o*")
    del manager.user_dict["alice"]
    assert "$1 per day" in manager.limits("alice")
