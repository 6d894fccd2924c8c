"""The files in deploy/ agree with the package: the commands that they start exist, with these options."""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import click
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import litellm_budget_plugin
from litellm_budget_plugin.cli.app import app
from litellm_budget_plugin.server.serving import _MOST_CONNECTIONS
from tests.test_docs import _blocks

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
UNIT = (DEPLOY / "litellm-budget.service").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
EXTRAS = ("server", "postgres", "redis", "metrics")
IMAGE_PYTHON = {"python_version": "3.12", "python_full_version": "3.12.12"}
PAGES = sorted((ROOT / "docs" / "how-to").glob("*endpoint.md"))


def parsed(arguments: list[str]) -> click.Context:
    """Parse a command line without running it. Raises click's errors."""
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
    assert re.search(r"(?m)^USER \d+:\d+$", DOCKERFILE) and "HEALTHCHECK" in DOCKERFILE
    assert all(re.search(r":\d+\.\d+\.\d+-", line) for line in re.findall(r"(?m)^FROM .*", DOCKERFILE))


def test_the_image_installs_what_is_pinned_and_nothing_else() -> None:
    """The pinned packages are all that the package needs, in versions that it accepts."""
    installs = re.findall(r"pip (?:install|wheel) [^&]*", DOCKERFILE)
    assert installs and all("--requirement deploy/" in each or "--no-deps" in each for each in installs)
    assert "--no-build-isolation" in DOCKERFILE
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional = project["project"]["optional-dependencies"]
    needed = [*project["project"]["dependencies"], *(each for extra in EXTRAS for each in optional[extra])]
    for needs, file in ((needed, "requirements.txt"), (project["build-system"]["requires"], "build-requirements.txt")):
        lines = [Requirement(line) for line in (DEPLOY / file).read_text().splitlines() if line and line[0] != "#"]
        assert all(re.fullmatch(r"==[0-9][^*,]*", str(line.specifier)) for line in lines)
        pinned = {canonicalize_name(line.name): next(iter(line.specifier)).version for line in lines}
        for need in map(Requirement, needs):
            if need.marker is not None and not need.marker.evaluate(IMAGE_PYTHON):
                continue
            assert need.specifier.contains(pinned[canonicalize_name(need.name)]), need
        for name, version in pinned.items():
            # Their own requirements are pinned, too. Packages that are not installed here are for other systems.
            with suppress(PackageNotFoundError):
                for need in map(Requirement, requires(name) or ()):
                    if need.marker is None or need.marker.evaluate({"extra": "", **IMAGE_PYTHON}):
                        assert canonicalize_name(need.name) in pinned, (name, version, need)


def test_x_forwarded_for_is_believed_from_one_proxy() -> None:
    [network] = COMPOSE["networks"]["default"]["ipam"]["config"]
    for command in (
        COMPOSE["services"]["budgets"]["command"],
        shlex.split(re.findall(r"(?m)^ExecStart=(.*)$", UNIT)[0])[1:],
    ):
        [proxy] = parsed(command).params["proxies"]
        assert proxy in (network["gateway"], "127.0.0.1")


def test_a_worker_may_have_all_its_connections() -> None:
    [limit] = re.findall(r"(?m)^LimitNOFILE=(\d+)$", UNIT)
    assert min(int(limit), COMPOSE["services"]["budgets"]["ulimits"]["nofile"]) > 2 * _MOST_CONNECTIONS


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
