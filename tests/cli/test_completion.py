"""litellm-budget completion: a shell with its script completes commands and options."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from litellm_budget_plugin.cli.app import app
from tests.cli.conftest import Command


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH that contains the command."""
    script = tmp_path / "litellm-budget"
    script.write_text(f"#!{sys.executable}\nfrom litellm_budget_plugin.cli import main\nmain()\n")
    script.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def test_bash_completes(path: str) -> None:
    """Complete one word of each kind in one shell: a command, an option, a choice, and a command of a group."""
    asked = [["us"], ["usage", "--fo"], ["usage", "--format", "fo"], ["keys", "rev"]]
    lines = ['eval "$(litellm-budget completion bash)"']
    for words in asked:
        lines += [
            f"COMP_WORDS=(litellm-budget {' '.join(words)}); COMP_CWORD={len(words)}; COMPREPLY=()",
            '_litellm_budget_completion litellm-budget; echo "${COMPREPLY[@]}"',
        ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split("\n") == ["usage users", "--format", "focus", "revoke", ""] and done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_whose_question_is_answered(shell: str, path: str) -> None:
    script = CliRunner().invoke(app, ["completion", shell]).stdout
    asked = f"_LITELLM_BUDGET_COMPLETE={shell}_complete"
    assert asked in script and "litellm-budget" in script
    variables = {
        "_LITELLM_BUDGET_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "litellm-budget doc", "COMP_CWORD": "doc" if shell == "fish" else "1",
    }  # fmt: skip
    done = subprocess.run(
        ["litellm-budget"],
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "doctor" in done.stdout


def test_bash_falls_back_to_names_of_files() -> None:
    assert "complete -o default -o nosort -F" in CliRunner().invoke(app, ["completion", "bash"]).stdout


def test_another_shell_is_a_mistake(on_file: Command) -> None:
    assert "'tcsh' is not one of" in on_file.run("completion", "tcsh", code=2).stderr
