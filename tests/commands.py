"""Hypothesis strategies for the ledger's commands, shared by the tests of core and of every store.

The pools are small on purpose. Ids collide, so commands are repeated, late, reordered, or for holds of another kind.
Limits and requested amounts have similar sizes, so refusals are as frequent as grants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import NOTHING, Amounts, Default, Ref, Subject
from litellm_budget_plugin.core.commands import (
    KEEP,
    Command,
    DropBudget,
    PutBudget,
    Read,
    ReadUsage,
    Release,
    Renew,
    Reply,
    Reserve,
    Reset,
    Roll,
    RollNeeded,
    SetLimits,
    Settle,
    Sweep,
    TopUp,
)
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.stores.protocol import rolls_for

Execute = Callable[[Command], Reply]

START = 1_774_734_000 * SECOND
"""The time at which a list begins: 2026-03-28 21:40 UTC, a few hours before clocks change and days before April."""

PROJECTS = ("app", "größe")
SUBJECTS = (
    Subject("user", "alice"),
    Subject("user", "bob"),
    # In UTF-16 the second of these sorts before the first; by code points, which the package uses, it sorts after.
    Subject("user", "\uff5e"),
    Subject("user", "\U0001f600"),
    Subject("team", "blue"),
    Subject("project", "app"),
)
MODELS = ("", "gpt-4o", "gpt-4o-mini", "gpt-4o*", "claude")
WINDOWS = ("none", "90s", "12h", "7d", "day@UTC", "week:7@UTC", "month@UTC", "month@Europe/Berlin")
HOLDS = tuple(f"h{number}" for number in range(20))
CHANGES = tuple(f"c{number}" for number in range(6))
PAYMENTS = tuple(f"invoice-{number}" for number in range(8))

DEFAULTS: tuple[tuple[Default, ...], ...] = (
    (),
    (Default("user", "none", 1000),),
    (Default("user", "none", 2500), Default("project", "day@UTC", 4000)),
    (Default("user", "90s", 800, carry_over=300), Default("team", "12h", 1500)),
    (Default("user", "month@Europe/Berlin", None), Default("user", "7d", 1200, "gpt-4o*")),
    (
        Default("user", "none", 3, unit="calls"),
        Default("user", "day@UTC", 500, unit="tokens"),
        Default("user", "none", 900),
    ),
    (Default("user", "day@UTC", 0), Default("user", "none", None), Default("project", "week:7@UTC", 2**53 - 1)),
    (
        Default("user", "day@UTC", 1000),
        Default("user", "month@UTC", 2000),
        Default("user", "day@UTC", 700, "gpt-4o*"),
        Default("user", "day@UTC", 3000, subject="bob"),
        Default("user", "credit", 0, subject="alice"),
        Default("user", "none", None, subject="alice"),
    ),
)

small_amounts = st.builds(Amounts, st.integers(0, 1200), st.integers(0, 2), st.integers(0, 300))
expiries = st.sampled_from((SECOND, 120 * SECOND, DAY))
defaults = st.sampled_from(DEFAULTS)
models = st.sampled_from(((), ("gpt-4o",), ("gpt-4o", "gpt-4o*"), ("gpt-4o-mini", "gpt-4o*"), ("claude", "gpt-4o")))
holds = st.sampled_from(HOLDS)


def mostly(usual: Any, strategy: st.SearchStrategy[Any], times: int = 3) -> st.SearchStrategy[Any]:
    """Draw `usual` in about `times` of `times + 1` draws, else from `strategy`."""
    # Not one_of(just, just, just, strategy): it removes repetitions and flattens nested choices.
    return st.integers(0, times).flatmap(lambda drawn: strategy if drawn == times else st.just(usual))


several_subjects = mostly(SUBJECTS[:1], st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=3).map(tuple), 1)
projects = mostly(PROJECTS[0], st.just(PROJECTS[1]), 5)

amounts = mostly(Amounts(400, 1, 100), small_amounts | st.just(Amounts(2**53 - 1)), 1)

stale_rolls = st.tuples(
    st.builds(
        Roll,
        st.builds(Ref, st.just("user"), st.just("alice"), st.sampled_from(MODELS), st.sampled_from(WINDOWS)),
        st.one_of(st.none(), st.just(START)),
        st.just(START - SECOND),
        st.one_of(st.none(), st.just(START + DAY)),
        mostly((), st.just((("gpt-4o", 300), ("claude", 50)))),
    )
)
"""Rolls that were not requested: for another account, or for a window that has moved since."""

reserves = st.builds(
    Reserve,
    hold=holds,
    project=projects,
    subjects=several_subjects,
    models=models,
    want=amounts,
    expires_after=expiries,
    defaults=defaults,
    floor=mostly(NOTHING, amounts, 1),
    at_least=mostly(None, st.integers(0, 400)),
    replaces=mostly(None, holds),
    cheap=mostly(False, st.just(True), 7),
    patient=mostly(False, st.just(True)),
    rolls=mostly((), stale_rolls, 9),
)

settles = st.builds(
    Settle,
    hold=holds,
    project=projects,
    subjects=several_subjects,
    models=models,
    cost=st.integers(0, 900),
    model=st.sampled_from(("gpt-4o", "gpt-4o-2024-08-06", "claude", "")),
    input_tokens=st.integers(0, 200),
    output_tokens=st.integers(0, 200),
    calls=st.integers(0, 1),
    defaults=defaults,
    parent=mostly(None, holds, 7),
    aliases=mostly((), st.tuples(st.sampled_from(("resp-1", "resp-2")))),
    unless=mostly(None, st.sampled_from(("resp-1", "resp-2"))),
    at=mostly(None, st.integers(START - 3 * DAY, START + 60 * DAY)),
    rolls=mostly((), stale_rolls, 9),
)

put_budgets = st.builds(
    PutBudget,
    id=st.sampled_from(CHANGES),
    project=projects,
    subject=st.sampled_from(SUBJECTS),
    model=mostly("", st.sampled_from(MODELS), 1),
    unit=mostly("usd", st.sampled_from(("calls", "tokens"))),
    window=mostly(KEEP, st.sampled_from(WINDOWS), 1),
    limit=st.one_of(st.just(KEEP), st.none(), st.integers(0, 3000)),
    blocked=mostly(KEEP, st.booleans()),
    raised_by=mostly(KEEP, st.integers(0, 1000)),
    raised_until=mostly(KEEP, st.integers(START, START + 40 * DAY)),
    carry_over=mostly(KEEP, st.integers(0, 500)),
    created_at=mostly(KEEP, st.integers(0, START)),
    bounds=mostly(KEEP, st.tuples(st.just(START - DAY), st.one_of(st.none(), st.integers(START, START + 3 * DAY)))),
    spent=mostly(
        KEEP, st.dictionaries(st.sampled_from(MODELS), st.integers(0, 900), max_size=3).map(lambda d: tuple(d.items()))
    ),
    only=st.booleans(),
    defaults=defaults,
)


def _on_budgets(kind: Any) -> st.SearchStrategy[Any]:
    return st.builds(
        kind,
        id=st.sampled_from(CHANGES),
        project=projects,
        subject=st.sampled_from(SUBJECTS),
        model=mostly(None, st.sampled_from(MODELS)),
        window=mostly(None, st.sampled_from(WINDOWS)),
    )


set_limits = st.builds(
    SetLimits,
    id=st.sampled_from(CHANGES),
    project=projects,
    subject=st.sampled_from(SUBJECTS[:5]),
    limits=mostly(
        None,
        st.lists(
            st.builds(
                Limit,
                amount=st.one_of(st.none(), st.integers(0, 3000)),
                window=st.sampled_from(WINDOWS),
                model=mostly("", st.sampled_from(MODELS), 1),
                unit=mostly("usd", st.sampled_from(("calls", "tokens"))),
            )
            | st.just(Limit(0, "credit")),
            max_size=3,
            unique_by=lambda limit: limit[1:],
        ).map(tuple),
        1,
    ),
    defaults=defaults,
)
top_ups = st.builds(
    TopUp,
    id=st.sampled_from(PAYMENTS),
    project=projects,
    subject=mostly(SUBJECTS[0], st.sampled_from(SUBJECTS[:5]), 1),
    amount=st.integers(0, 2000),
)

others = st.one_of(
    set_limits,
    set_limits,
    top_ups,
    top_ups,
    # No Refund: for a top-up that was never made it raises an error instead of a reply.
    st.builds(Release, hold=holds, project=projects),
    st.builds(Renew, holds=st.lists(holds, max_size=4).map(tuple), project=projects, expires_after=expiries),
    _on_budgets(DropBudget),
    _on_budgets(Reset),
    st.builds(
        Read,
        project=projects,
        scope=st.sampled_from(("user", "team", "project")),
        subject=mostly(None, st.sampled_from([subject.id for subject in SUBJECTS]), 1),
        after=mostly("", st.sampled_from(("alice", "am", "\uff5e"))),
        page=st.sampled_from((1, 2, 1000)),
        defaults=defaults,
    ),
    st.builds(
        ReadUsage,
        project=projects,
        scope=st.sampled_from(("user", "team")),
        subject=mostly(None, st.sampled_from(("alice", "\U0001f600", "blue"))),
        since=mostly(0, st.integers(START // DAY - 2, START // DAY + 3)),
        until=mostly(2**31, st.integers(START // DAY - 2, START // DAY + 90)),
    ),
    st.builds(
        Sweep,
        project=projects,
        marks_kept=st.sampled_from((SECOND, DAY, 30 * DAY)),
        days_kept=st.sampled_from((0, 2 * DAY, 400 * DAY)),
    ),
)

steps = mostly(0, st.sampled_from((1, SECOND, 45 * SECOND, 130 * SECOND, 7 * 3600 * SECOND, DAY, 35 * DAY)))
"""The microseconds by which the clock moves before a command."""


_KINDS = {"reserve": (reserves, 5), "settle": (settles, 3), "put": (put_budgets, 1), "other": (others, 2)}
_WEIGHTED = tuple(kind for kind, (_, weight) in _KINDS.items() for _ in range(weight))


def commands() -> st.SearchStrategy[Command]:
    """Draw any command except a Refund, without a time (`now` None). About half are Reserves."""
    return st.sampled_from(_WEIGHTED).flatmap(lambda kind: _KINDS[kind][0])


@st.composite
def command_lists(draw: st.DrawFn, min_size: int = 1, max_size: int = 30) -> list[Command]:
    """Draw commands in the order of their arrival, each with its `now`, which never goes back. Some repeat an earlier one.

    Most share their defaults, like the commands of one service, so that they use the same accounts.
    """
    now, made, shared = START, list[Command](), draw(defaults)
    for drawn in draw(st.lists(commands(), min_size=min_size, max_size=max_size)):
        now += draw(steps)
        repeated = draw(mostly(None, st.integers(0, max_size), 5)) if made else None
        command = drawn if repeated is None else made[repeated % len(made)]
        if repeated is None and hasattr(command, "defaults") and draw(mostly(True, st.just(False))):
            command = replace(command, defaults=shared)
        made.append(replace(command, now=now))
    return made


@st.composite
def ordinary_calls(draw: st.DrawFn, min_size: int = 10, max_size: int = 40) -> list[Command]:
    """Draw the commands of a service: each call holds and then settles or releases; many calls overlap, few are close to a limit.
    Sometimes a budget is changed and read.
    """
    shared = (Default("user", "none", 20_000), Default("project", "day@UTC", 1_000_000))
    now, made, going = START, list[Command](), list[Reserve]()
    for number in range(draw(st.integers(min_size, max_size))):
        now += draw(st.sampled_from((1, 1000, SECOND)))
        user = draw(st.sampled_from(SUBJECTS[:3]))
        plain = Reserve(
            f"call-{number}", PROJECTS[0], (user, SUBJECTS[-1]), draw(models), Amounts(draw(st.integers(1, 900)), 1, 50),
            120 * SECOND, shared, Amounts(1), cheap=draw(mostly(False, st.just(True))), now=now,
        )  # fmt: skip
        made.append(plain)
        going.append(plain)
        while going and draw(mostly(True, st.just(False), 1)):
            call = going.pop(draw(st.integers(0, len(going) - 1)))
            cost, kind = draw(st.integers(0, call.want.usd)), draw(st.sampled_from("sssr"))
            settled = Settle(
                call.hold, call.project, call.subjects, call.models, cost, "gpt-4o", 20, 5, defaults=shared,
                aliases=(f"response-{call.hold}",), now=now,
            )  # fmt: skip
            made.append(Release(call.hold, call.project, now=now) if kind == "r" else settled)
        if draw(mostly(None, st.just(True), 9)):
            limit = draw(st.integers(0, 20_000))
            made.append(PutBudget(f"change-{number}", PROJECTS[0], user, limit=limit, defaults=shared, now=now))
            made.append(Read(PROJECTS[0], *user, defaults=shared, now=now))
    return made


def drive(execute: Execute, command: Command) -> Reply:
    """Return the reply to a command, after opening the windows that `execute` asks for."""
    for _ in range(4):
        reply = execute(command)
        if not isinstance(reply, RollNeeded):
            return reply
        command = replace(command, rolls=rolls_for(reply))  # type: ignore[arg-type]  # only commands with rolls get here
    raise AssertionError(f"windows still to roll after three rounds: {reply}")


def questions(now: int) -> list[Command]:
    """Return reads that together show everything that a reader can see of both projects at `now`."""
    return [
        command
        for project in PROJECTS
        for scope in ("user", "team", "project")
        for command in (Read(project, scope, defaults=DEFAULTS[2], now=now), ReadUsage(project, scope, now=now))
    ]
