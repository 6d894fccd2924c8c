"""The examples run without an API key, and print the expected results."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import sys
from typing import Any

import yaml

from tests.pages import ROOT, blocks
from tests.warm import in_processes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLES = ROOT / "examples"


def _said(name: str) -> str:
    """Return the output of a script. Run in its own process."""
    os.environ.pop("OPENAI_API_KEY", None)
    sys.path.insert(0, str(EXAMPLES))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return said.getvalue()


def test_quickstart_serves_who_has_money() -> None:
    said = in_processes(1, _said, "quickstart.py")[0]
    assert re.search(r"alice  6 served, 0 refused", said), said
    assert re.search(r"carol  0 served, 6 refused", said), said


def test_a_run_stops_its_sub_agent_that_loops() -> None:
    said = in_processes(1, _said, "agent_run.py")[0]
    assert re.search(r"search: done after 3 steps", said), said
    assert re.search(r"loop: stopped after [4-7] steps and \$0\.00\d+, by its run's budget of \$0\.005", said), said


def test_a_batch_leaves_out_who_has_no_budget_left() -> None:
    said = in_processes(1, _said, "batch_over_threads.py")[0]
    assert re.search(r"acme: .*\n  12 done", said), said
    # Five are paid for. The rest of the budget is less than the most that a sixth would cost.
    assert re.search(r"globex: \$0\.00075 of \$0\.004 per day left\n +7 left out.*\n +5 done", said), said


def _chat(questions: int) -> list[tuple[int, str]]:
    """Return the answer to each of alice's questions, then her budget, then the answer to a request without a token."""
    os.environ.pop("OPENAI_API_KEY", None)
    sys.path.insert(0, str(EXAMPLES))
    from fastapi.testclient import TestClient
    from fastapi_chat import app  # type: ignore[import-not-found, unused-ignore]

    client: Any = TestClient(app)
    alice = {"Authorization": "Bearer token-of-alice"}
    answers = [client.post("/chat", json={"question": "Why?"}, headers=alice) for _ in range(questions)]
    answers += [client.get("/budget", headers=alice), client.post("/chat", json={"question": "Why?"})]
    return [(answer.status_code, answer.text) for answer in answers]


def test_a_chat_streams_until_the_budget_is_used_up() -> None:
    *answers, budget, nobody = in_processes(1, _chat, 12)[0]
    assert answers[0] == (200, "Forty-two, as far as anybody knows. ")
    assert answers[-1][0] == 402 and "'alice' has spent" in answers[-1][1]
    assert budget[0] == 200 and '"budget": "$0.01 per day"' in budget[1]
    assert nobody[0] == 401


def test_the_page_of_open_webui_shows_the_example() -> None:
    page = {block.language: block.text for block in blocks(ROOT / "docs" / "use-with" / "open-webui.md")}
    example = EXAMPLES / "open_webui"
    assert yaml.safe_load(page["yaml"]) == yaml.safe_load((example / "config.yaml").read_text())
    shown, whole = tomllib.loads(page["toml"]), tomllib.loads((example / "budgets.toml").read_text())
    assert shown["user"].items() <= whole["user"].items()
