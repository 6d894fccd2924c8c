"""The file of limits: its meaning, the place and text of its mistakes, and that no content can do further harm."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin import BudgetInputError, BudgetSettings, BudgetSettingsError
from litellm_budget_plugin.budget_file import read_file
from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.policy import Policy, Table
from tests.generated import examples


def policy_of(path: Path, text: str, zone: str = "UTC", **scopes: Table) -> Policy:
    path.write_text(text, "utf-8")
    return read_file(path, zone, scopes)


def said(policy: Policy, scope: str, name: str, user_class: str | None = None) -> list[str]:
    return [str(limit) for limit in policy.limits(Subject(scope, name), user_class)]


def mistake(path: Path, text: str) -> str:
    with pytest.raises(BudgetSettingsError) as caught:
        policy_of(path, text)
    return str(caught.value)


IN_TOML = """\
[user]
limits = ["$1/day", "$10/month"]
[class.pro]
users  = ["alice", "*@corp.example"]
limits = ["$50/month", "$5/day for o3*"]
[class.trial]
users  = ["eve@corp.example", "t[1]*"]
limits = ["$0.10"]
[class.idle]
[user."bob"]
limits = ["unlimited"]
[team.search]
limits = ["$500/month"]
alert_at = [80, 50, 100]
[tag.batch]
limits = ["$20/day"]
[run]
limits = ["$0.50"]
[project]
limits = ["$1000/month"]
"""
IN_YAML = """\
user:
  limits: ["$1/day", "$10/month"]
  bob:
    limits: [unlimited]
class:
  pro:
    users: [alice, "*@corp.example"]
    limits: $50/month, $5/day for o3*
  trial:
    users: [eve@corp.example, "t[1]*"]
    limits: [$0.10]
  idle: {}
team:
  search:
    limits: [$500/month]
    alert_at: [80, 50, 100]
tag: {batch: {limits: [$20/day]}}
run: {limits: [$0.50]}
project:
  limits: [$1000/month]
"""


@pytest.fixture(params=["toml", "yaml", "YML"])
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Policy:
    return policy_of(tmp_path / f"budgets.{request.param}", IN_TOML if request.param == "toml" else IN_YAML)


def test_a_subject_has_the_limits_of_its_table_else_its_class_else_its_scope(example: Policy) -> None:
    assert said(example, "user", "carol") == ["$1 per day", "$10 per month"]
    assert said(example, "user", "alice") == ["$50 per month", "$5 per day for o3*"]
    assert said(example, "user", "bob") == ["unlimited"]
    assert said(example, "team", "search") == ["$500 per month"] and said(example, "team", "other") == []
    assert said(example, "tag", "batch") == ["$20 per day"]
    assert said(example, "run", "any") == ["$0.50"]
    assert said(example, "project", "shop") == ["$1,000 per month"]
    assert example.subjects[Subject("team", "search")].alert_at == (50, 80, 100)
    assert example.models() == ["o3*"] and example.limited


def test_globs_name_users_and_an_exact_name_goes_before_them(example: Policy) -> None:
    assert said(example, "user", "zoe@corp.example") == ["$50 per month", "$5 per day for o3*"]
    assert said(example, "user", "eve@corp.example") == ["$0.10"]
    assert said(example, "user", "t[1]x") == ["$0.10"] and example.class_of("t1x") is None
    assert example.class_of("ALICE") is None


def test_a_given_class_goes_before_the_one_that_lists_the_user_and_after_the_own_table(example: Policy) -> None:
    assert said(example, "user", "alice", "trial") == ["$0.10"]
    assert said(example, "user", "bob", "trial") == ["unlimited"]
    assert said(example, "user", "carol", "idle") == ["$1 per day", "$10 per month"]
    assert said(example, "team", "search", "trial") == ["$500 per month"]
    with pytest.raises(BudgetInputError, match="'pros'.*did you mean 'pro'"):
        example.limits(Subject("user", "carol"), "pros")


def test_what_commands_carry(example: Policy) -> None:
    named = [Subject("user", "alice"), Subject("team", "search"), Subject("tag", "other")]
    own = [each for each in example.defaults_of(named) if each.subject]
    assert [(each.scope, each.subject, each.limit) for each in own] == [
        ("user", "alice", 50 * 10**9),
        ("user", "alice", 5 * 10**9),
        ("team", "search", 500 * 10**9),
    ]
    assert example.defaults_of([Subject("user", "carol")]) is example.defaults


def test_limits_of_a_context_add_to_those_of_the_file(example: Policy) -> None:
    carol = Subject("user", "carol")
    defaults = example.defaults_of([carol], given={carol: parse_limits("$5/day, 3 calls/day")})
    assert [str(each.limit) for each in defaults if each.subject == "carol"] == ["1000000000", "10000000000", "3"]


def test_an_empty_file_limits_nothing(tmp_path: Path) -> None:
    for name in ("empty.toml", "empty.yaml"):
        empty = policy_of(tmp_path / name, "\n")
        assert not empty.limited and said(empty, "user", "alice") == []
        assert [each.limit for each in empty.defaults] == [None]


def test_a_file_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_bytes(b"\xef\xbb\xbf" + b'[user]\r\nlimits = ["$1/day"]\r\n')
    assert said(read_file(path, "Europe/Berlin", {}), "user", "a") == ["$1 per day@Europe/Berlin"]


MISTAKES = {
    "a sentence": ('[user]\nlimits = [\n  "$1/day",\n  "1 elephant",\n]\n', 2, "user.limits", "elephant"),
    "two for one": ('[user]\n\nlimits = ["$1/day", "$2/day"]\n', 3, "user.limits", "limit the same thing"),
    "unlimited beside": ('[run]\nlimits = ["unlimited", "$2/day"]', 2, "run.limits", "must stand alone"),
    "no list": ("[user]\nlimits = 5\n", 2, "user.limits", "list of sentences"),
    "a list of numbers": ("[user]\nlimits = [5]\n", 2, "user.limits", "sentence"),
    "a table": ('[users]\nlimits = ["$1"]\n', 1, "users", "did you mean 'user'"),
    "a key": ('[user]\n[user.bob]\nlimit = ["$1"]\n', 3, "user.bob.limit", "did you mean 'limits'"),
    "a key of a scope": ('[team]\nlimist = "$1"\n', 2, "team.limist", "did you mean 'limits'"),
    "users outside of a class": ('[user]\nusers = ["a"]\n', 2, "user.users", "unknown key"),
    "no table": ('project = "$5"\n', 1, "project", "table"),
    "a project's own": ('[project]\n[project.shop]\nlimits = ["$1"]\n', 2, "project.shop", "only one project"),
    "a class that is none": ('[class]\npro = "x"\n', 2, "class.pro", "it must be a table"),
    "classes that are none": ('class = ["x"]\n', 1, "class", "a table for each class"),
    "users that are no list": ('[class.pro]\nusers = "alice"\n', 2, "class.pro.users", "list of users"),
    "a user that is none": ('[class.pro]\nusers = ["alice", 1.5]\n', 2, "class.pro.users", "float"),
    "a user of two": (
        '[class.pro]\nusers = ["alice"]\n[class.trial]\nlimits = ["$1"]\nusers = ["alice"]\n',
        5,
        "class.trial.users",
        "is also in the class 'pro'",
    ),
    "a glob of two": (
        '[class.pro]\nusers = ["*@x"]\n[class.trial]\nusers = ["*@x"]\n',
        4,
        "class.trial.users",
        "is also in the class 'pro'",
    ),
    "an absurd id": ('[team." a"]\nlimits = ["$1"]\n', 1, "team. a", "white space"),
    "per cent": ("[team.a]\nalert_at = [80, 0]\n", 2, "team.a.alert_at", "percentages"),
    "true": ("[team.a]\nalert_at = true\n", 2, "team.a.alert_at", "percentages"),
    "a dotted key": ('[team]\nother.limits = ["$1"]\nsearch.limits = ["x"]\n', 3, "team.search.limits", "'x'"),
    "a quoted name": ('[user."a]b.c"]\nlimits = "x"\n', 2, "user.a]b.c.limits", "'x'"),
    "syntax": ('[user]\nlimits = ["$1/day"\n[team]\n', 3, "", ""),
    "twice": ('[user]\nlimits = ["$1"]\n[team]\n[user]\nlimits = ["$2"]\n', 4, "", ""),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_its_line_and_key(tmp_path: Path, name: str) -> None:
    text, line, key, word = MISTAKES[name]
    path = tmp_path / "budgets.toml"
    found = mistake(path, text)
    assert found.startswith(f"{path}, line {line}: {key}: " if key else f"{path}, line {line}"), found
    assert word in found


MISTAKES_IN_YAML = {
    "a sentence": ("user:\n  limits:\n  - $1/day\n  - elephant\n", 2, "user.limits", "elephant"),
    "a name with dots": ("user:\n  a.b@c.d:\n    limits: [x]\n", 3, "user.a.b@c.d.limits", "'x'"),
    "a key": ("team:\n  a:\n    limits: [$1]\n  b:\n    limit: [$1]\n", 5, "team.b.limit", "did you mean"),
    "a list": ("- user\n", None, "", "a table of user"),
    "a word": ("user\n", None, "", "a table of user"),
    "nothing that is no table": ("[]\n", None, "", "a table of user"),
    "nothing said": ("user:\n", 1, "user", "table"),
    "twice": ("user:\n  limits: [$1]\nuser:\n  limits: [$2]\n", 3, "", "'user' appears twice"),
    "one number twice": ("user:\n  1: {limits: [$1]}\n  '1': {limits: [$2]}\n", 3, "", "'1' appears twice"),
    "a key of no name": ("? [a, b]\n: 1\n", 1, "", "a word or a number"),
    "a date that is none": ("user: 2020-13-45\n", None, "", "month"),
    "a tag": ("user: !!python/object:os.system {}\n", 1, "", "constructor"),
    "two documents": ("user: {}\n---\nuser: {}\n", 2, "", "document"),
    "syntax": ("user: [\n", 2, "", ""),
    "itself": ("user: &a\n  b: *a\n", None, "", "nested too deeply"),
}


@pytest.mark.parametrize("name", MISTAKES_IN_YAML)
def test_a_mistake_in_yaml_names_its_line_and_key(tmp_path: Path, name: str) -> None:
    text, line, key, word = MISTAKES_IN_YAML[name]
    path = tmp_path / "budgets.yaml"
    found = mistake(path, text)
    where = f"{path}, line {line}" if line else f"{path}: "
    assert found.startswith(f"{where}: {key}: " if key else where), found
    assert word in found


def test_limits_of_a_scope_stand_in_one_place(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text('[team.a]\nlimits = ["$1"]\n[user]\nlimits = ["$1/day"]\n')
    for given_elsewhere in ({"user_limits": "$2/day"}, {"default_limit": "2"}):
        settings = BudgetSettings(file=str(path), **given_elsewhere)  # type: ignore[arg-type]
        with pytest.raises(
            BudgetSettingsError, match=r"line 4: user\.limits: the environment sets limits of every user"
        ):
            settings.read_policy()
    found = BudgetSettings(file=str(path), team_limits="$2/day", run_limits="$3").read_policy()
    assert said(found, "team", "a") == ["$1"] and said(found, "team", "b") == ["$2 per day"]
    assert said(found, "user", "x") == ["$1 per day"] and said(found, "run", "x") == ["$3"]


def test_a_table_without_limits_leaves_those_of_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text("[user]\nalert_at = [50]\n")
    policy = BudgetSettings(file=str(path), user_limits="$2/day").read_policy()
    assert said(policy, "user", "x") == ["$2 per day"] and policy.scopes["user"].alert_at == (50,)


def test_a_short_form_beside_the_list_is_an_error() -> None:
    with pytest.raises(BudgetSettingsError, match="USER_LIMITS"):
        BudgetSettings(default_limit="1", default_window="day", user_limits="$2/day")
    both = BudgetSettings(default_limit="1", default_window="day", user_limits="$20/month")
    assert said(both.read_policy(), "user", "x") == ["$1 per day", "$20 per month"]


HOSTILE: dict[str, Callable[[Path], object]] = {
    "missing.toml": lambda path: None,
    "directory.toml": lambda path: path.mkdir(),
    "pipe.toml": os.mkfifo,
    "bytes.toml": lambda path: path.write_bytes(b"\xff\xfe[user]"),
    "null.toml": lambda path: path.write_bytes(b"[user]\n\0"),
    "null.yaml": lambda path: path.write_bytes(b"user:\n\0"),
    "huge.toml": lambda path: path.write_bytes(b"#" * (17 * 1024 * 1024)),
    "deep.toml": lambda path: path.write_text("x = " + "[" * 100_000),
    "deep.yaml": lambda path: path.write_text("[" * 100_000),
    "digits.toml": lambda path: path.write_text("x = " + "1" * 10_000),
    "digits.yaml": lambda path: path.write_text("user: " + "1" * 10_000),
    "brackets.toml": lambda path: path.write_text("[" * 1_000_000),
    "laughs.yaml": lambda path: path.write_text(
        "a0: &a0 {}\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_a_mistake(tmp_path: Path, name: str) -> None:
    HOSTILE[name](tmp_path / name)
    with pytest.raises(BudgetSettingsError) as caught:
        read_file(tmp_path / name, "UTC", {})
    assert name in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text("")
    path.chmod(0)
    with pytest.raises(BudgetSettingsError, match="cannot be read"):
        read_file(path, "UTC", {})


_WORDS = st.sampled_from(
    ["user", "team", "run", "class", "limits", "users", "alert_at", "alice", "pro", "*@x", "$1/day", "credit", "x"]
)
_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.binary(max_size=3), st.dates(), _WORDS
)
_KEYS = st.one_of(_WORDS, st.integers(-3, 3), st.booleans(), st.none(), st.floats(allow_nan=False), st.text(max_size=3))
_NESTED = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=4)),
    max_leaves=12,
)
_SECTIONS = st.dictionaries(
    st.sampled_from(["user", "team", "tag", "run", "project", "class"]),
    st.dictionaries(st.one_of(_WORDS, _KEYS), _NESTED, max_size=4),
    max_size=4,
)


@given(st.one_of(_NESTED, _SECTIONS, _SECTIONS))
@examples(250)
def test_any_data_is_a_policy_or_a_mistake(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = _folder(tmp_path_factory) / "generated.yaml"
    path.write_text(yaml.safe_dump(data), "utf-8")
    _policy_or_mistake(path)


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(IN_TOML.splitlines())).map("\n".join)))
@examples(300)
def test_any_text_is_a_policy_or_a_mistake(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    for name in ("generated.toml", "generated.yaml"):
        path = _folder(tmp_path_factory) / name
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        _policy_or_mistake(path)


def _folder(factory: pytest.TempPathFactory) -> Path:
    folder = factory.getbasetemp() / "policies"
    folder.mkdir(exist_ok=True)
    return folder


def _policy_or_mistake(path: Path) -> None:
    try:
        policy = read_file(path, "UTC", {})
    except BudgetSettingsError as error:
        assert str(error).startswith(str(path))
        return
    for user_class in (None, *policy.classes):
        policy.defaults_of([Subject(scope, "alice") for scope in ("user", "team", "run")], user_class)
