"""Answers to charge for."""

from __future__ import annotations

from typing import Any

import litellm

MESSAGES = [{"role": "user", "content": "Hey, how's it going?"}]


def answer(model: str = "gpt-4o", text: str = "Very well, thank you.", **arguments: Any) -> Any:
    """A response of LiteLLM's that nobody was asked for."""
    return litellm.completion(model=model, messages=MESSAGES, mock_response=text, **arguments)


def spend(manager: Any, user: str, usd: float, model: str = "gpt-4o") -> None:
    """Charge a round amount: gpt-4o-like answers never cost one."""
    manager.update_cost(user, priced_answer(usd, model))


def priced_answer(usd: float, model: str = "gpt-4o") -> Any:
    """An answer whose input tokens cost `usd` at gpt-4o's price of $2.50 a million."""
    tokens = round(usd / 2.5e-6)
    response = answer(model)
    response.usage = litellm.Usage(prompt_tokens=tokens, completion_tokens=0, total_tokens=tokens)
    return response
