"""litellm-budget doctor: its findings, its exit codes, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import litellm
import pytest
from click.testing import CliRunner

from litellm_budget_plugin.cli.app import app
from litellm_budget_plugin.cli.doctor import litellm as on_litellm
from litellm_budget_plugin.cli.doctor import settings as on_settings
from litellm_budget_plugin.cli.doctor import store as on_store
from litellm_budget_plugin.core.accounts import ESTIMATED, Subject, Usage
from litellm_budget_plugin.core.commands import Accounts, SetLimits, Settle
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.hooks import admission, call, instrument, selfcheck, versions
from litellm_budget_plugin.settings import GivenSettings
from litellm_budget_plugin.stores.protocol import Store, ask
from litellm_budget_plugin.stores.registry import open_store
from tests.cli.shells import in_pipe, on_terminal
from tests.stores.engines import ENGINES

ROOT = Path(__file__).parents[2]
PROJECT = Subject("project", "default")
DOLLAR = 10**9


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory for the test. A busy machine, a full disk and a new LiteLLM cause no warnings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITELLM_BUDGET_STORE_TIMEOUT", "30")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=2**40))
    monkeypatch.setattr(on_litellm, "litellm_version", lambda: versions.TESTED[-1])


def _filled(url: str) -> None:
    with closing(open_store(url)) as store:
        alice = Subject("user", "alice")
        ask(store, SetLimits("limits", "default", alice, parse_limits("$10 per month"), ()))
        ask(store, Settle("call", "default", (alice, PROJECT), ("gpt-4o",), 2 * DOLLAR, "gpt-4o"))


def _doctor(*arguments: str, code: int) -> list[dict[str, str]]:
    done = CliRunner().invoke(app, ["doctor", *arguments, "--json"])
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(one["advice"] for one in found if one["state"] != "ok"), found
    assert code == max({"ok": 0, "warning": 1, "failed": 2}[one["state"]] for one in found)
    return found


def _of(found: list[dict[str, str]], check: str, state: str = "ok") -> list[str]:
    return [one["said"] for one in found if (one["check"], one["state"]) == (check, state)]


def _rows(store: Store) -> list[object]:
    return [(project, store.export(project, "", 1000)) for project in store.projects()]


@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"memory"}))
def test_all_is_well_on_every_engine_and_nothing_stays(engine: str, tmp_path: Path) -> None:
    url = ENGINES[engine](tmp_path)
    _filled(url)
    with closing(open_store(url)) as store:
        before = _rows(store)
        found = _doctor("--store", url, code=0)
        assert _rows(store) == before
    for check in (
        "store",
        "store speed",
        "store writes",
        "clock",
        "limits",
        "gate",
        "prices",
        "estimates",
        "LiteLLM",
        "disk",
    ):
        assert _of(found, check), check
    assert len(_of(found, "gate")) == len(selfcheck.KINDS) == 4
    assert "version" in _of(found, "store")[0]
    assert not [path for path in tmp_path.iterdir() if "journal" in path.name]


def test_it_says_where_each_setting_comes_from_and_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("litellm_budget_project", "from-environment")
    monkeypatch.setenv("LITELLM_BUDGET_TIMEZONE", "")
    monkeypatch.setenv("LITELLM_BUDGET_API_KEY", "s3cret-key")
    monkeypatch.setenv("LITELLM_BUDGET_HEADERS", '{"X-Key": "s3cret-header"}')
    (tmp_path / ".env").write_text(
        "LITELLM_BUDGET_PROJECT=from-file\nLITELLM_BUDGET_USER_LIMITS='$1/day'\n"
        "LITELLM_BUDGET_STORE_URL=https://:s3cret-in-url@127.0.0.1:9/ledger?token=s3cret-token\n"
    )
    found = _doctor(code=2)
    said = _of(found, "setting")
    assert "LITELLM_BUDGET_PROJECT = from-environment (environment)" in said
    assert "LITELLM_BUDGET_USER_LIMITS = $1/day (.env)" in said
    assert "LITELLM_BUDGET_API_KEY = *** (environment)" in said and "LITELLM_BUDGET_HEADERS = *** (environment)" in said
    assert "LITELLM_BUDGET_STORE_URL = https://***@127.0.0.1:9/ledger?token=*** (.env)" in said
    assert "TIMEZONE" in said[-1] and "PROJECT," not in said[-1]
    assert _of(found, "limits") == ["set in the environment: each user"]
    assert "s3cret" not in json.dumps(found)
    _filled("sqlite:///ledger.db")
    given = _of(_doctor("--store", "sqlite:///ledger.db", "--project", "default", code=0), "setting")
    assert "LITELLM_BUDGET_PROJECT = default (argument)" in given
    assert "LITELLM_BUDGET_STORE_URL = sqlite:///ledger.db (argument)" in given


def test_people_read_how_many_settings_are_by_default() -> None:
    """The names of default settings are for programs."""
    [few], [many] = (
        [one.said for one in on_settings.check_settings({}, every) if one.said.startswith("by default")]
        for every in (False, True)
    )
    assert few == f"by default: {many.count(',') + 1} settings" and "TIMEZONE" in many


def test_what_was_estimated_names_no_version() -> None:
    usage = Usage(spent=DOLLAR)
    found = on_litellm.check_estimated(on_litellm.Recent({"gpt-4o": usage}, Usage()))
    assert found.state == "ok" and "$0.00 of $1.00 " in found.said and "version" not in found.said


@pytest.mark.parametrize(
    ("name", "value", "check", "state", "said"),
    [
        ("USER_LIMIT", "$1", "setting", "failed", "LITELLM_BUDGET_USER_LIMIT is not a setting"),
        ("COLOUR_OF_THE_SKY", "blue", "setting", "warning", "is not a setting, and is ignored"),
        ("DEFAULT_LIMIT", "ten", "settings", "failed", "LITELLM_BUDGET_DEFAULT_LIMIT"),
        ("MODE", "shadow", "settings", "warning", "no call is refused"),
        ("FILE", "missing.toml", "limits", "failed", "missing.toml"),
        ("FILE", "broken.toml", "limits", "failed", "broken.toml"),
        ("STORE_URL", "redis://:s3cret@127.0.0.1:1/0", "store", "failed", "127.0.0.1:1"),
        ("STORE_URL", "nosql://:s3cret@x", "store", "failed", "no store is called nosql://"),
        ("STORE_URL", "memory://", "store", "warning", "ends with each process"),
        ("STORE_URL", "sqlite:///new.db", "store", "warning", "there is no ledger"),
        ("STORE_URL", "sqlite:////no/such/place/new.db", "store", "failed", "cannot be created"),
        ("STORE_URL", "sqlite:///broken.toml", "store", "failed", "not a SQLite database"),
    ],
)
def test_what_is_wrong_is_a_finding_and_the_rest_is_looked_at(
    name: str, value: str, check: str, state: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _filled("sqlite:///litellm_budget.db")
    (tmp_path / "broken.toml").write_text("no table at all, and no database, but long enough to be one")
    monkeypatch.setenv(f"LITELLM_BUDGET_{name}", value)
    found = _doctor(code=2 if state == "failed" else 1)
    assert any(said in one for one in _of(found, check, state)), found
    assert len(_of(found, "gate")) == 4
    assert "s3cret" not in json.dumps(found) and not (tmp_path / "new.db").exists()


def test_nothing_limited_is_said(tmp_path: Path) -> None:
    with closing(open_store("sqlite:///litellm_budget.db")) as store:
        ask(store, Settle("call", "default", (Subject("user", "a"), PROJECT), (), 0, "gpt-4o"))
    assert "nothing is limited" in _of(_doctor(code=1), "limits", "warning")[0]


def test_a_gate_that_does_not_hold_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _filled("sqlite:///litellm_budget.db")
    with monkeypatch.context() as patched:
        patched.setattr(admission, "_refuse", lambda *_: None)
        assert all("was not refused" in said for said in _of(_doctor(code=2), "gate", "failed"))
    with monkeypatch.context() as patched:
        patched.setattr(call.Call, "_settle", lambda self, cost, response=None: self.release())
        assert len([said for said in _of(_doctor(code=2), "gate", "failed") if "was not charged" in said]) == 4
    with monkeypatch.context() as patched:
        gone = instrument.PATCH_POINTS[0]._replace(path="litellm.utils:not_there")
        patched.setattr(instrument, "PATCH_POINTS", (gone, *instrument.PATCH_POINTS[1:]))
        assert "not_there is missing" in _of(_doctor(code=2), "gate", "failed")[0]
    assert instrument.in_place()[0] == ()


def test_without_litellm(tmp_path: Path) -> None:
    program = (
        "import sys\nsys.modules['litellm'] = None\nfrom litellm_budget_plugin.cli import main\n"
        "sys.argv = ['litellm-budget', 'doctor', '--json']\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "LiteLLM cannot be imported" in _of(found, "gate", "failed")[0]


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        (versions.TESTED[0], ""),
        (versions.TESTED[-1], ""),
        ("1.106.0", ""),
        ("1.999.0", "newer than"),
        ("2.0.0rc1", "newer than"),
        ("1.9.9", "older than"),
        ("(unknown version)", "has no readable version"),
    ],
)
def test_a_version_that_was_not_tested(installed: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said in versions.untested(installed) and bool(said) == bool(versions.untested(installed))
    monkeypatch.setattr(on_litellm, "litellm_version", lambda: installed)
    assert on_litellm.check_version().state == ("warning" if said else "ok")


def test_the_tested_versions_are_those_of_the_documentation() -> None:
    [sentence] = re.findall(r"(?s)Tested with LiteLLM (.*?);", (ROOT / "docs" / "guarantees.md").read_text("utf-8"))
    assert tuple(re.findall(r"\d+\.\d+\.\d+", sentence)) == versions.TESTED
    assert f'"litellm>={versions.TESTED[0]}"' in (ROOT / "pyproject.toml").read_text("utf-8")


class _Clocks:
    """A slow store with a wrong clock, and the clock of a machine that is otherwise idle."""

    def __init__(self, seconds: float, ahead: float) -> None:
        self._seconds, self._ahead, self._now = seconds, ahead, 1e9

    def execute(self, command: object, timeout: float | None = None) -> Accounts:
        self._now += self._seconds
        return Accounts(round((self._now + self._ahead) * 1e6), (), None)

    def time(self) -> float:
        return self._now

    perf_counter = time


@pytest.mark.parametrize(
    ("seconds", "ahead", "states"),
    [
        (0.0, 0, ["ok", "ok"]),
        (0.1, 0, ["warning", "ok"]),
        (0.3, 0, ["failed", "ok"]),
        (0.0, 1, ["ok", "ok"]),
        (0.0, 5, ["ok", "warning"]),
        (0.0, -3600, ["ok", "failed"]),
        (9.0, 5, ["failed", "ok"]),  # an answer that took nine seconds says little about the clock
    ],
)
def test_a_slow_store_and_a_wrong_clock(
    seconds: float, ahead: float, states: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = _Clocks(seconds, ahead)
    monkeypatch.setattr(on_store, "time", store)
    found = list(on_store.check_answers(store, GivenSettings(store_timeout=0.25)))
    assert [one.state for one in found] == states


@pytest.mark.parametrize(("free", "state"), [(2**31, "ok"), (2**29, "warning"), (2**20, "failed")])
def test_a_full_disk(free: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    [found] = on_store.check_disk(GivenSettings(store_url="sqlite:///deep/down/ledger.db"))
    assert found.state == state and os.getcwd() in found.said


def test_prices_of_the_models_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    priced = {"input_cost_per_token": 1e-6, "litellm_provider": "openai", "mode": "chat"}
    monkeypatch.setitem(litellm.model_cost, "doctor-old", {**priced, "deprecation_date": "2020-01-01"})
    monkeypatch.setitem(litellm.model_cost, "doctor-lasting", {**priced, "deprecation_date": "2999-01-01"})
    monkeypatch.setitem(litellm.model_cost, "doctor-odd", {**priced, "deprecation_date": "some day"})
    monkeypatch.setitem(litellm.model_cost, "doctor-unpriced", {"litellm_provider": "openai", "mode": "chat"})
    models = {"doctor-old": 5, "doctor-lasting": 5, "doctor-odd": 5, "doctor-unpriced": 0, "doctor-own": 5, "": 0}
    used = on_litellm.Recent({name: Usage(spent, 1) for name, spent in models.items()}, Usage())
    said = {(one.state, one.said) for one in on_litellm.check_prices(used)}
    assert ("warning", "LiteLLM has no price for '', doctor-unpriced: their calls cost nothing") in said
    assert ("warning", "these are past their deprecation date in LiteLLM: doctor-old (2020-01-01)") in said
    assert ("ok", "charged at prices that the application sets, which cannot be seen here: doctor-own") in said
    assert ("ok", "LiteLLM has prices for 3 of 6 models used in the last 30 days") in said


def test_how_much_was_estimated(tmp_path: Path) -> None:
    _filled("sqlite:///litellm_budget.db")
    with closing(open_store("sqlite:///litellm_budget.db")) as store:
        subjects = (Subject("user", "alice"), PROJECT, Subject(ESTIMATED, "default"))
        ask(store, Settle("guess", "default", subjects, ("gpt-4o",), 3 * DOLLAR, "gpt-4o"))
    assert "$3.00 of $5.00 of the last 30 days (60.0%)" in _of(_doctor(code=1), "estimates", "warning")[0]
    # The totals of estimates are in no list and in no sum.
    done = CliRunner().invoke(app, ["usage", "--by", "model", "--json"])
    assert [json.loads(line)["spent"] for line in done.stdout.splitlines()] == ["5"]


@pytest.mark.parametrize("broken", ["check_answers", "check_disk", "check_journal"])
def test_a_check_that_breaks_is_a_finding(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        print("printed by accident")
        raise RuntimeError("cr\x1bash")

    _filled("sqlite:///litellm_budget.db")
    monkeypatch.setattr(on_store, broken, crash)
    found = _doctor(code=2)
    assert [one["said"] for one in found if one["state"] == "failed"] == [
        "this could not be checked: 'RuntimeError: cr\\x1bash'"
    ]


def test_on_a_terminal_and_in_a_pipe(tmp_path: Path) -> None:
    _filled("sqlite:///litellm_budget.db")
    code, seen, _ = on_terminal(tmp_path, "doctor")
    assert code == 0 and "\x1b[32mok" in seen and "checking" in seen and "Traceback" not in seen
    done = in_pipe(tmp_path, "doctor")
    assert done.returncode == 0 and "\x1b" not in done.stdout and done.stderr == ""
    assert (
        "ok       gate: completion: a call over budget is refused, one within it is charged" in done.stdout.splitlines()
    )


def test_bad_arguments_are_told_from_findings() -> None:
    for arguments in (("--no-such",), ("--store", "env:NO_SUCH"), ("extra",)):
        assert CliRunner().invoke(app, ["doctor", *arguments]).exit_code == 3


def test_the_callback_warns_of_a_version_that_was_not_tested(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from litellm_budget_plugin.hooks import callback

    def make() -> None:
        callback.BudgetCallback(store_url="memory://").close()

    make()
    assert "the newest that was tested" not in caplog.text
    monkeypatch.setattr(callback, "litellm_version", lambda: "9.0.0")
    make()
    assert "LiteLLM 9.0.0 is newer than" in caplog.text
