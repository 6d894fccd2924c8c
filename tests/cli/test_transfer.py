"""litellm-budget export and import: importing an exported file changes nothing, a file with a mistake changes nothing, and
nobody loses money.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.cli.app import app
from litellm_budget_plugin.core.accounts import Amounts, Subject
from litellm_budget_plugin.core.commands import PutBudget, Read, Reserve, SetLimits, Settle
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.manager.budgets import Budgets
from litellm_budget_plugin.manager.client import StoreClient
from litellm_budget_plugin.stores.protocol import Store, ask
from litellm_budget_plugin.stores.registry import open_store
from tests.cli.conftest import Command
from tests.generated import examples

PROJECT = Subject("project", "p")
DOLLAR = 10**9
FUTURE = "2099-01-01T00:00:00Z"
Opened = Callable[[Command], Store]


def _fill(on: Command, store: Store) -> None:
    on.run("set", "alice", "$10 per month", "100 calls/hour")
    on.run("raise", "alice", "$5", "--until", FUTURE)
    on.run("set", "team:search", "$2/day for gpt-4o*", "unlimited")
    on.run("block", "tag:batch")
    on.run("top-up", "carol", "$3", "--id", "i1")
    on.run("set", "project", "$1000 per year")
    subject = Subject("user", "lite")
    ask(store, PutBudget("lite", "p", subject, limit=7 * DOLLAR, window="7d", only=True))
    ask(store, Settle("s", "p", (Subject("user", "alice"), Subject("user", "bob"), PROJECT), ("m",), 2 * DOLLAR, "m"))
    ask(store, Reserve("h", "p", (Subject("user", "alice"), PROJECT), ("m",), Amounts(DOLLAR), 60_000_000))


def _accounts(store: Store) -> list[object]:
    return [ask(store, Read("p", scope)).accounts for scope in ("user", "team", "tag", "run", "project")]


EXPORTED = [
    {"subject": "user:alice", "limits": ["$10 per month@UTC", "100 calls per hour"], "blocked": False,
     "raise": {"by": "$5", "until": FUTURE}},
    {"subject": "user:lite", "limits": ["$7 per 7d"], "with_defaults": True, "blocked": False, "raise": None},
    {"subject": "team:search", "limits": ["$2 per day@UTC for gpt-4o*", "unlimited"], "blocked": False, "raise": None},
    {"subject": "tag:batch", "limits": None, "blocked": True, "raise": None},
    {"subject": "project", "limits": ["$1,000 per year@UTC"], "blocked": False, "raise": None},
]  # fmt: skip


def _lines(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    return [{**one, "limits": one["limits"] and sorted(one["limits"])} for one in found]


def test_what_is_exported_changes_nothing_and_makes_another_ledger_the_same(
    on: Command, opened: Opened, tmp_path: Path
) -> None:
    store = opened(on)
    _fill(on, store)
    assert _lines(on.run("export", "-").stdout) == EXPORTED
    before = _accounts(store)
    for name in ("b.jsonl", "b.csv"):
        on.run("export", name)
        assert on.rows("import", name) == []
        assert _accounts(store) == before
        other = f"sqlite:///{tmp_path}/other-{name}.db"
        with closing(open_store(other)):
            changes = on.rows("import", name, "--store", other)
            assert {row["subject"] for row in changes} == {
                "user:alice",
                "user:lite",
                "team:search",
                "tag:batch",
                "project:p",
            }
            assert _lines(on.run("export", "-", "--store", other).stdout) == EXPORTED
            assert on.rows("import", name, "--store", other) == []
    everybody = {line["subject"] for line in _lines(on.run("export", "-", "--all").stdout)}
    assert everybody == {line["subject"] for line in EXPORTED} | {"user:carol"}


def test_a_file_is_edited_and_loaded_again(on_file: Command, opened: Opened, tmp_path: Path) -> None:
    store = opened(on_file)
    _fill(on_file, store)
    path = tmp_path / "edit.jsonl"
    path.write_text(
        '\n{"subject": "alice", "limits": ["$20 per month"], "raise": null}\n'
        '{"subject": "bob", "blocked": true}\n'
        '{"subject": "project", "limits": null}\n'
    )
    dry = on_file.run("import", "edit.jsonl", "--dry-run")
    assert "nothing was changed" in dry.stderr and "$20 per month@UTC" in dry.stdout
    before = _accounts(store)
    rows = on_file.rows("import", "edit.jsonl", "--dry-run")
    assert _accounts(store) == before
    assert rows == on_file.rows("import", "edit.jsonl")
    assert [(row["line"], row["subject"], row["what"]) for row in rows] == [
        (2, "user:alice", "limits"), (2, "user:alice", "raise"), (3, "user:bob", "blocked"), (4, "project:p", "limits"),
    ]  # fmt: skip
    shown = on_file.rows("show", "alice")[0]
    # The amounts spent and held count against the new limit.
    assert (shown["budget"], shown["spent"], shown["held"], shown["left"]) == ("$20 per month", "2", "1", "17")
    assert on_file.rows("import", "edit.jsonl") == []


def test_a_table_of_users_and_limits_is_loaded(on_file: Command, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(
        '\ufeffUser,Limits,Blocked\r\nalice,"$10 per month, 5 calls/day",\r\n\'=bob,$5,yes\r\n\r\nteam:x,unlimited,no\r\ncarol,,yes\r\n'
    )
    on_file.run("import", "users.csv")
    assert {row["subject"]: row["blocked"] for row in on_file.rows("users")} == {
        "user:alice": False, "user:=bob": True, "user:team:x": False, "user:carol": True,
    }  # fmt: skip
    assert on_file.rows("import", "users.csv") == []
    (tmp_path / "gone.csv").write_text(
        "subject,limits,raise_by,raise_until\nuser:alice,default,,\n'=bob,,$1,2099-01-01\n"
    )
    assert [row["what"] for row in on_file.rows("import", "gone.csv")] == ["limits", "raise"]


MISTAKES = [
    ("a.jsonl", '{"subject": "a", "limits": ["$1"]}\n{"subject": "b", "limits": ["ten"]}', "a.jsonl:2: 'ten' is not a budget"),
    ("a.jsonl", '{"subject": "a", "limits": ["$1"]}\n{"subject": "user:a"}', "a.jsonl:2: user:a is in line 1"),
    ("a.jsonl", '{"subject": "a", "limit": ["$1"]}', "unknown field 'limit'; did you mean 'limits'?"),
    ("a.jsonl", '{"limits": ["$1"]}', "the subject is missing"),
    ("a.jsonl", '{"subject": ""}', "must have 1 to 256"),
    ("a.jsonl", '{"subject": null}', "a.jsonl:1"),
    ("a.jsonl", '{"subject": "\\ud800"}', "printable"),
    ("a.jsonl", '{"subject": "project:other"}', "this is the project 'p'"),
    ("a.jsonl", '{"subject": "a", "limits": []}', "limits must be a list"),
    ("a.jsonl", '{"subject": "a", "limits": "$1"}', "limits must be a list"),
    ("a.jsonl", '{"subject": "a", "limits": [1]}', "a budget must be a sentence"),
    ("a.jsonl", '{"subject": "a", "limits": ["$1", "$2"]}', "limit the same thing"),
    ("a.jsonl", '{"subject": "a", "blocked": "yes"}', "blocked must be true or false"),
    ("a.jsonl", '{"subject": "a", "limits": ["$1"], "raise": 5}', "a raise must be like"),
    ("a.jsonl", '{"subject": "a", "limits": ["$1"], "raise": {"by": "$5", "until": "soon"}}', "a time must be written like"),
    ("a.jsonl", '{"subject": "a", "limits": ["$1"], "raise": {"by": "$5", "until": "9999-12-31T23:00-23:00"}}', "a time must be before 2255"),
    ("a.jsonl", '{"subject": "a", "limits": ["$1"], "raise": {"by": "5 calls", "until": "2099-01-01"}}', "amount of US dollars"),
    ("a.jsonl", '{"subject": "a", "limits": ["5 calls"], "raise": {"by": "$5", "until": "2099-01-01"}}', "could be raised"),
    ("a.jsonl", '["a"]', "an entry must be a JSON object"),
    ("a.jsonl", "{", "it is not valid JSON"),
    ("a.jsonl", "[" * 100_000, "it is not valid JSON"),
    ("a.csv", "subject,limits\na,$1\nb,ten", "a.csv:3: 'ten' is not a budget"),
    ("a.csv", "subject,limits\na,$1,000", "3 cells for 2 columns"),
    ("a.csv", "subject,money\na,$1", "unknown column 'money'"),
    ("a.csv", "limits\n$1", "subject or user"),
    ("a.csv", "subject,user,limits\na,a,$1", "subject or user"),
    ("a.csv", "subject,blocked\na,perhaps", "blocked must be true or false"),
    ("a.csv", 'subject,limits\na,"$1', "it is not valid CSV"),
    ("a.csv", "subject,limits\n,$1", "the subject is missing"),
    ("a.json", "{}x", "is not valid JSON"),
    ("a.json", '{"a": {"total_budget": "x"}}', "user 'a'"),
    ("a.txt", "", "its name ends with none of"),
    ("none.jsonl", None, "cannot be read"),
    ("none.json", None, "no such file"),
    ("a\0b.jsonl", None, "cannot be read"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "message"), MISTAKES)
def test_a_mistake_is_said_by_its_line_and_changes_nothing(
    name: str, text: str | None, message: str, on_file: Command, opened: Opened, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    for more in ((), ("--dry-run",)):
        done = on_file.run("import", name, *more, code=2)
        assert message in " ".join(done.stderr.split()), done.stderr
    assert _accounts(opened(on_file)) == [()] * 5


def test_bytes_that_are_no_text(on_file: Command, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xff\x00\xfe")
    (tmp_path / "d.jsonl").mkdir()
    assert "not UTF-8 text" in on_file.run("import", "a.jsonl", code=2).stderr
    assert "cannot be read" in on_file.run("import", "d.jsonl", code=2).stderr
    for place in ("d.jsonl", "/dev/null", "/dev/zero"):
        assert "is not a file" in on_file.run("export", place, "--format", "jsonl", code=1).stderr
    assert not Path("/dev/null").is_file()
    (tmp_path / "there.jsonl").write_text("before")
    (tmp_path / "link.jsonl").symlink_to("there.jsonl")
    on_file.run("export", "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink() and (tmp_path / "there.jsonl").read_text() == ""


def test_what_was_interrupted_is_imported_again(
    on_file: Command, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store becomes unreachable at each of the changes."""
    lines = [
        {"subject": name, "limits": ["$1"], "blocked": True, "raise": {"by": "$5", "until": FUTURE}} for name in "abc"
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for budget in range(1, 10):
        left = budget

        def stop(self: Budgets, *arguments: Any, method: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                raise BudgetStoreUnavailable("gone")
            return method(self, *arguments, **more)

        with monkeypatch.context() as patched:
            for name in ("block", "set_limits", "raise_limit"):
                method = getattr(Budgets, name)
                patched.setattr(Budgets, name, lambda self, *a, method=method, **m: stop(self, *a, method=method, **m))
            done = on_file.run("import", "a.jsonl", code=1)
        assert "import the file again" in done.stderr and ": gone;" in done.stderr
        # Nobody has new limits before they are blocked.
        assert all(one["blocked"] for one in _lines(on_file.run("export", "-").stdout))
        on_file.run("import", "a.jsonl")
        assert on_file.rows("import", "a.jsonl") == []
        assert len(_lines(on_file.run("export", "-").stdout)) == 3
        for name in "abc":
            on_file.run("clear", name)
            on_file.run("unblock", name)
        on_file.run("import", "-", code=0)


def test_csv_without_its_format_is_said_in_one_line(on_file: Command) -> None:
    for text in (
        "user,limits\nalice,$1\nbob,$2\n",
        " Subject ,blocked\r\nalice,yes\r\n",
        "\ufefflimits,user\n$1,alice\n",
    ):
        done = CliRunner().invoke(app, ["import", "-"], input=text.encode())
        assert done.exit_code == 2 and done.stderr.endswith("Error: -: this looks like CSV: give --format csv\n")
        assert CliRunner().invoke(app, ["import", "-", "--format", "csv"], input=text.encode()).exit_code == 0


def test_a_balance_counts_whether_it_is_named_or_not(on_file: Command, tmp_path: Path) -> None:
    on_file.run("set", "paid", "$5 per day", "credit")
    on_file.run("set", "owes", "credit")
    assert [line["limits"] for line in _lines(on_file.run("export", "-").stdout)] == [
        ["credit"],
        ["$5 per day@UTC", "credit"],
    ]
    for name in ("paid", "owes"):
        on_file.run("top-up", name, "$3", "--id", name)
    assert [line["limits"] for line in _lines(on_file.run("export", "-").stdout)] == [["credit"], ["$5 per day@UTC"]]
    for limits in (["$5 per day", "credit"], ["$5 per day"]):
        (tmp_path / "a.jsonl").write_text(json.dumps({"subject": "paid", "limits": limits}))
        assert on_file.rows("import", "a.jsonl") == []
    (tmp_path / "a.jsonl").write_text(json.dumps({"subject": "paid", "limits": None}))
    on_file.run("import", "a.jsonl")
    assert on_file.rows("show", "paid")[-1] == {"balance": "3"}


def test_unblocking_comes_last(on_file: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_file.run("set", "a", "$100")
    on_file.run("block", "a")
    (tmp_path / "a.jsonl").write_text('{"subject": "a", "limits": ["$1"], "blocked": false}')

    def gone(*_: object, **__: object) -> None:
        raise BudgetStoreUnavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(Budgets, "set_limits", gone)
        on_file.run("import", "a.jsonl", code=1)
    assert on_file.rows("show", "a")[0]["blocked"] is True
    on_file.run("import", "a.jsonl")
    assert [(row["budget"], row["blocked"]) for row in on_file.rows("show", "a")] == [("$1", False)]


def test_litellms_file_both_ways(on_file: Command, opened: Opened, tmp_path: Path) -> None:
    store = opened(on_file)
    on_file.run("set", "alice", "$10")
    ask(store, Settle("s", "p", (Subject("user", "alice"), PROJECT), ("m",), 2 * DOLLAR, "m"))
    on_file.run("export", "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == {
        "alice": {"total_budget": 10.0, "current_cost": 2.0, "model_cost": {"m": 2.0}}
    }
    records = {"alice": {"total_budget": 99}, "bob": {"total_budget": 5, "current_cost": 1.5, "model_cost": {"m": 1.5}}}
    (tmp_path / "user_cost.json").write_text(json.dumps(records))
    [row] = on_file.rows("import", "user_cost.json", "--dry-run")
    assert row == {"subject": "user:bob", "total_budget": "5", "spent": "1.5"}
    assert [one["subject"] for one in on_file.rows("users")] == ["user:alice"]
    assert on_file.rows("import", "user_cost.json") == [row]
    bob = on_file.rows("show", "bob")[0]
    assert (bob["spent"], bob["left"]) == ("1.5", "3.5")
    assert "before: nothing to change" in on_file.run("import", "user_cost.json").stderr
    assert on_file.rows("show", "alice")[0]["left"] == "8"


_names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8) | st.sampled_from(
    ["=1+1", "a,-b", "x;=y", "'q"]
)
_limits = st.lists(
    st.sampled_from(["$1", "$2.5 per day", "10 calls/hour", "1k tokens per week@Europe/Berlin", "$3/month for gpt-4o*", "$1 per 12h"]),
    min_size=1, max_size=4, unique=True,
)  # fmt: skip
_raises = st.none() | st.just({"by": "$1.5", "until": FUTURE}) | st.just({"by": "$2", "until": "2001-01-01T00:00Z"})
_entry = st.fixed_dictionaries(
    {
        "subject": st.builds(
            lambda scope, name: f"{scope}:{name}", st.sampled_from(["user", "team", "tag", "run"]), _names
        )
    },
    optional={"limits": st.none() | _limits, "blocked": st.booleans(), "raise": _raises},
)


@examples(40)
@given(st.lists(_entry, max_size=6, unique_by=lambda entry: entry["subject"]), st.sampled_from(["jsonl", "csv"]))
def test_any_file_is_imported_whole_or_not_at_all_and_only_once(lines: list[dict[str, Any]], form: str) -> None:
    """The export is the same, also after it was imported into another ledger."""
    runner = CliRunner()
    with runner.isolated_filesystem():
        one, two = f"sqlite:///{Path.cwd()}/one.db", f"sqlite:///{Path.cwd()}/two.db"
        with closing(open_store(one)), closing(open_store(two)):
            Path("in.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")

            def run(*arguments: str) -> tuple[int, str]:
                done = runner.invoke(app, [*arguments, "--project", "p"])
                assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
                return done.exit_code, done.stdout

            code, _ = run("import", "in.jsonl", "--store", one)
            written = f"out.{form}"
            assert run("export", written, "--all", "--store", one)[0] == 0
            first = run("export", "-", "--all", "--store", one)[1]
            if code:
                assert code == 2 and first == ""
                return
            assert run("import", "in.jsonl", "--store", one, "--json") == (0, "")
            assert run("import", written, "--store", one, "--json") == (0, "")
            assert run("import", written, "--store", two)[0] == 0
            assert run("export", "-", "--store", two)[1] == run("export", "-", "--store", one)[1]


def test_many_lines_are_compared_in_batches(on_file: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(json.dumps({"subject": f"user:{number}", "limits": ["$1"]}) + "\n" for number in range(1_000))
    (tmp_path / "many.jsonl").write_text(lines)
    asked: list[int] = []
    ask_all = StoreClient.ask_all

    def counting(self: StoreClient, commands: Any, *more: Any) -> Any:
        asked.append(len(commands))
        return ask_all(self, commands, *more)

    monkeypatch.setattr(StoreClient, "ask_all", counting)
    assert len(on_file.rows("import", "many.jsonl")) == 1_000
    assert on_file.rows("import", "many.jsonl") == []
    assert asked == [200] * 10


def test_limits_set_for_all_are_not_mixed_with_defaults(on_file: Command, opened: Opened, tmp_path: Path) -> None:
    ask(opened(on_file), SetLimits("s", "p", Subject("user", "a"), parse_limits("$1"), ()))
    (tmp_path / "a.jsonl").write_text('{"subject": "a", "limits": ["$2"], "with_defaults": true}')
    assert "clear them first" in on_file.run("import", "a.jsonl", code=2).stderr
