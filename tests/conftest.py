"""What every test relies on: LiteLLM without network, an environment without this package's settings, and the profiles that
generated tests run by.
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
# What LiteLLM's Router, also a proxy's, waits before it tries again.
os.environ |= {"INITIAL_RETRY_DELAY": "0.001", "JITTER": "0.001"}
for name in [name for name in os.environ if name.upper().startswith("LITELLM_BUDGET_")]:
    del os.environ[name]

# A shell that runs tests in the background, or nohup, has them ignore these, and so would the programs that tests start.
if threading.current_thread() is threading.main_thread():
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True, scope="session")
def collections_are_quick() -> None:
    """All that is imported by now is no garbage, and a collection that looks at it takes half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """A ledger that a test leaves open would be found by the next one that names the same URL."""
    yield
    shared = sys.modules.get("litellm_budget_plugin.manager.sharing")
    if shared is not None:
        left = [way for way, opened in shared._opened.items() if opened.users]
        shared._opened.clear()
        assert not left, f"still open after the test: {left}"
