"""The due alerts, each sent once, on one ledger with a test clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import PutBudget, Read, ReadUsage, Reserve, Reset, SetLimits, Settle, TopUp
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreUnavailable
from litellm_budget_plugin.manager.alerts.alert import Alert
from litellm_budget_plugin.metrics.process import ProcessMetrics
from litellm_budget_plugin.metrics.server import ServerMetrics
from tests.alerts.conftest import Clocked, Process

ALICE = Subject("user", "alice")
Make = Callable[..., Process]


def test_each_threshold_is_alerted_once_and_money_held_counts(process: Make) -> None:
    one = process(user_limits="$1")
    hold = one.hold("0.79")
    one.tick()
    assert one.said() == []
    other = one.hold("0.01")
    one.tick()
    assert one.said() == [("threshold", "alice", 80)]
    assert one.sent[0].text == "user 'alice' has used 80 % of $1; $0 spent, $0.80 held for calls in flight"
    one.charge("0.79", hold=hold)
    one.charge("0.21", hold=other)
    one.charge("0.5")
    for _ in range(3):
        one.tick(100)
    assert one.said() == [("threshold", "alice", 80), ("threshold", "alice", 100)]


@pytest.mark.parametrize("spent", ["0.8", "0.85", "1", "1.01", "1.5", "3"])
def test_thresholds_that_one_charge_passes_are_told_apart(process: Make, spent: str) -> None:
    one = process(user_limits="$1/day", alert_at="50,80,100,150")
    one.charge(spent)
    one.tick()
    used = int(float(spent) * 100)
    assert [alert.threshold for alert in one.sent] == [each for each in (50, 80, 100, 150) if each <= used]
    for alert in one.sent:
        passed = "" if alert.threshold == used else f" (alert at {alert.threshold} %)"
        assert alert.text.startswith(f"user 'alice' has used {used} % of $1 per day{passed}; ")


def test_two_processes_send_it_once_and_one_that_comes_later_does_not(process: Make) -> None:
    one, two = process(user_limits="$1"), process(user_limits="$1")
    for each in (one, two):
        each.charge("0.41")
    for _ in range(3):
        one.tick()
        two.tick()
    later = process(user_limits="$1")
    later.charge("0.01")
    for _ in range(3):
        later.tick(40)
    assert sorted([*one.said(), *two.said(), *later.said()]) == [("threshold", "alice", 80)]


def test_a_new_window_a_reset_and_another_limit_alert_anew(process: Make, store: Clocked) -> None:
    one = process(user_limits="$1/day", alert_at="80")
    one.charge("0.9")
    one.tick()
    one.ask(Reset("reset", "p", ALICE))
    one.tick(70)
    one.charge("0.9")
    one.tick()
    store.now += DAY
    one.tick()
    assert len(one.sent) == 2
    one.charge("0.9")
    one.tick()
    assert len(one.sent) == 3
    one.ask(SetLimits("lower", "p", ALICE, parse_limits("$0.95/day")))
    one.tick(70)
    assert len(one.sent) == 4 and len({alert.id for alert in one.sent}) == 4
    assert str(one.sent[-1].limit) == "0.95"


@pytest.mark.parametrize(
    ("limits", "unit"),
    [("$1/day", "usd"), ("4 calls/hour", "calls"), ("40 tokens", "tokens"), ("$1/day for gpt*", "usd")],
)
def test_every_unit_window_and_model(process: Make, limits: str, unit: str) -> None:
    one = process(user_limits=limits, alert_at="80")
    for _ in range(3):
        one.charge("0.25")
    one.tick()
    assert one.said() == []
    one.charge("0.25")
    one.tick()
    assert [(alert.unit, alert.budget) for alert in one.sent] == [(unit, one.sent[0].budget)]
    assert one.sent[0].budget is not None and parse_limits(one.sent[0].budget) == parse_limits(limits)


@pytest.mark.parametrize("scope", ["user", "team", "tag", "run", "project"])
def test_every_scope_by_a_call_and_by_the_scan(process: Make, scope: str) -> None:
    subject = Subject(scope, "p" if scope == "project" else "x")
    one = process(**{f"{scope}_limits": "$1"}, alert_at="80")
    one.client.watched = []  # as if another process had charged it and was killed
    one.charge("0.9", subject)
    for _ in range(8):
        one.tick()
    assert one.said() == [("threshold", subject.id, 80)]


def test_balances_blocked_accounts_and_those_without_a_limit(process: Make) -> None:
    one = process(alert_at="80")
    one.ask(TopUp("paid", "p", ALICE, 10**9))
    one.charge("0.9")
    one.charge("5", Subject("user", "unlimited"))
    one.ask(SetLimits("zero", "p", Subject("user", "zero"), parse_limits("$0")))
    one.charge("5", Subject("user", "zero"))
    one.ask(SetLimits("blocked", "p", Subject("user", "bob"), parse_limits("$1")))
    one.charge("0.9", Subject("user", "bob"))
    one.block("bob")
    one.tick()
    assert one.said() == [("threshold", "alice", 80)] and one.sent[0].budget == "a balance of $1"


def test_a_refusal_is_alerted_once_in_a_window(process: Make, store: Clocked) -> None:
    one = process(user_limits="$1/day", alert_at="100")
    for _ in range(2):
        for _ in range(3):
            one.hold("2")
            one.tick()
        store.now += DAY
    assert one.said() == [("refused", "alice", None)] * 2
    one.block("bob")
    one.hold("0.1", Subject("user", "bob"))
    one.tick()
    assert one.sent[-1].text == "user 'bob' is blocked, and has all calls refused"


CHANGES: dict[str, Callable[[Process], object]] = {
    "a raise": lambda one: one.ask(
        PutBudget(
            "raise", "p", ALICE, raised_by=500_000_000, raised_until=one.store.now + DAY, defaults=one.defaults(ALICE)
        )
    ),
    "another limit": lambda one: one.ask(SetLimits("more", "p", ALICE, parse_limits("$1.5/day"))),
    "a limit of nothing": lambda one: one.ask(SetLimits("zero", "p", ALICE, parse_limits("$0/day"))),
    "a block": lambda one: one.block("alice"),
}


@pytest.mark.parametrize("limit", ["$1/day", "$0/day"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_refusal_after_a_change_is_alerted_anew(process: Make, change: str, limit: str) -> None:
    one = process(user_limits=limit, alert_at="1000")
    for _ in range(2):
        one.hold("2")
        one.tick()
    CHANGES[change](one)
    for _ in range(2):
        one.hold("2")
        one.tick()
    anew = (change, limit) != ("a limit of nothing", "$0/day")
    assert one.said() == [("refused", "alice", None)] * (2 if anew else 1)
    assert len({(alert.id, alert.text) for alert in one.sent}) == len(one.sent)


def test_thresholds_of_the_file_go_before_the_setting(process: Make, tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(
        '[user]\nlimits = ["$1"]\nalert_at = [50]\n[user.alice]\nalert_at = [90]\n[user.bob]\nalert_at = []\n'
        '[class.big]\nusers = ["carol"]\nlimits = ["$10"]\nalert_at = [10]\n[team]\nlimits = ["$1"]\n'
    )
    one = process(file=str(file), alert_at="70")
    one.client.watched = []
    for subject in (ALICE, *(Subject("user", each) for each in ("bob", "dora")), Subject("team", "t")):
        one.charge("0.85", subject)
    one.charge("1.5", Subject("user", "carol"))
    for _ in range(8):
        one.tick()
    assert sorted(one.said(), key=str) == [
        ("threshold", "carol", 10), ("threshold", "dora", 50), ("threshold", "t", 70),
    ]  # fmt: skip
    one.charge("0.1")
    one.tick(70)
    assert one.said()[-1] == ("threshold", "alice", 90)


def test_claims_are_in_no_list_and_no_total(process: Make) -> None:
    one = process(user_limits="$1", project_limits="$10")
    one.charge("0.9", ALICE, Subject("project", "p"))
    one.tick()
    assert len(one.claims()) == 3  # two for the channels, and one for the scan
    for scope in ("user", "team", "tag", "run", "project", "alert"):
        rows = one.ask(ReadUsage("p", scope)).rows
        assert {key.scope for key, _ in rows} == ({scope} if scope in ("user", "project") else set())
        assert sum(usage.calls for _, usage in rows) == (1 if scope in ("user", "project") else 0)
    (state,) = one.ask(Read("p", "project", "p", defaults=one.defaults())).accounts
    assert state.spent == 900_000_000


def test_claims_are_forgotten_when_their_window_is_over(process: Make, store: Clocked) -> None:
    one = process(user_limits="$1/day", alert_at="80")
    one.charge("0.9")
    one.tick()
    one.tick(3601)
    assert len(one.claims()) == 3
    store.now += 2 * DAY
    one.tick(3601)
    assert one.claims() == ["scan"]


def test_claims_are_forgotten_in_one_round_and_looked_at_once_an_hour(process: Make, store: Clocked) -> None:
    """With many users there are more claims in an hour than one step handles."""
    one = process()
    one.tick()
    for end, many in ((store.now - 2 * DAY, 1100), (store.now + 2 * DAY, 250)):
        for number in range(many):
            claim = one.watch.sender.claims.take(f"{end:017d}-{number} log")
            if claim:
                one.watch.sender.claims.done(claim)
    one.tick(3601)
    store.commands.clear()
    for _ in range(15):
        one.tick()
    assert len(one.claims()) == 251  # one is for the scan
    looks = [each for each in store.commands if isinstance(each, Read) and each.scope == "alert" and not each.subject]
    assert 0 < len(looks) <= 15
    store.commands.clear()
    for _ in range(20):
        one.tick()
    assert [each for each in store.commands if isinstance(each, Read) and each.scope == "alert"] == []


def test_an_alert_that_was_not_sent_is_sent_later_by_anybody(process: Make, store: Clocked) -> None:
    def broken(alert: Alert) -> None:
        raise OSError(alert.id)

    one, two = process(broken, user_limits="$1", alert_at="80"), process(user_limits="$1", alert_at="80")
    one.charge("0.9")
    one.tick()
    two.tick()
    assert two.said() == []  # the first one has the claim, and will try again
    for _ in range(20):
        one.tick(10)
    two.charge("0.01")
    for _ in range(3):
        two.tick(61)
    assert two.said() == [("threshold", "alice", 80)]
    assert broken is not None and store.failure is None


def test_the_lease_of_a_process_that_died_ends(process: Make) -> None:
    one, two = process(user_limits="$1", alert_at="80"), process(user_limits="$1", alert_at="80")
    one.charge("0.9")
    one.watch.run()
    for sending in one.watch.sender._waiting.values():
        assert one.watch.sender._hold(sending)  # now the process is killed
    two.charge("0.01")
    two.tick(30)
    two.tick(16)
    assert two.said() == []
    two.tick(16)
    assert two.said() == [("threshold", "alice", 80)]


def test_an_outage_and_its_end_are_told_once(process: Make, store: Clocked, caplog: pytest.LogCaptureFixture) -> None:
    one = process(user_limits="$1")
    one.tick()
    store.failure = BudgetStoreUnavailable("no answer of postgresql://budgets:SECRET@10.0.0.7/ledger")
    for _ in range(10):
        with pytest.raises(BudgetStoreUnavailable):
            one.charge("0.1")
    one.tick()
    assert one.said() == [("outage", None, None)]
    assert one.sent[0].text == "the budget ledger does not answer; the log of this process says why"
    assert "10.0.0.7" not in repr(one.sent) and caplog.text.count("10.0.0.7") == 1
    store.failure = None
    one.charge("0.1")
    one.tick(5)
    assert one.said() == [("outage", None, None), ("recovered", None, None)]
    assert one.sent[1].text == "the budget ledger answers again, after 6 s"


def test_a_journal_that_fills_is_told_once(process: Make, store: Clocked) -> None:
    one = process(user_limits="$1")
    one.worker.delivery.most = 10
    store.failure = BudgetStoreUnavailable("gone")
    for number in range(12):
        with pytest.raises(BudgetStoreUnavailable):
            one.charge("0.1")
        one.worker.delivery.put(PutBudget(str(number), "p", ALICE))  # type: ignore[arg-type]  # anything that waits
        one.watch.sender._step(1.0)
        assert one.said().count(("journal", None, None)) == (number >= 8)


def test_a_ledger_without_claims_has_alerts_once_per_process(process: Make, store: Clocked) -> None:
    one = process(user_limits="$1", alert_at="80")
    execute = store.execute

    def refusing(command: object, timeout: float | None = None) -> object:
        if getattr(command, "scope", "") == "alert":
            raise BudgetInputError("a scope must be one of user, team")
        return execute(command, timeout)

    store.execute = refusing  # type: ignore[method-assign]
    for _ in range(3):
        one.charge("0.9")
        one.tick()
    assert one.said() == [("threshold", "alice", 80)]


def test_what_nobody_asked_for_is_not_alerted(process: Make) -> None:
    assert process(alert_at="off").settings.alert_per_cents is None
    one = process(user_limits="$1")
    one.charge("0.79")
    for _ in range(5):
        one.tick(61)
    assert one.sent == []


def test_a_claim_that_is_done_is_only_read(process: Make, store: Clocked) -> None:
    """A refused Reserve would leave a mark each time."""
    one, later = process(user_limits="$1", alert_at="80"), process(user_limits="$1", alert_at="80")
    one.charge("0.9")
    one.tick()
    later.charge("0.01")
    store.commands.clear()
    for _ in range(10):
        later.tick(61)
    held = [each for each in store.commands if isinstance(each, Reserve) and each.subjects[0].id != "scan"]
    assert later.watch.sender.waiting == 0 and held == []


def test_what_was_touched_is_looked_at_again_when_the_store_comes_back(process: Make, store: Clocked) -> None:
    one = process(user_limits="$1", alert_at="80")
    one.charge("0.9")
    store.failure = BudgetStoreUnavailable("gone")
    one.tick()
    one.watch._lead_at = one.watch._foresee_at = 1e18  # no scan finds it
    store.failure = None
    one.tick()
    assert one.said() == [("threshold", "alice", 80)]


def test_a_store_that_comes_and_goes_is_told_once_a_minute(process: Make, store: Clocked) -> None:
    one = process(user_limits="$1")
    for _ in range(10):
        store.failure = BudgetStoreUnavailable("gone")
        for _ in range(3):
            with pytest.raises(BudgetStoreUnavailable):
                one.charge("0.01")
        store.failure = None
        one.charge("0.01")
        one.tick(9)
    assert one.said().count(("outage", None, None)) == one.said().count(("recovered", None, None)) == 2


def test_a_scan_asks_for_single_subjects_only_near_their_limits(process: Make, store: Clocked, tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text('[class.big]\nusers = ["u*"]\nlimits = ["$10/day"]\n')
    one = process(file=str(file))
    one.client.watched = []
    for number in range(20):
        one.charge("9" if number == 7 else "0.01", Subject("user", f"u{number}"))
    store.commands.clear()
    for _ in range(6):
        one.tick()
    assert {each.subject for each in store.commands if isinstance(each, Read) and each.scope == "user"} == {None, "u7"}
    assert one.said() == [("threshold", "u7", 80)]


def test_metrics_count_no_claims(process: Make, store: Clocked) -> None:
    registry, one, server = CollectorRegistry(), process(user_limits="$1"), ServerMetrics()
    one.client.observing.add("p", ProcessMetrics(registry), one.worker)
    one.charge("0.9")
    one.tick()
    for command in list(store.commands):
        if isinstance(command, (Reserve, Settle)):
            server.observe_reply(command, store.execute(command), 0.001)
    for text in (generate_latest(registry).decode(), server.exposition()[0].decode()):
        spent = [line for line in text.splitlines() if line.startswith("litellm_budget_spend_usd_total{")]
        assert spent == ['litellm_budget_spend_usd_total{model="gpt",project="p"} 0.9']
        assert "reserve_seconds_count{" not in text
