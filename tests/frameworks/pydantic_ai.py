"""pydantic-ai, which calls LiteLLM through the model of pydantic-ai-litellm."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.frameworks.framework import HELPER, MODEL, STREAM, UNCOVERED, Framework, Setup, Way, take_async


def _ways(setup: Setup) -> list[Way]:
    from pydantic_ai import Agent
    from pydantic_ai.models.fallback import FallbackModel
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.litellm import LiteLLMProvider
    from pydantic_ai_litellm import LiteLLMModel

    from litellm_budget_plugin import refusal_in

    settings: Any = {"max_tokens": 100}
    agent = Agent(LiteLLMModel(MODEL), model_settings=settings)
    retrying = Agent(LiteLLMModel(MODEL), model_settings=settings, retries=3)
    falling_back = Agent(FallbackModel(LiteLLMModel(MODEL), LiteLLMModel(MODEL)), model_settings=settings)
    two = FallbackModel(LiteLLMModel(MODEL), LiteLLMModel(MODEL), fallback_on=lambda error: refusal_in(error) is None)
    giving_up = Agent(two, model_settings=settings)
    proxied = OpenAIChatModel(MODEL, provider=LiteLLMProvider(api_base=setup.provider.url, api_key="none"))

    async def stream(most: int | None) -> None:
        async with agent.run_stream("Hi") as result:
            await take_async(result.stream_text(delta=True, debounce_by=None), most)

    async def together() -> None:
        await asyncio.gather(agent.run("one"), agent.run("two"))

    return [
        Way("run_sync", lambda user: agent.run_sync("Hi")),
        Way("run", lambda user: asyncio.run(agent.run("Hi"))),
        Way("run_sync, retries=3", lambda user: retrying.run_sync("Hi")),
        Way("FallbackModel", lambda user: falling_back.run_sync("Hi")),
        Way("FallbackModel, not for refusals", lambda user: giving_up.run_sync("Hi")),
        Way("run_stream", lambda user, most: asyncio.run(stream(most)), STREAM),
        Way("asyncio.gather", lambda user: asyncio.run(together()), HELPER),
        Way("OpenAIChatModel, also with LiteLLMProvider", lambda user: Agent(proxied).run_sync("Hi"), UNCOVERED),
    ]


FRAMEWORK = Framework(
    title="pydantic-ai",
    requires=("pydantic-ai-slim[openai]", "pydantic-ai-litellm"),
    shown=("pydantic-ai-slim", "pydantic-ai-litellm"),
    named="`budget_context`",
    ways=_ways,
)
