"""A ledger on each engine that commands can use, and commands that run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from litellm_budget_plugin.cli.app import app
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import open_store
from tests.stores.engines import ENGINES
from tests.stores.postgres import server as postgres


@pytest.fixture(scope="session", autouse=True)
def servers_end() -> Iterator[None]:
    """Stop the servers that tests have started."""
    yield
    postgres.remove_shared()


class Command:
    """Runs commands on one ledger, in this process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, *arguments: str, code: int = 0) -> Result:
        """Return the result of a command. It must end with `code`, and never with an exception that click does not know."""
        done = CliRunner().invoke(app, arguments, prog_name="litellm-budget")
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
        assert done.exit_code == code, done.output
        return done

    def rows(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        """Return the rows that a command prints with --json."""
        return [json.loads(line) for line in self.run(*arguments, "--json", code=code).stdout.splitlines()]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Command]:
    """Return a function that makes commands whose settings name the ledger at a URL."""

    def made(url: str) -> Command:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LITELLM_BUDGET_STORE_URL", url)
        monkeypatch.setenv("LITELLM_BUDGET_PROJECT", "p")
        return Command(url)

    return made


@pytest.fixture(params=sorted(set(ENGINES) - {"memory"}))
def on(request: pytest.FixtureRequest, tmp_path: Path, command: Callable[[str], Command]) -> Command:
    """Commands on an empty ledger, on each engine in turn."""
    made = command(ENGINES[request.param](tmp_path))
    with closing(open_store(made.url)):  # commands make no file
        return made


@pytest.fixture
def on_file(tmp_path: Path, command: Callable[[str], Command]) -> Command:
    """Commands on an empty ledger in a file."""
    made = command(f"sqlite:///{tmp_path}/ledger.db")
    with closing(open_store(made.url)):
        return made


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Iterator[Callable[[Command], Store]]:
    """Open the store behind commands."""
    stores: list[Store] = []

    def open_it(commands: Command) -> Store:
        stores.append(open_store(commands.url))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()
