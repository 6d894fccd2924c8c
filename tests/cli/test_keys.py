"""litellm-budget keys, as a person uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from litellm_budget_plugin.cli.app import app

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    url = f"sqlite:///{tmp_path}/ledger.db"
    return lambda command, *more: CliRunner().invoke(app, ["keys", command, url, *more])


def test_a_key_is_made_listed_and_revoked(run: Run) -> None:
    made = run("create", "--project", "größe & co", "--label", "worker: 1", "--read-only")
    key = made.stdout.strip()
    assert made.exit_code == 0 and key.startswith("lbk_") and "read-only for project 'größe & co'" in made.stderr
    second = run("create", "--project", "shop").stdout.strip()
    listed = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    assert [(one["id"], one["project"], one["access"], one["label"]) for one in listed] == [
        (key[4:16], "größe & co", "read-only", "worker: 1"), (second[4:16], "shop", "read-write", "key"),
    ]  # fmt: skip
    assert key not in run("list").stdout and second[17:] not in run("list").stdout
    # A key is revoked by its id, or by the key itself.
    assert "revoked" in run("revoke", key[4:16]).stdout
    assert "revoked" in run("revoke", second).stdout
    assert run("list").stderr == "no keys\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create"], "Missing option '--project'"),
        (["create", "--project", ""], "project must have 1 to 256 characters"),
        (["create", "--project", "litellm-budget:keys"], "holds the keys themselves"),
        (["create", "--project", "p", "--label", "x" * 101], "label must have at most 100 characters"),
        (["create", "--project", "p", "--label", "a\nb"], "printable"),
        (["revoke", "nobody"], "no key has the id 'nobody'"),
    ],
)
def test_what_cannot_be_done(run: Run, arguments: list[str], said: str) -> None:
    run("create", "--project", "there")
    done = run(*arguments)
    assert done.exit_code == 2 and said in done.stderr


@pytest.mark.parametrize("arguments", [["list"], ["revoke", "nobody"]])
def test_a_mistyped_file_is_not_made(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.exit_code == 1 and f"there is no ledger {tmp_path}/ledger.db" in done.stderr
    assert not list(tmp_path.iterdir())
