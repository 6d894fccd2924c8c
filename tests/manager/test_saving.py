"""user_cost.json is written atomically, and the ledger that wrote it does not import it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from litellm_budget_plugin import BudgetFileError, BudgetManager
from litellm_budget_plugin.manager import snapshot
from tests.manager.answers import spend
from tests.manager.conftest import OpenManager
from tests.manager.files import FILE, RECORDS, put_file


def test_our_own_file_is_no_news(open_manager: OpenManager) -> None:
    manager = open_manager()
    manager.create_budget(10, "alice")
    manager.save_data()
    del manager.user_dict["alice"]
    assert open_manager().user_dict == {}


def test_a_lost_ledger_comes_back_from_the_file(open_manager: OpenManager) -> None:
    manager = open_manager(store_url="sqlite:///one.db")
    put_file("{}")
    for user, duration in (("alice", None), ("bob", "daily")):
        manager.create_budget(10, user, duration)
        spend(manager, user, 0.5)
    manager.user_dict["bob"]["window"] = "month"
    manager.save_data()
    restored = open_manager(store_url="sqlite:///two.db")
    assert restored.user_dict == manager.user_dict


def test_saving_keeps_the_mode_and_leaves_nothing_else(open_manager: OpenManager, here: Path) -> None:
    manager = open_manager()
    manager.create_budget(10, "alice")
    os.umask(umask := os.umask(0))
    manager.save_data()
    assert stat.S_IMODE(FILE.stat().st_mode) == 0o666 & ~umask
    FILE.chmod(0o640)
    manager.save_data()
    assert stat.S_IMODE(FILE.stat().st_mode) == 0o640
    assert os.listdir(here) == ["user_cost.json"]


def test_a_failed_save_leaves_the_file_as_it_was(
    open_manager: OpenManager, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = open_manager()
    manager.create_budget(10, "alice")
    manager.save_data()
    before = FILE.read_bytes()
    manager.create_budget(20, "bob")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot.os, "fsync", full)
    with pytest.raises(BudgetFileError, match="No space left"):
        manager.save_data()
    assert FILE.read_bytes() == before
    assert os.listdir(here) == ["user_cost.json"]


def test_a_link_stays_a_link(open_manager: OpenManager, here: Path) -> None:
    (here / "elsewhere").mkdir()
    target = here / "elsewhere" / "costs.json"
    target.write_text(json.dumps(RECORDS))
    FILE.symlink_to(target)
    manager = open_manager()
    manager.create_budget(1, "dora")
    manager.save_data()
    assert FILE.is_symlink() and "dora" in json.loads(target.read_text())


def test_saving_elsewhere_does_not_overwrite_a_file_unread(
    open_manager: OpenManager, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = open_manager()
    manager.create_budget(1, "dora")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    put_file(RECORDS)
    manager.save_data()
    assert json.loads(FILE.read_text()) == manager.user_dict == {**RECORDS, "dora": {"total_budget": 1}}


def test_nobody_ever_sees_a_half_written_file(open_manager: OpenManager, here: Path) -> None:
    manager = open_manager()
    for number in range(200):
        manager.create_budget(number, f"user {number}")
    manager.save_data()
    program = (
        "import json, os\nprint('ready', flush=True)\nwhile not os.path.exists('stop'):\n"
        "    assert len(json.load(open('user_cost.json'))) == 200\nprint('whole')"
    )
    reader = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None and reader.stdout.readline() == "ready\n"
    for _ in range(50):
        manager.save_data()
    (here / "stop").touch()
    assert reader.communicate()[0] == "whole\n"


def test_a_manager_without_a_file_makes_none(manager: BudgetManager, here: Path) -> None:
    manager.create_budget(10, "alice", "daily")
    spend(manager, "alice", 0.5)
    assert not FILE.exists()
