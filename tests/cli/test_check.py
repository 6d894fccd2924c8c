"""litellm-budget check, as CI uses it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from litellm_budget_plugin.cli.app import app


def check(path: Path, text: str, *more: str) -> Result:
    path.write_text(text)
    return CliRunner().invoke(app, ["check", str(path), *more])


def test_a_file_without_mistakes(tmp_path: Path) -> None:
    text = '[user]\nlimits = ["$1/day", "$2/day for gpt-4o*"]\n[team.search]\nlimits = ["$5/month for anthropic/*"]\n'
    done = check(tmp_path / "budgets.toml", text, "--timezone", "Europe/Berlin")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}/budgets.toml: no mistakes; 3 limits in 2 tables\n"
    done = check(tmp_path / "budgets.yaml", "run:\n  limits: $1\n")
    assert (done.exit_code, done.stdout.partition(": ")[2]) == (0, "no mistakes; 1 limit in 1 table\n")


def test_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    done = check(path, '[user]\nlimits = ["1 elephant"]\n')
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {path}, line 2: user.limits: '1 elephant' is not a budget")
    path.unlink()
    done = CliRunner().invoke(app, ["check", str(path)])
    assert done.exit_code == 1 and "cannot be read" in done.stderr


def test_a_zone_that_is_none(tmp_path: Path) -> None:
    done = check(tmp_path / "budgets.toml", "", "--timezone", "Mars/Olympus")
    assert done.exit_code == 1 and "Mars/Olympus" in done.stderr


@pytest.mark.parametrize(
    ("model", "near"),
    [
        ("gpt-4oo", "; did you mean 'gpt-4o'?"),
        ("opnai/*", "; did you mean 'openai/*'?"),
        ("claude-3-5-sonet", "; did you mean 'claude-3-5-sonnet'?"),
        ("zzz*", ""),
    ],
)
def test_a_model_that_litellm_does_not_know_is_a_warning(tmp_path: Path, model: str, near: str) -> None:
    path = tmp_path / "budgets.toml"
    done = check(path, f'[user]\nlimits = ["$1 for gpt-4o-2024-08-06"]\n[class.pro]\nlimits = ["$1 for {model}"]\n')
    assert done.exit_code == 0 and "no mistakes" in done.stdout
    assert done.stderr == f"warning: {path}: LiteLLM knows no model {model!r}{near}\n"
