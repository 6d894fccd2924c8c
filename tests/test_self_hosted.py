"""examples/self_hosted: its services, started as processes with the commands and the environment of the compose file."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from playwright.sync_api import expect

from tests.pages import ROOT
from tests.server.browser import Watched, chromium
from tests.server.process import Served, free_port
from tests.stores.processes import die_with_the_parent

FILE = ROOT / "examples" / "self_hosted" / "compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
BUDGETS, CHAT = SERVICES["budgets"], SERVICES["chat"]


def _first_key(directory: Path) -> str:
    """Create a key with the command that the file's comment gives."""
    [command] = re.findall(r"docker compose run --rm budgets (.*?) +#", FILE.read_text())
    program = [sys.executable, "-m", "litellm_budget_plugin", *shlex.split(command)]
    said = subprocess.run(program, cwd=directory, check=True, capture_output=True, text=True, env=_environment())
    return said.stdout.strip()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    return {**kept, "PYTHONPATH": str(ROOT)}


@contextmanager
def _chat(budgets: str, key: str, log: Path) -> Iterator[str]:
    """The chat's URL, while its service runs with the ledger at the URL `budgets`."""
    program, script, *options = CHAT["entrypoint"]
    assert program == "python" and CHAT["volumes"] == ["..:/examples:ro"]
    port = free_port()
    command = [sys.executable, script.replace("/examples", str(ROOT / "examples")), *options, "--port", str(port)]
    given = {name: value.replace("http://budgets:8321", budgets) for name, value in CHAT["environment"].items()}
    with log.open("wb") as said:
        process = subprocess.Popen(
            [each.replace("0.0.0.0", "127.0.0.1") for each in command],
            stderr=said, env={**_environment(), **given, "LITELLM_BUDGET_API_KEY": key}, preexec_fn=die_with_the_parent,
        )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/", timeout=60).raise_for_status()
                break
            except httpx.ConnectError as error:
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(log.read_text()) from error
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def test_the_chat_and_the_dashboard_show_one_ledger(tmp_path: Path) -> None:
    key = _first_key(tmp_path)
    command, store, *options = BUDGETS["command"]
    assert command == "serve" and BUDGETS["ports"] == ["127.0.0.1:8321:8321"]
    served = Served(tmp_path, *[each.replace("0.0.0.0", "127.0.0.1") for each in options], store_url=store)
    try:
        with chromium() as browser, _chat(served.base, key, tmp_path / "chat.log") as url:
            tab = Watched(browser, url, "402")
            page, answer = tab.page, tab.page.locator("output")
            page.goto("/")
            expect(page.locator("#budget")).to_have_text("$0.01 of $0.01 per day left")
            page.get_by_role("button", name="Ask").click()
            expect(answer).to_have_text("Forty-two, as far as anybody knows. ")
            expect(page.locator("#budget")).not_to_have_text("$0.01 of $0.01 per day left")
            for _ in range(12):
                with page.expect_response("**/chat") as said:
                    page.get_by_role("button", name="Ask").click()
                if said.value.status != 200:
                    break
            assert said.value.status == 402
            expect(answer).to_contain_text("user 'alice' has spent")
            page.get_by_label("You are").select_option("Bob")
            expect(page.locator("#budget")).to_have_text("$0.01 of $0.01 per day left")
            tab.close()
            dashboard = Watched(browser, served.base)
            dashboard.page.goto("/login")
            dashboard.page.get_by_label("Key").fill(key)
            dashboard.page.get_by_role("button").click()
            expect(dashboard.page.get_by_role("link", name="alice").first).to_be_visible()
            dashboard.close()
    finally:
        served.terminate()


def test_both_services_have_the_image_of_the_endpoint() -> None:
    deployed = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["budgets"]
    assert BUDGETS["image"] == CHAT["image"] == deployed["image"]
    context, dockerfile = BUDGETS["build"]["context"], BUDGETS["build"]["dockerfile"]
    assert (FILE.parent / context / dockerfile).resolve() == ROOT / "deploy" / "Dockerfile"
