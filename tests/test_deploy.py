"""The files in deploy/ agree with the package: what they start can be started, with options that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

import litellm_budget_plugin
from litellm_budget_plugin.cli.app import app
from tests.test_docs import _blocks

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
UNIT = (DEPLOY / "litellm-budget.service").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
PAGES = sorted((ROOT / "docs" / "how-to").glob("*endpoint.md"))


def parsed(arguments: list[str]) -> click.Context:
    """What the command line makes of its arguments, without doing it. Raises what click says against them."""
    command: click.Command = app
    context = click.Context(app)
    while isinstance(command, click.Group):
        name, command, arguments = command.resolve_command(context, arguments)  # type: ignore[assignment]
    return command.make_context(name, list(arguments), parent=context)


def test_the_image_starts_the_server() -> None:
    [entry] = re.findall(r'ENTRYPOINT \["(.*)"\]', DOCKERFILE)
    assert entry == "litellm-budget"
    [command] = re.findall(r"\nCMD (\[.*\])", DOCKERFILE)
    assert parsed(yaml.safe_load(command)).params["host"] == "0.0.0.0"
    [extras] = re.findall(r"'\.\[(.*)\]'", DOCKERFILE)
    declared = re.findall(r"(?m)^(\w+) = \[", (ROOT / "pyproject.toml").read_text())
    assert set(extras.split(",")) <= set(declared)
    assert re.search(r"(?m)^USER \d+:\d+$", DOCKERFILE) and "HEALTHCHECK" in DOCKERFILE
    assert all(re.search(r":\d+\.\d+\.\d+-", line) for line in re.findall(r"(?m)^FROM .*", DOCKERFILE))


def test_the_compose_file_starts_the_server() -> None:
    budgets, postgres = COMPOSE["services"]["budgets"], COMPOSE["services"]["postgres"]
    assert parsed(budgets["command"]).params["workers"] == 2
    assert budgets["image"] == f"litellm-budget:{litellm_budget_plugin.__version__}"
    assert (DEPLOY / budgets["build"]["context"] / budgets["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert budgets["depends_on"]["postgres"]["condition"] == "service_healthy" and "healthcheck" in postgres
    assert re.fullmatch(r"postgres:\d+\.\d+-\w+", postgres["image"])
    assert budgets["ports"] == ["127.0.0.1:8321:8321"] and "ports" not in postgres
    assert set(COMPOSE["secrets"]) == set(postgres["secrets"])


def test_the_unit_starts_the_server() -> None:
    [start] = re.findall(r"(?m)^ExecStart=(.*)$", UNIT)
    program, *arguments = shlex.split(start)
    assert program.endswith("/bin/litellm-budget")
    assert parsed(arguments).params["store"] == "sqlite:////var/lib/litellm-budget/budgets.db"
    for word in ("User=litellm-budget", "ProtectSystem=strict", "NoNewPrivileges=yes", "StateDirectory=litellm-budget"):
        assert word in UNIT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_the_pages_are_accepted(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_STORE_URL", "postgresql://budgets@postgres/budgets")
    found = 0
    for block in _blocks(page):
        for line in block.text.splitlines():
            _, told, command = re.split(r"\s#", line)[0].partition(
                "litellm-budget " if "compose run" not in line else "budgets "
            )
            if told and re.match(r"(keys|serve|copy|journal) ", command):
                parsed(shlex.split(command))
                found += 1
    assert found
