"""litellm-budget alerts test: one line for each channel, and exit code 1 if one did not accept the alert."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from litellm_budget_plugin.cli.app import app
from tests.alerts.receiver import Receiver


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_channel_is_tried(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_ALERT_WEBHOOK", f"{receiver.url}?a=SECRET, {receiver.url}?b=SECRET")
    done = CliRunner().invoke(app, ["alerts", "test"])
    assert done.exit_code == 0, done.output
    assert [request.json["kind"] for request in receiver.requests] == ["test", "test"]
    assert done.stdout.count("yes") == 3 and "SECRET" not in done.output
    receiver.script.append(500)
    done = CliRunner().invoke(app, ["alerts", "test", "--json"])
    assert done.exit_code == 1 and done.stderr.count("webhooks are not signed") == 1
    place = receiver.url.split("/")[2]
    assert [(row["channel"], row["sent"]) for row in map(json.loads, done.stdout.splitlines())] == [
        ("log", True), (f"webhook 1 {place}", False), (f"webhook 2 {place}", True),
    ]  # fmt: skip


def test_one_webhook_that_signs(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_ALERT_WEBHOOK", receiver.url)
    monkeypatch.setenv("LITELLM_BUDGET_ALERT_SECRET", "key")
    done = CliRunner().invoke(app, ["alerts", "test"])
    assert done.exit_code == 0 and "webhook 127.0.0.1 " in done.stdout and "unsigned" not in done.stderr


def test_alerts_that_are_off_are_said(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_ALERT_WEBHOOK", receiver.url)
    monkeypatch.setenv("LITELLM_BUDGET_ALERT_AT", "off")
    done = CliRunner().invoke(app, ["alerts", "test"])
    assert (done.exit_code, done.stdout) == (1, "") and "alerts are off" in done.stderr
    assert "Usage" not in done.stderr and not receiver.requests


def test_a_mistake_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_ALERT_WEBHOOK", "nowhere SECRET")
    done = CliRunner().invoke(app, ["alerts", "test"])
    assert done.exit_code == 1 and "ALERT_WEBHOOK" in done.output and "SECRET" not in done.output
