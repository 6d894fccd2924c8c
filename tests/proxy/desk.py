"""A real LiteLLM proxy in a separate process, its clients, and the ledger that it writes, which is read from here."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import openai
import yaml

from litellm_budget_plugin import BudgetManager, BudgetSettings
from litellm_budget_plugin.core.accounts import Usage
from litellm_budget_plugin.core.commands import Accounts, AccountState, Command, Read, ReadUsage, Reply, UsageRows
from litellm_budget_plugin.manager.ledger import BudgetLedger

WORTH = 12_500_000
"""The cost of a call of `Proxy.chat`, at most and in fact: $0.0125, for 1,000 output tokens of CHAT."""
LIMIT = "0.05"
CALLBACK = "litellm_budget_plugin.proxy.budget_callback"
MASTER = "sk-" + "0123456789abcdef" * 4
MESSAGES = [{"role": "user", "content": "x"}]

# Nano-dollars per (input token, output token).
CHAT, DEAR, CHEAP, EMBED = (0, 12_500), (1_000, 12_500), (500, 2_500), (12_500, 0)

# Everything that LiteLLM would otherwise fetch over the network when it starts.
OFFLINE = dict.fromkeys(
    (
        "LITELLM_LOCAL_MODEL_COST_MAP",
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS",
        "LITELLM_LOCAL_BLOG_POSTS",
        "LITELLM_LOCAL_POLICY_TEMPLATES",
        "LITELLM_LOCAL_AUTOROUTER_PRESETS",
    ),
    "True",
)


def deployment(group: str, model: str, url: str, prices: tuple[int, int] | None, **more: Any) -> dict[str, Any]:
    """Return an entry of the config's model_list, with its own prices."""
    params: dict[str, Any] = {"model": model, "api_base": url, "api_key": "sk-upstream", "max_retries": 0, **more}
    if prices is not None:
        params |= {"input_cost_per_token": prices[0] / 1e9, "output_cost_per_token": prices[1] / 1e9}
    return {"model_name": group, "litellm_params": params}


def chat_only(url: str) -> dict[str, Any]:
    """Return the smallest config: one chat model, and users by their keys."""
    return {
        "model_list": [deployment("chat", "openai/gate-chat", url, CHAT)],
        "litellm_settings": {"callbacks": CALLBACK},
        "general_settings": {"master_key": MASTER, "custom_auth": "auth.user_api_key_auth"},
    }


def command(folder: Path, config: Mapping[str, Any], port: int) -> list[str]:
    """Write `config` into `folder` and return the command line that starts a proxy with it."""
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))
    shutil.copy(Path(__file__).with_name("auth.py"), folder)
    litellm = Path(sys.executable).with_name("litellm")
    return [str(litellm), "--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)]


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a proxy that keeps its ledger in `folder`. `settings` are this package's, in lower
    case.
    """
    given = {"store_url": f"sqlite:///{folder}/ledger.db", "default_limit": LIMIT, **settings}
    own = {f"LITELLM_BUDGET_{name.upper()}": value for name, value in given.items()}
    return {**os.environ, **OFFLINE, **own, "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Proxy:
    """A proxy that runs until `stop`."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        variables: Mapping[str, str] | None = None,
        **settings: str,
    ) -> None:
        self.folder = folder
        self.settings = BudgetSettings(store_url=f"sqlite:///{folder}/ledger.db", default_limit=LIMIT)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / f"proxy-{port}.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                command(folder, config, port),
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**environment(folder, **settings), **(variables or {})},
            )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{self.url}/health/liveliness").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert self._process.poll() is None and time.monotonic() < deadline, self.log.read_text(errors="replace")
            threading.Event().wait(0.05)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def client(self, key: str) -> openai.OpenAI:
        """Return OpenAI's client with a key, without retries."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def chat(self, user: str, model: str = "chat", **more: Any) -> Any:
        """Make a chat call by `user` that costs WORTH."""
        arguments = {"max_tokens": 1000, "messages": MESSAGES, **more}
        return self.client(f"sk-user-{user}").chat.completions.create(model=model, **arguments)

    def post(self, key: str, path: str, body: Mapping[str, Any], **headers: str) -> httpx.Response:
        """Send a request with any body."""
        headers = {"Authorization": f"Bearer {key}", **{name.replace("_", "-"): text for name, text in headers.items()}}
        return httpx.post(f"{self.url}{path}", json=dict(body), headers=headers, timeout=60)

    def ask(self, question: Callable[[BudgetLedger], Command]) -> Reply:
        """Return the ledger's answer to a command."""
        ledger = BudgetLedger(self.settings)
        try:
            return ledger.ask(question(ledger))
        finally:
            ledger.close()

    def state(self, user: str) -> AccountState | None:
        """Return the user's account."""
        reply = self.ask(lambda ledger: Read(ledger.project, "user", user, defaults=ledger.defaults))
        assert isinstance(reply, Accounts)
        return reply.accounts[0] if reply.accounts else None

    def spent(self, user: str) -> int:
        """Return the nano-dollars that were spent."""
        state = self.state(user)
        return state.spent if state else 0

    def held(self, user: str) -> int:
        """Return the nano-dollars that are held."""
        state = self.state(user)
        return state.held if state else 0

    def usage(self, user: str) -> Usage:
        """Return the user's totals."""
        reply = self.ask(lambda ledger: ReadUsage(ledger.project, "user", user))
        assert isinstance(reply, UsageRows)
        total = Usage()
        for _, usage in reply.rows:
            total = total.plus(usage)
        return total

    def subjects(self, scope: str) -> dict[str, int]:
        """Return the nano-dollars that each subject of a scope has spent."""
        reply = self.ask(lambda ledger: ReadUsage(ledger.project, scope))
        assert isinstance(reply, UsageRows)
        spent: dict[str, int] = {}
        for key, usage in reply.rows:
            spent[key.subject] = spent.get(key.subject, 0) + usage.spent
        return spent

    def costs(self, user: str) -> dict[str, float]:
        """Return what the user spent by model, as LiteLLM's BudgetManager reports it."""
        manager = BudgetManager(self.settings.project, settings=self.settings)
        try:
            return dict(manager.get_model_cost(user))
        finally:
            manager.close()

    def calm(self, user: str, calls: int | None = None) -> int:
        """Return what was spent when nothing is held any more and `calls` calls are settled, which must happen."""
        deadline = time.monotonic() + 30
        while True:
            settled = self.usage(user).calls
            if not self.held(user) and (calls is None or settled >= calls):
                return self.spent(user)
            state = self.state(user)
            assert time.monotonic() < deadline, f"{user}: {settled} calls settled, {state}"
            threading.Event().wait(0.05)
