"""The provider on loopback, with answers that a framework can read, and the environment variables that make every client use it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.upstream import Handler, Upstream

# The name of the address for LiteLLM, and that for OpenAI's clients.
ADDRESSES = ("OPENAI_API_BASE", "OPENAI_BASE_URL")


class Provider(Upstream):
    """Answers chat requests with the result of `answer` for the request's body: a text, or a whole message."""

    def __init__(self, answer: Callable[[dict[str, Any]], str | dict[str, Any]]) -> None:
        super().__init__(_Answers)
        self.said = answer

    def message(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the model's message."""
        said = self.said(body)
        return {"role": "assistant", "content": said} if isinstance(said, str) else said

    def environment(self, folder: str) -> dict[str, str]:
        """Return the variables that make LiteLLM and OpenAI's clients use this provider, and the plugin's own, with the ledger
        in a folder.
        """
        return {
            # Some frameworks keep settings and answers in the home directory.
            "HOME": folder,
            **dict.fromkeys(ADDRESSES, self.url),
            "OPENAI_API_KEY": "sk-loopback",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_BUDGET_STORE_URL": f"sqlite:///{folder}/ledger.db",
            "LITELLM_BUDGET_DEFAULT_LIMIT": "5",
            # The speed of this machine's disk is not measured.
            "LITELLM_BUDGET_STORE_TIMEOUT": "5",
        }


class _Answers(Handler):
    def read_body(self) -> dict[str, Any]:
        # The bodies of other providers name no model.
        return {"model": "", **super().read_body()}

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = super()._answer(body)
        if answer["object"] == "chat.completion":
            answer["choices"][0] |= {"message": self._message(body), "finish_reason": self._reason(body)}
        return answer

    def _chat_chunks(self, body: dict[str, Any]) -> Iterator[str]:
        message = self._message(body)
        head = {"id": f"id-{id(body)}", "created": 1, "model": body["model"], "object": "chat.completion.chunk"}
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        if message.get("tool_calls"):
            deltas += [{"tool_calls": [{"index": 0, **message["tool_calls"][0]}]}, {"content": ""}]
        else:
            deltas += [{"content": piece} for piece in _pieces(message["content"])]
        for delta in deltas:
            yield json.dumps({**head, "choices": [{"index": 0, "finish_reason": None, "delta": delta}]})
        yield json.dumps({**head, "choices": [{"index": 0, "finish_reason": self._reason(body), "delta": {}}]})
        if self.server.upstream.report_stream_usage:
            yield json.dumps({**head, "choices": [], "usage": self._usage(body)})

    def _message(self, body: dict[str, Any]) -> dict[str, Any]:
        provider = self.server.upstream
        assert isinstance(provider, Provider)
        return provider.message(body)

    def _reason(self, body: dict[str, Any]) -> str:
        return "tool_calls" if self._message(body).get("tool_calls") else "stop"


def _pieces(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)
