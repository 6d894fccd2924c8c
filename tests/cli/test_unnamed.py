"""Limits that services have and the command's settings do not name: the command must not report that all is well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from litellm_budget_plugin.cli.doctor import findings
from litellm_budget_plugin.cli.doctor.store import limited
from litellm_budget_plugin.core.accounts import Amounts, Subject
from litellm_budget_plugin.core.commands import Read, Reserve, SetLimits, Settle
from litellm_budget_plugin.core.sentences import parse_limit, parse_limits
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.standing import unnamed_accounts
from litellm_budget_plugin.policy import Policy, as_defaults
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.protocol import Store, ask
from litellm_budget_plugin.stores.registry import open_store
from tests.cli.conftest import Command

ALICE = Subject("user", "alice")
DOLLAR = 10**9


@pytest.fixture
def store(on_file: Command) -> Iterator[Store]:
    with closing(open_store(on_file.url)) as opened:
        yield opened


_SAID = "against limits that these settings do not name"


def _charge(store: Store, sentence: str | None, subject: Subject = ALICE) -> None:
    """Charge a subject as a service does that has this limit in code; None: it has no limit, and only records."""
    limit = parse_limit(sentence or "unlimited")
    defaults = tuple(as_defaults(subject.scope, [limit]))
    ask(
        store,
        Settle(new_id(), "p", (subject,), ("m",), DOLLAR, "m", 5, defaults=defaults),
    )


@pytest.mark.parametrize("sentence", ["$10 per month", "100 calls/hour", "$2/day for m*", "5k tokens/hour"])
@pytest.mark.parametrize("subject", [ALICE, Subject("team", "search"), Subject("tag", "a"), Subject("project", "p")])
def test_a_limit_that_is_not_named_is_said(on_file: Command, store: Store, subject: Subject, sentence: str) -> None:
    _charge(store, sentence, subject)
    for words in (
        ("status",),
        ("top", "--once"),
        ("show", ":".join(subject) if subject.scope != "project" else "project"),
    ):
        done = on_file.run(*words, code=int(words == ("status",)))
        assert f"1 account counts {_SAID}" in done.stderr, done.output
        assert "LITELLM_BUDGET_USER_LIMITS" in done.stderr
    if subject.scope in ("user", "team"):
        assert _SAID in on_file.run(f"{subject.scope}s").stderr


def test_a_hold_is_enough_and_accounts_are_counted(on_file: Command, store: Store) -> None:
    defaults = tuple(as_defaults("user", parse_limits(("$10/day", "9 calls/day"))))
    hold = Reserve("hold", "p", (ALICE,), ("m",), Amounts(DOLLAR, 1), 60_000_000, defaults=defaults)
    ask(store, hold)
    _charge(store, "$5/month", Subject("user", "bob"))
    assert f"3 accounts count {_SAID}" in on_file.run("status", code=1).stderr


def test_the_same_settings_say_nothing(on_file: Command, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _charge(store, "$10 per month")
    monkeypatch.setenv("LITELLM_BUDGET_USER_LIMITS", "$10 per month")
    assert _SAID not in on_file.run("status").stderr


def test_no_false_alarm(on_file: Command, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no warning about spend that is only recorded, windows that have ended, limits set by hand, blocked subjects, and
    classes that calls name.
    """
    _charge(store, None)
    for name, sentence in (("a", "$9/day"), ("b", "$8/week")):
        _charge(store, sentence, Subject("user", name))
        ask(store, SetLimits(name, "p", Subject("user", name), parse_limits("$7/month"), ()))
    _charge(store, "$9/day", Subject("user", "c"))
    on_file.run("set", "c", "100 calls/hour")  # this replaces all of its limits
    on_file.run("block", "nobody")
    with open("limits.toml", "w", encoding="utf-8") as file:
        file.write('[class.paying]\nlimits = "$9 per week"\n')
    monkeypatch.setenv("LITELLM_BUDGET_FILE", "limits.toml")
    _charge(store, "$9 per week", Subject("user", "payer"))
    assert _SAID not in on_file.run("status").stderr


def test_a_window_that_has_ended_counts_nothing(store: Store) -> None:
    """Even a hold on it does not count: the next call counts in the next window, if there is a limit then."""
    _charge(store, "$1 per hour")
    [state] = ask(store, Read("p", *ALICE)).accounts
    assert unnamed_accounts(ALICE, [state], Policy({})) == 1
    assert unnamed_accounts(ALICE, [replace(state, ended=True)], Policy({})) == 0
    assert unnamed_accounts(ALICE, [replace(state, spent=0)], Policy({})) == 0


def test_what_was_recorded_before_there_were_limits(
    on_file: Command, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _charge(store, None)
    monkeypatch.setenv("LITELLM_BUDGET_USER_LIMITS", "$10 per month")
    assert _SAID not in on_file.run("status").stderr


def test_limits_that_come_with_a_run_do_not_fail_status(on_file: Command, store: Store) -> None:
    _charge(store, "$1", Subject("run", "42"))
    assert _SAID in on_file.run("status", code=0).stderr
    assert _SAID in on_file.run("runs").stderr and _SAID in on_file.run("show", "run:42").stderr


def test_a_limit_without_a_window_that_nothing_tells_from_a_record(
    on_file: Command, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning says that no limit is known; a refused call is a sign that there is one."""
    defaults = tuple(as_defaults("user", parse_limits("$1")))
    _charge(store, "$1")
    for words in (("status",), ("users",), ("top", "--once"), ("show", "alice")):
        assert "none of these has a limit set by hand" in on_file.run(*words).stderr
    subjects = (ALICE, Subject("project", "p"))
    ask(store, Reserve("none left", "p", subjects, ("m",), Amounts(DOLLAR, 1), 60_000_000, defaults=defaults))
    assert "though 1 call had no room since yesterday" in on_file.run("status", code=1).stderr
    monkeypatch.setenv("LITELLM_BUDGET_USER_LIMITS", "$1")
    assert "Warning" not in on_file.run("status", code=2).stderr  # at its limit
    monkeypatch.delenv("LITELLM_BUDGET_USER_LIMITS")
    on_file.run("set", "alice", "$5")
    assert "Warning" not in on_file.run("status").stderr


def test_calls_that_were_refused_before_anybody_spent(on_file: Command, store: Store) -> None:
    assert on_file.run("status").stderr == "nobody is near a limit\n"
    defaults = tuple(as_defaults("user", parse_limits("$0.01")))
    subjects = (ALICE, Subject("project", "p"))
    ask(store, Reserve("too dear", "p", subjects, ("m",), Amounts(DOLLAR, 1), 60_000_000, defaults=defaults))
    assert "though 1 call had no room since yesterday" in on_file.run("status", code=1).stderr


def test_doctor_warns(on_file: Command, store: Store) -> None:
    _charge(store, "$10 per month")
    policy = BudgetSettings().read_policy()
    assert limited(store, "p", policy) == (False, 1)
    named = BudgetSettings(user_limits="$10 per month").read_policy()
    assert limited(store, "p", named) == (False, 0)
    found = list(findings({}, lambda _: None))
    assert [one.state for one in found if _SAID in one.said] == ["warning"]
