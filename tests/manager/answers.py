"""Answers for tests to charge."""

from __future__ import annotations

from typing import Any

import litellm

MESSAGES = [{"role": "user", "content": "Hey, how's it going?"}]


def answer(model: str = "gpt-4o", text: str = "Very well, thank you.", **arguments: Any) -> Any:
    """Return one of LiteLLM's mocked responses, for which no provider was called."""
    return litellm.completion(model=model, messages=MESSAGES, mock_response=text, **arguments)


def spend(manager: Any, user: str, usd: float, model: str = "gpt-4o") -> None:
    """Charge a round amount, which no ordinary answer costs."""
    manager.update_cost(user, priced_answer(usd, model))


def priced_answer(usd: float, model: str = "gpt-4o") -> Any:
    """Return an answer whose input tokens cost `usd` at gpt-4o's price of $2.50 per million."""
    tokens = round(usd / 2.5e-6)
    response = answer(model)
    response.usage = litellm.Usage(prompt_tokens=tokens, completion_tokens=0, total_tokens=tokens)
    return response
