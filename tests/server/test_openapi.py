"""The OpenAPI document is true: generated requests never cause a 5xx or a status that it does not list."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import httpx
import pytest

from litellm_budget_plugin.core.commands import Command
from tests.generated import times
from tests.server.process import Served

REQUESTS = times(1250)
_CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.timeout(1500)  # a thousand requests and more, on busy machines
def test_generated_requests_find_nothing(tmp_path: Path) -> None:
    """Valid requests, invalid ones and edge cases, for every endpoint, on a server that has keys."""
    server = Served(tmp_path, "--log-requests")
    try:
        key = server.create_key("p")
        server.terminate()
        server.start()
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.base}/openapi.json",
            "--header", f"Authorization: Bearer {key}", "--phases", "coverage,fuzzing", "--mode", "all", "--checks", _CHECKS,
            "--max-examples", str(times(80)), "--seed", "7", "--continue-on-failure", "--suppress-health-check", "all",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-6000:]
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
        assert not [line for line in lines if line.get("exception")]
        asked = [line["path"] for line in lines if line.get("key")]
    finally:
        server.kill()
    assert len(asked) >= REQUESTS, re.findall(r"\d+ generated", done.stdout)
    # The log of all requests contains no key.
    assert key not in server.log.read_text() and key.split("_", 2)[2] not in server.log.read_text()


def test_every_command_is_in_the_document(shared_server: Served) -> None:
    """The document contains nothing that is specific to Python."""
    document = httpx.get(f"{shared_server.base}/openapi.json").json()
    schemas = document["components"]["schemas"]
    named = {one["$ref"].rpartition("/")[2] for one in schemas["Command"]["oneOf"]}
    assert named == {cls.__name__ for cls in get_args(Command)}
    refs = set(re.findall(r"#/components/schemas/([^\"]+)", json.dumps(document)))
    assert refs <= schemas.keys() and "Keep" not in json.dumps(document)
    paths = {"/v1", "/v1/command", "/v1/commands", "/v1/sync", "/v1/projects", "/v1/rows/read", "/v1/rows/write"}
    subject = "/v1/subjects/{subject}"
    paths |= {"/v1/subjects", subject, "/v1/refunds", "/v1/usage"}
    paths |= {f"{subject}/{change}" for change in ("limits", "block", "unblock", "reset", "raise", "top-up")}
    assert paths | {"/get_budget", "/set_budget", "/healthz", "/readyz"} <= document["paths"].keys()
