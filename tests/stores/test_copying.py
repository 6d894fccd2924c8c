"""A copied ledger answers like the original, for every pair of engines."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given

from litellm_budget_plugin.core.accounts import Account, Amounts, Charged, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.commands import (
    Command,
    Granted,
    PutBudget,
    Release,
    Reply,
    Settled,
    Sweep,
    Swept,
)
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores import copying
from litellm_budget_plugin.stores.copying import Copied, Progress, copy
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import open_store
from litellm_budget_plugin.stores.rows import Rows
from litellm_budget_plugin.stores.totals import Totals, named
from tests.commands import START, command_lists, drive, questions
from tests.generated import examples
from tests.stores.desk import MINUTE, account_of, calls_of, charge_of, hold_of
from tests.stores.engines import ENGINES

PAIRS = list(product(sorted(ENGINES), repeat=2))
LASTING = sorted(set(ENGINES) - {"memory"})
ROOT = Path(__file__).parents[2]

Pair = tuple[Store, Store]


@contextmanager
def pair_of(source: str, target: str, test_clock: bool = True) -> Iterator[Pair]:
    """Two empty ledgers."""
    with ExitStack() as stack:
        stores = []
        for engine in (source, target):
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            stores.append(open_store(ENGINES[engine](Path(directory)), test_clock=test_clock, timeout=30.0))
            stack.callback(stores[-1].close)
        yield stores[0], stores[1]


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two empty ledgers, for every pair of engines in turn."""
    with pair_of(*request.param) as stores:
        yield stores


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_PAGE", 3)


def rows_of(store: Store, project: str, most: int = 1000) -> list[object]:
    """Every raw row of a project, in a fixed order, with replies, which are JSON, in one form."""
    found: list[object] = []
    after: str | None = ""
    while after is not None:
        page = store.export(project, after, most)
        holds = (
            replace(hold, reply=json.dumps(json.loads(hold.reply), separators=(",", ":"))) if hold.reply else hold
            for hold in page.rows.holds
        )
        found += [*page.rows.accounts, *holds, *page.rows.usage]
        after = page.after
    return sorted(found, key=repr)


def fill(store: Store, number: int = 10, project: str = "p", now: int = START) -> None:
    """Add open holds, settled ones, totals and accounts, one of each for `number` users."""
    for one in range(number):
        alice = hold_of(f"open {one}", 3, 1, now)
        store.execute(replace(alice, project=project, subjects=(Subject("user", f"user {one}"),)))
        store.execute(replace(charge_of(f"settled {one}", 7, now), project=project))


# Few examples, because each is a whole copy; test_conformance covers what each command does.
@pytest.mark.parametrize(("source", "target"), PAIRS)
@examples(25, suppress_health_check=[*HealthCheck], phases=[Phase.generate, Phase.reuse])
@given(before=command_lists(min_size=4, max_size=30), after=command_lists(min_size=4, max_size=20))
def test_the_target_answers_as_the_source(
    source: str, target: str, before: list[Command], after: list[Command]
) -> None:
    """Generated commands, a copy, and more commands on both sides; every reply is compared."""
    with pair_of(source, target) as (old, new):
        for command in before:
            with suppress(BudgetInputError):
                drive(old.execute, command)
        for project in old.projects():
            assert copy(old, new, [project])
        assert new.projects() == old.projects()

        def both(command: Command) -> Reply:
            try:
                expected = old.execute(command)
            except BudgetInputError:
                with pytest.raises(BudgetInputError):
                    new.execute(command)
                raise
            assert new.execute(command) == expected
            return expected

        then = before[-1].now
        assert then is not None
        for command in after:
            assert command.now is not None
            with suppress(BudgetInputError):
                drive(both, replace(command, now=command.now - START + then))
        assert after[-1].now is not None
        for question in questions(after[-1].now - START + then):
            drive(both, question)
        for project in old.projects():
            assert rows_of(new, project) == rows_of(old, project)


def test_every_field_arrives(pair: Pair) -> None:
    """Fields of every kind of row, with ids that a store might misread, and with pages of several sizes."""
    source, target = pair
    name = "ü:{x}'\"/\\ %_\U0001f600"
    ref, subject = Ref("user", name, "m", "day", "calls"), Subject("user", name)
    account = Account(ref, "id", 1, 2, 3, True, 4, 5, 6, 7, True, 8, 9, 10, 11, True, 12, 13, {"m": 3, "n": 2})
    # In the format of earlier versions.
    said = {"type": "Settled", "hold": name, "crossings": [[ref, 1, 2**53 - 1, 800_000, 2**60]]}
    reply = json.dumps(said, separators=(",", ":"))
    amounts = (Amounts(1, 2, 3), Amounts(4, 5, 6))
    hold = Hold(name, "open", 1, *amounts, "m", (subject,), (ref,), (Charged(subject, "id", 2),), 3, reply)
    mark = Hold("command:x", "done", 5)
    total = (UsageKey("user", name, 1, ""), Usage(2**60, -2, 3, 4, 5, 6))
    rows = Rows((account, Account(ref._replace(model=""), "id2", 1, 2, None)), (hold, mark), (total,))
    everything = sorted([*rows.accounts, *rows.holds, *rows.usage], key=repr)
    project = f"p {name}"
    for _ in range(2):
        source.load(project, rows)
    for most in (1, 2, 1000):
        assert rows_of(source, project, most) == everything
    ((_, totals, written),) = copy(source, target)
    assert rows_of(target, project) == everything
    assert (totals.accounts, totals.open_holds, totals.marks, totals.usage_rows, written) == (2, 1, 1, 1, 5)
    assert (totals.spent, totals.held, totals.usage) == (Amounts(calls=5), Amounts(calls=6), total[1])
    assert source.projects() == target.projects() == [project]


def test_what_is_loaded_is_not_shared(opened: Callable[..., Store]) -> None:
    """Two ledgers in one process have no row in common."""
    account, store = Account(Ref("user", "alice"), "id", 1, 1, None, spent=5, models={"m": 5}), opened("memory://")
    store.load("p", Rows((account,)))
    account.charge(5, "m")
    assert account_of(store).spent == 5


def test_a_settle_that_comes_twice_counts_once(pair: Pair) -> None:
    """It comes once before the copy and once after it. For a hold that was open at the copy, it comes twice on the target."""
    source, target = pair
    charge, held = charge_of("h", now=START), hold_of("open", now=START)
    source.execute(charge)
    source.execute(held)
    copy(source, target)
    assert target.execute(charge) == Settled("h")
    assert calls_of(target) == 1
    for _ in range(2):
        assert target.execute(charge_of("open", now=START)) == Settled("open")
    state = account_of(target, START)
    assert (calls_of(target), state.spent, state.held) == (2, 20, 0)


def test_open_holds_go_on(pair: Pair) -> None:
    """The target knows them: they can be settled and released, and they expire with their floor."""
    source, target = pair
    for hold in ("settled", "given back", "expired"):
        source.execute(hold_of(hold, usd=100, floor=7, now=START))
    copy(source, target)
    assert target.execute(hold_of("settled", usd=100, floor=7, now=START)) == Granted("settled", Amounts(100))
    assert account_of(target, START).held == 300
    target.execute(charge_of("settled", usd=50, now=START))
    target.execute(Release("given back", "p", now=START))
    assert target.execute(Sweep("p", DAY, DAY, now=START + MINUTE)) == Swept(1, 0, 0)
    state = account_of(target, START + MINUTE)
    assert (state.spent, state.held) == (57, 0)


def test_more_than_ten_thousand_rows(pair: Pair) -> None:
    source, target = pair
    for first in range(0, 12_000, 3000):
        marks = tuple(Hold(f"h{number:09}", "settled", number) for number in range(first, first + 3000))
        source.load("p", Rows(holds=marks))
    seen: list[Progress] = []
    ((_, totals, written),) = copy(source, target, progress=seen.append)
    assert totals.marks == written == 12_000
    assert rows_of(target, "p") == rows_of(source, "p")
    assert {progress.step for progress in seen} == {"copying", "verifying"}
    assert seen[-1] == Progress("p", "verifying", 24_000)
    read = [progress.rows for progress in seen if progress.step == "copying"]
    assert read == sorted(read) and len(read) >= 12


def test_only_the_projects_that_are_named(pair: Pair) -> None:
    source, target = pair
    for project in ("p", "größe", "q"):
        fill(source, 2, project)
    assert [copied.project for copied in copy(source, target, ["größe", "q", "q"])] == ["größe", "q"]
    assert target.projects() == ["größe", "q"]
    with pytest.raises(BudgetInputError, match=r"no project 'x'; it has 'größe', 'p', 'q'"):
        copy(source, target, ["p", "x"])
    assert target.projects() == ["größe", "q"]


def test_an_empty_source_is_an_error(pair: Pair) -> None:
    with pytest.raises(BudgetInputError, match="it is empty"):
        copy(*pair)


def test_a_copy_that_was_interrupted_goes_on(pair: Pair, small_pages: None) -> None:
    """It is interrupted at every page; rows that have arrived are not written again."""
    source, target = pair
    fill(source, 4)
    everything = rows_of(source, "p")

    def interrupt(progress: Progress) -> None:
        if progress.step == "copying":
            raise KeyboardInterrupt

    for _ in range(3):
        there = len(rows_of(target, "p"))
        with pytest.raises(KeyboardInterrupt):
            copy(source, target, progress=interrupt)
    assert 0 < there < len(everything)
    ((_, totals, written),) = copy(source, target)
    assert (rows_of(target, "p"), written) == (everything, len(everything) - there)
    assert copy(source, target) == [Copied("p", totals, 0)]


def changing_at(step: str, change: Callable[[], object]) -> Callable[[Progress], None]:
    """Make a change once, after the first page of a step."""
    made: list[object] = []

    def progress(now: Progress) -> None:
        if now.step == step and not made:
            made.append(change())

    return progress


@pytest.mark.parametrize("step", ["copying", "verifying"])
def test_a_source_that_changes_meanwhile_is_found(pair: Pair, small_pages: None, step: str) -> None:
    """A second run, with replace, then updates the target."""
    source, target = pair
    fill(source)
    change = changing_at(step, lambda: source.execute(charge_of("settled late", now=START)))
    with pytest.raises(BudgetStoreError, match="the source changed while it was copied.*run it again with --replace"):
        copy(source, target, progress=change)
    source.execute(charge_of("open 1", now=START))
    with pytest.raises(BudgetStoreError, match="rows that differ in the source.*--replace"):
        copy(source, target)
    copy(source, target, replace=True)
    assert rows_of(target, "p") == rows_of(source, "p")


def test_a_project_that_begins_meanwhile_is_found(pair: Pair) -> None:
    source, target = pair
    fill(source, 1)
    with pytest.raises(BudgetStoreError, match="new projects q"):
        copy(source, target, progress=changing_at("copying", lambda: fill(source, 1, "q")))


def test_a_target_that_changes_meanwhile_is_found(pair: Pair) -> None:
    source, target = pair
    fill(source, 1)
    change = changing_at("copying", lambda: target.execute(charge_of("there", now=START)))
    with pytest.raises(BudgetStoreError, match="another process uses it already"):
        copy(source, target, progress=change)


@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize(
    "there",
    [
        charge_of("its own", now=START),
        charge_of("open 1", now=START),
        PutBudget("its own", "p", Subject("user", "alice"), limit=5, now=START),
        hold_of("its own", now=START),
    ],
    ids=["charge", "settled hold", "budget", "hold"],
)
def test_nothing_of_the_targets_own_is_lost(pair: Pair, there: Command, replacing: bool) -> None:
    """A target with its own changes is refused, and left unchanged."""
    source, target = pair
    fill(source)
    copy(source, target)
    drive(target.execute, there)
    source.execute(charge_of("settled late", now=START))
    before = rows_of(target, "p")
    with pytest.raises(BudgetStoreError, match="nothing was written"):
        copy(source, target, replace=replacing)
    assert rows_of(target, "p") == before


def test_a_target_that_counted_more_and_forgot_its_marks_is_refused(pair: Pair) -> None:
    source, target = pair
    fill(source, 2)
    copy(source, target)
    target.execute(charge_of("its own", now=START))
    target.execute(Sweep("p", 0, DAY, now=START + 1))
    with pytest.raises(BudgetStoreError, match="the target was used on its own: total .* counts"):
        copy(source, target, replace=True)


def test_rows_that_the_source_has_no_more_are_found(pair: Pair) -> None:
    """The source forgot a mark after an interrupted copy."""
    source, target = pair
    fill(source, 2)
    copy(source, target)
    source.execute(Sweep("p", 0, DAY, now=START + 1))
    with pytest.raises(BudgetStoreError, match="holds 2 rows that the source does not have.*empty the target"):
        copy(source, target, replace=True)


def test_one_field_that_differs_is_found() -> None:
    """The sums may be equal, but the fingerprint differs."""

    def total(*holds: Hold) -> Totals:
        totals = Totals()
        for row in named(Rows(holds=holds)):
            totals.add(row)
        return totals

    assert total(Hold("a", "refused", 1, reply='{"a":1,"b":[2]}')) == total(
        Hold("a", "refused", 1, reply='{"b": [2], "a": 1}')
    )
    assert total(Hold("a", "refused", 1, reply='{"a":1}')) != total(Hold("a", "refused", 1, reply='{"a":2}'))
    one, other, changed = Hold("a", "done", 1), Hold("b", "done", 2), Hold("b", "done", 3)
    assert total(one, other) == total(other, one)
    assert total(one, other) != total(one, changed)
    assert total(one, other).differences(total(one, changed)) == "the same sums, but other rows"


@pytest.mark.parametrize("target", LASTING)
def test_kills_at_any_instant(target: str, tmp_path: Path) -> None:
    """The copying process gets `kill -9` again and again; then one run finishes the copy."""
    url = f"sqlite:///{tmp_path}/source.db"
    store = open_store(url, test_clock=True)
    fill(store, 150)
    everything, kills, dice = rows_of(store, "p"), 0, random.Random(20260)
    store.close()
    (tmp_path / "target").mkdir()
    target_url = ENGINES[target](tmp_path / "target")
    command = [sys.executable, "-m", "tests.stores.copier", url, target_url]
    while kills < 15:
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as copier:
            assert copier.stdout is not None
            for _ in range(dice.randrange(1, 60)):
                assert copier.stdout.readline()
            for _ in range(dice.randrange(20_000)):
                pass
            os.kill(copier.pid, signal.SIGKILL)
        kills += copier.returncode == -signal.SIGKILL
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "done" in done.stdout
    arrived = open_store(target_url, test_clock=True)
    assert rows_of(arrived, "p") == everything
    arrived.close()
