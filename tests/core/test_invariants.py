"""Invariants after every command: for any commands in any order, by any caller."""

from __future__ import annotations

from fnmatch import fnmatchcase

from hypothesis import given

from litellm_budget_plugin.core.accounts import Account, Default, Ref, Subject
from litellm_budget_plugin.core.commands import (
    Closed,
    Command,
    CountExactly,
    Granted,
    Refused,
    Reply,
    Reserve,
    RollNeeded,
    Sweep,
)
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.errors import BudgetInputError
from tests.commands import PROJECTS, SUBJECTS, Execute, command_lists, drive
from tests.core.desk import snapshot
from tests.generated import examples

Sequence = list[Command]


def accounts(book: DictRowStore, project: str) -> dict[Ref, Account]:
    return {account.ref: account for subject in SUBJECTS for account in book.accounts(project, subject)}


def run(book: DictRowStore, command: Command, execute: Execute | None = None) -> Reply | None:
    """The reply, after opening the windows that the command needs; None for a command out of range, which must change nothing."""
    before = snapshot(book)
    try:
        return drive(execute or (lambda asked: apply(book, asked, asked.now or 0)), command)
    except BudgetInputError:
        assert snapshot(book) == before
        return None


def assert_sound(book: DictRowStore) -> None:
    """No number is negative, and every number is the sum of its parts."""
    for project in PROJECTS:
        rows = accounts(book, project)
        held = dict.fromkeys(rows, 0)
        for hold in book.open_holds(project):
            assert min(*hold.amounts, *hold.floor) >= 0, hold
            for ref in hold.legs:
                held[ref] += hold.amounts.of(ref.unit)
        for ref, account in rows.items():
            assert account.held == held[ref], account
            assert sum(account.models.values()) == account.spent, account
            assert min(account.spent, account.held, account.carried, *account.models.values()) >= 0, account
            assert account.end is None or account.start < account.end
            assert not account.dropped or account.held > 0
        for scope in ("user", "team", "project"):
            for key, usage in book.usage_rows(project, scope, None, 0, 2**31):
                assert min(usage) >= 0, (key, usage)


def follows(account: Account, rows: list[Account], defaults: tuple[Default, ...]) -> Default | None:
    scope, subject, model, window, unit = account.ref
    own = [row.ref for row in rows if row.pinned]
    if account.pinned or any(ref.model == "*" for ref in own):
        return None
    balance = window == "credit"
    if any((ref.model, ref.unit, ref.window == "credit") == (model, unit, balance) for ref in own):
        return None
    named = [d for d in defaults if (d.scope, d.subject) == (scope, subject)]
    general = [d for d in defaults if (d.scope, d.subject) == (scope, "")]
    return next((d for d in named or general if (d.model, d.window, d.unit) == (model, window, unit)), None)


def is_for(model: str, names: tuple[str, ...]) -> bool:
    return model != "*" and (
        model in ("", *names) or any(fnmatchcase(name, model) or name == f"{model}-2024-08-06" for name in names)
    )


def applying(book: DictRowStore, command: Reserve) -> list[Account]:
    """The accounts that apply to a command, found by other means than the ledger's."""
    found = []
    for subject in set(command.subjects):
        rows = book.accounts(command.project, subject)
        whole = any(row.ref.model == "*" for row in rows)
        for row in rows:
            counts = row.pinned or row.blocked or follows(row, rows, command.defaults) is not None
            if (counts or (whole and not row.dropped)) and is_for(row.ref.model, command.models):
                found.append(row)
    return found


def assert_within_limits(book: DictRowStore, command: Reserve, granted: Granted) -> None:
    now = command.now or 0
    hold = book.hold(command.project, command.hold)
    assert hold is not None
    rows = applying(book, command)
    assert {row.ref for row in rows} == set(hold.legs)
    for account in rows:
        unit = account.ref.unit
        if not command.want.of(unit):
            continue
        assert not account.blocked
        assert account.end is None or account.start <= now < account.end
        subject = Subject(account.ref.scope, account.ref.subject)
        default = follows(account, book.accounts(command.project, subject), command.defaults)
        limit = account.limit if account.pinned else default.limit if default else None
        if limit is None:
            continue
        raised = account.raised_by if now < account.raised_until else 0
        assert account.spent + account.held <= min(limit + account.carried + raised, MAX_NANOS), account
    assert granted.amounts.usd <= command.want.usd
    assert granted.amounts[1:] == command.want[1:]
    least = command.want.usd if command.at_least is None else command.at_least
    assert granted.amounts.usd >= min(least, command.want.usd)


@examples(300)
@given(command_lists())
def test_every_number_is_sound_after_every_command(commands: Sequence) -> None:
    book = DictRowStore()
    for command in commands:
        run(book, command)
        assert_sound(book)


@examples(300)
@given(command_lists())
def test_no_grant_leaves_an_account_that_it_names_above_its_limit(commands: Sequence) -> None:
    book = DictRowStore()
    for command in commands:
        known = isinstance(command, Reserve) and book.hold(command.project, command.hold) is not None
        reply = run(book, command)
        if isinstance(command, Reserve) and isinstance(reply, Granted) and not known:
            assert_within_limits(book, command, reply)


def watched(book: DictRowStore, asked: Command) -> Reply:
    """The reply to a command, after checking its changes if it was a Reserve that held nothing."""
    before, rows = snapshot(book), accounts(book, asked.project)
    now = asked.now or 0
    due = book.due(asked.project, now, None)
    reply = apply(book, asked, now)
    if not isinstance(asked, Reserve):
        return reply
    closed_in_passing = isinstance(reply, Closed) and (due or asked.replaces)
    if isinstance(reply, (CountExactly, RollNeeded, Closed)) and not closed_in_passing:
        assert snapshot(book) == before
    elif isinstance(reply, Refused) and not due:
        for ref, account in accounts(book, asked.project).items():
            if ref not in rows or (rows[ref].over(now) and account.epoch > rows[ref].epoch):
                assert account.spent == 0
                assert account.held == (rows[ref].held if ref in rows else 0)
            else:
                assert account == rows[ref]
    return reply


@examples(200)
@given(command_lists())
def test_what_was_not_granted_changes_no_account(commands: Sequence) -> None:
    book = DictRowStore()
    for command in commands:
        run(book, command, lambda asked: watched(book, asked))


@examples(200)
@given(command_lists())
def test_any_command_repeated_at_once_changes_nothing_and_replies_the_same(commands: Sequence) -> None:
    book = DictRowStore()
    for command in commands:
        reply = run(book, command)
        if book.due(command.project, command.now or 0, 1):
            continue
        before = snapshot(book)
        again = run(book, command)
        assert snapshot(book) == before
        if not isinstance(command, Sweep):
            assert again == reply


@examples(100)
@given(command_lists(max_size=15))
def test_one_project_never_touches_another(commands: Sequence) -> None:
    together, apart = DictRowStore(), {project: DictRowStore() for project in PROJECTS}
    for command in commands:
        assert run(together, command) == run(apart[command.project], command)
    for project in PROJECTS:
        assert accounts(together, project) == accounts(apart[project], project)
