"""Every attempt is charged once: a separate model computes the final totals and accounts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject, Usage
from litellm_budget_plugin.core.commands import Closed, Granted, Refused, Released, Settled
from litellm_budget_plugin.core.windows import DAY, SECOND
from tests.core.desk import ALICE, BLUE, BOB, TTL, Desk, snapshot
from tests.generated import examples

SUBJECTS = (ALICE, BOB, BLUE)
DEFAULTS = (
    Default("user", "none", 400),
    Default("team", "none", None),
    Default("user", "none", 9, unit="calls"),
    Default("team", "none", 900, "gpt-4o", unit="tokens"),
)


@dataclass(frozen=True)
class Attempt:
    """The amounts that one attempt wants, and its actual cost."""

    subjects: tuple[Subject, ...]
    models: tuple[str, ...]
    want: Amounts
    floor: Amounts
    cost: int
    calls: int
    input_tokens: int
    output_tokens: int

    @property
    def charge(self) -> Usage:
        return Usage(self.cost, self.calls, self.input_tokens, self.output_tokens)


@dataclass
class Story:
    """The replies for one attempt."""

    granted: Amounts | None = None
    refused: bool = False
    settled: bool = False
    released: bool = False
    replies: list[Any] = field(default_factory=list)


AMOUNTS = st.builds(Amounts, st.integers(0, 300), st.integers(0, 2), st.integers(0, 90))
SUBJECT_SETS = st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=3, unique=True).map(tuple)
MODELS = st.sampled_from([("gpt-4o",), ("claude",), ("gpt-4o-mini", "gpt-4o")])
COSTS = st.integers(0, 200)
ATTEMPTS = st.builds(Attempt, SUBJECT_SETS, MODELS, AMOUNTS, AMOUNTS, COSTS, st.integers(0, 1), COSTS, COSTS)
ACTIONS = st.tuples(
    st.sampled_from(["reserve", "reserve", "settle", "release", "renew", "look", "sweep"]),
    st.integers(0, 3),
    st.sampled_from([0, 0, 1, SECOND, TTL, DAY]),
)


def take(desk: Desk, kind: str, hold: str, attempt: Attempt) -> Any:
    if kind == "reserve":
        return desk.reserve(hold, *attempt.want, subjects=attempt.subjects, models=attempt.models, floor=attempt.floor)
    if kind == "settle":
        fields = {"calls": attempt.calls, "input_tokens": attempt.input_tokens, "output_tokens": attempt.output_tokens}
        return desk.settle(
            hold, attempt.cost, subjects=attempt.subjects, models=attempt.models, model="answer", **fields
        )
    if kind == "release":
        return desk.release(hold)
    if kind == "renew":
        return desk.renew(hold)
    if kind == "sweep":
        return desk.sweep(days_kept=DAY)
    return desk.states()


def note(story: Story, kind: str, reply: Any) -> None:
    if kind == "reserve":
        closed = story.settled or story.released
        if (closed and not story.refused) or (closed and story.settled):
            assert isinstance(reply, Closed)
        if isinstance(reply, Granted):
            assert story.granted in (None, reply.amounts)
            story.granted = reply.amounts
        story.refused = story.refused or isinstance(reply, Refused)
    elif kind == "settle":
        assert isinstance(reply, Settled)
        story.settled = True
    elif kind == "release":
        assert isinstance(reply, Released)
        story.released = True


def charged(attempt: Attempt, story: Story) -> Usage:
    """The totals that one attempt must leave, except for its refusal."""
    if story.settled:
        return attempt.charge
    if story.granted is None or story.released:
        return Usage()
    floor = attempt.floor.at_most(story.granted)
    return Usage(floor.usd, floor.calls, floor.tokens, unsettled=1)


def spent_in(unit: str, usage: Usage) -> int:
    return {"usd": usage.spent, "calls": usage.calls, "tokens": usage.input_tokens + usage.output_tokens}[unit]


@examples(250)
@given(st.lists(ATTEMPTS, min_size=4, max_size=4), st.lists(ACTIONS, max_size=30))
def test_commands_in_any_order_and_number_charge_each_attempt_once(
    attempts: list[Attempt], actions: list[tuple[str, int, int]]
) -> None:
    desk = Desk(*DEFAULTS)
    stories = [Story() for _ in attempts]
    for kind, number, wait in actions:
        desk.wait(wait)
        reply = take(desk, kind, f"h{number}", attempts[number])
        note(stories[number], kind, reply)
        before = snapshot(desk.book)
        again = take(desk, kind, f"h{number}", attempts[number])
        assert snapshot(desk.book) == before
        if kind != "sweep":
            assert again == reply
    desk.wait(TTL)
    desk.sweep()
    for subject in SUBJECTS:
        owed = Usage()
        for attempt, story in zip(attempts, stories):
            if subject in attempt.subjects:
                owed = owed.plus(charged(attempt, story)).plus(Usage(refusals=int(story.refused)))
        assert desk.totals(subject) == owed
        for state in desk.states(subject):
            applies = [
                spent_in(state.ref.unit, charged(attempt, story))
                for attempt, story in zip(attempts, stories)
                if subject in attempt.subjects and state.ref.model in ("", *attempt.models)
            ]
            assert (state.spent, state.held) == (sum(applies), 0)
            assert sum(amount for _, amount in state.models) == state.spent


@given(ATTEMPTS, st.permutations(["reserve", "settle", "release", "reserve", "settle", "release", "sweep"]), st.data())
def test_every_order_with_a_settlement_converges_to_its_cost(
    attempt: Attempt, order: list[str], data: st.DataObject
) -> None:
    desk = Desk(*DEFAULTS)
    for kind in order:
        desk.wait(data.draw(st.sampled_from([0, TTL])))
        take(desk, kind, "h", attempt)
    desk.wait(TTL)
    desk.sweep()
    for subject in attempt.subjects:
        assert desk.totals(subject)._replace(refusals=0) == attempt.charge
        assert {(state.spent, state.held) for state in desk.states(subject)} <= {
            (spent_in(unit, attempt.charge), 0) for unit in ("usd", "calls", "tokens")
        }
