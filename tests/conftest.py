"""The setup of every test: LiteLLM without network, an environment without this package's settings, and the profiles of generated
tests.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.generated import register_profiles

register_profiles()
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
# The wait before a retry of LiteLLM's Router, also in a proxy.
os.environ |= {"INITIAL_RETRY_DELAY": "0.001", "JITTER": "0.001"}
for name in [name for name in os.environ if name.upper().startswith("LITELLM_BUDGET_")]:
    del os.environ[name]

# Tests that a shell runs in the background, or under nohup, ignore these signals, and programs that tests start would inherit that.
if threading.current_thread() is threading.main_thread():
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True, scope="session")
def collections_are_quick() -> None:
    """Freeze all objects that exist by now: they are no garbage, and a collection that visits them takes half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """Check that a test leaves no ledger open, because the next test with the same URL would get it."""
    yield
    shared = sys.modules.get("litellm_budget_plugin.manager.sharing")
    if shared is not None:
        left = [way for way, opened in shared._opened.items() if opened.users]
        shared._opened.clear()
        assert not left, f"still open after the test: {left}"
