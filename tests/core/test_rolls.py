"""Rolls: a window is opened once, by any caller and with bounds computed at any time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Default
from litellm_budget_plugin.core.commands import Roll, RollNeeded
from litellm_budget_plugin.core.windows import DAY, SECOND, bounds, parse_window
from tests.core.desk import NOON, Desk, limit, ref, rolls_asked

WINDOWS = ["90s", "12h", "7d", "day", "dayT06@America/New_York", "week:7", "month:31", "year"]


def asked(desk: Desk, command: Any) -> RollNeeded:
    reply = desk.execute(command)
    assert isinstance(reply, RollNeeded)
    return reply


@given(
    st.sampled_from(WINDOWS),
    st.integers(0, DAY // 2),
    st.lists(st.tuples(st.integers(0, 2 * SECOND), st.booleans()), min_size=2, max_size=6),
    st.randoms(use_true_random=False),
)
def test_however_many_race_a_window_rolls_once_and_every_charge_counts(
    window: str, later: int, racers: list[tuple[int, bool]], random: Any
) -> None:
    desk = Desk(limit(10_000, window))
    desk.charge(7)
    born = desk.account(window)
    assert born.end is not None
    desk.now = born.end - 1
    desk.granted("across", 11, expires_after=DAY)
    desk.now = born.end + later
    commands: list[Any] = []
    for number, (wait, settles) in enumerate(racers):
        plain = desk.settle_command(f"r{number}", 100) if settles else desk.reserve_command(f"r{number}", 100)
        commands.append(replace(plain, rolls=rolls_asked(asked(desk, plain))))
        desk.wait(wait)
    random.shuffle(commands)
    for command in commands:
        desk.ask(command)
    after = desk.account(window)
    settled = sum(settles for _, settles in racers)
    assert after.spent == 100 * settled
    assert after.held == 11 + 100 * (len(racers) - settled)
    assert after.epoch == born.epoch + 1
    assert after.end is not None
    assert after.start <= desk.now < after.end


@given(st.sampled_from(WINDOWS), st.lists(st.integers(0, 3 * SECOND), min_size=2, max_size=5))
def test_however_many_race_an_account_is_born_once(window: str, waits: list[int]) -> None:
    desk = Desk(limit(10_000, window))
    commands = []
    for number, wait in enumerate(waits):
        plain = desk.settle_command(f"r{number}", 100)
        commands.append(replace(plain, rolls=rolls_asked(asked(desk, plain))))
        desk.wait(wait)
    for command in reversed(commands):
        desk.ask(command)
    assert desk.account(window).spent == 100 * len(waits)
    assert desk.account(window).epoch == 0


@given(st.sampled_from(["90s", "12h", "7d"]), st.lists(st.integers(0, 100 * DAY), min_size=1, max_size=6))
def test_fixed_windows_of_an_account_do_not_drift(window: str, waits: list[int]) -> None:
    desk = Desk(limit(None, window))
    length = parse_window(window).length
    desk.charge(1)
    for wait in waits:
        desk.wait(wait)
        desk.charge(1)
        account = desk.account(window)
        assert (account.start - NOON) % length == 0
        assert account.start <= desk.now < account.start + length == account.end


@pytest.mark.parametrize(
    "roll",
    [
        pytest.param(Roll(ref("day"), None, NOON - DAY // 2, NOON + 3 * DAY), id="for a new account"),
        pytest.param(Roll(ref("day"), NOON, NOON - DAY, NOON + 3 * DAY), id="another old end"),
        pytest.param(Roll(ref("12h"), NOON + DAY // 2, NOON + DAY, NOON + 2 * DAY), id="another account"),
        pytest.param(Roll(ref("day"), NOON + DAY // 2, NOON + DAY + 1, NOON + 2 * DAY), id="begins later"),
        pytest.param(Roll(ref("day"), NOON + DAY // 2, NOON, NOON + DAY), id="already over"),
    ],
)
def test_a_roll_that_does_not_fit_is_asked_for_again(roll: Roll) -> None:
    desk = Desk(limit(100, "day"))
    desk.charge(5)
    desk.wait(DAY)
    command = replace(desk.settle_command("a", 1), rolls=(roll,))
    assert [due.ref for due in asked(desk, command).due] == [ref("day")]
    assert desk.account("day").spent == 5


def test_a_roll_that_nobody_needs_is_ignored() -> None:
    desk = Desk(limit(100, "day"))
    desk.charge(5)
    before = desk.account("day")
    roll = Roll(ref("day"), before.end, NOON - DAY, NOON + 30 * DAY)
    desk.execute(replace(desk.settle_command("a", 1), rolls=(roll,)))
    after = desk.account("day")
    assert (after.start, after.end, after.epoch, after.spent) == (before.start, before.end, before.epoch, 6)


@given(
    st.integers(0, 500),
    st.integers(0, 1_000),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 1_500), st.integers(1, 3)), min_size=1, max_size=6),
)
def test_a_carried_rest_never_exceeds_its_cap_nor_what_was_left(
    cap: int, allowed: int, pinned: bool, windows: list[tuple[int, int]]
) -> None:
    default = Default("user", "day", allowed, carry_over=0 if pinned else cap)
    desk = Desk(default)
    if pinned:
        desk.put("pin", limit=allowed, carry_over=cap)
    carried, idle = 0, 1
    for cost, days in windows:
        desk.charge(cost)
        account = desk.account("day")
        assert account.spent == cost
        assert account.carried == carried if idle == 1 else carried <= account.carried <= cap
        assert account.effective_limit(default, desk.now) == allowed + account.carried
        carried = min(cap, max(0, allowed + account.carried - cost))
        desk.now, _ = bounds(parse_window("day"), desk.now + days * DAY)
        idle = days
        state = desk.states()[0]
        assert (state.ended, state.spent) == (True, 0)
        assert state.limit == allowed + state.carried
        assert carried <= state.carried <= cap


def test_a_carried_rest_can_be_spent() -> None:
    desk = Desk(limit(100, "90s", carry_over=30))
    desk.charge(60)
    desk.wait(90 * SECOND)
    assert desk.refused("a", 131).limit == 130
    desk.granted("b", 130)


def test_nothing_is_carried_where_there_is_no_limit() -> None:
    desk = Desk(limit(None, "90s", carry_over=30))
    desk.charge(1)
    desk.wait(90 * SECOND)
    desk.charge(1)
    assert desk.account("90s").carried == 0


@pytest.mark.parametrize(
    ("window", "jump"), [("90s", 3_600 * SECOND), ("day", 40 * DAY), ("month", 400 * DAY), ("7d", 30 * DAY)]
)
def test_a_clock_that_jumped_ahead_for_a_moment_locks_nobody_out(window: str, jump: int) -> None:
    desk = Desk(limit(100, window))
    desk.charge(1)
    desk.wait(jump)
    desk.charge(100)
    desk.wait(-jump)
    assert [(state.spent, state.ended) for state in desk.states()] == [(0, True)]
    desk.granted("a", 60)
    assert desk.spent_held(window) == (0, 60)
    [state] = desk.states()
    assert state.start <= desk.now < (state.end or 0)


@pytest.mark.parametrize("window", ["90s", "day", "month", "7d"])
def test_a_clock_that_is_set_back_a_little_does_not_empty_a_window(window: str) -> None:
    desk = Desk(limit(100, window))
    desk.charge(1)
    end = desk.states()[0].end
    assert end is not None
    desk.wait(end - desk.now)
    desk.charge(70)
    desk.wait(-60 * SECOND)
    assert desk.refused("a", 60).spent == 70
