"""The proxy's start: a wrong setting stops it, with a message about the setting."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.proxy.desk import chat_only, command, environment, free_port


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"default_limit": "much"}, "LITELLM_BUDGET_DEFAULT_LIMIT"),
        ({"default_limt": "5"}, "did you mean LITELLM_BUDGET_DEFAULT_LIMIT?"),
        ({"store_url": "sqlite:////nowhere/at/all/ledger.db"}, "/nowhere/at/all"),
    ],
)
def test_a_bad_setting_stops_the_start(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    done = subprocess.run(
        command(tmp_path, chat_only("http://127.0.0.1:9/v1"), free_port()),
        cwd=tmp_path,
        env=environment(tmp_path, **settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
