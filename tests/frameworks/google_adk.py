"""Google's Agent Development Kit with its LiteLlm model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from tests.frameworks.framework import HELPER, MODEL, STREAM, UNCOVERED, Framework, Setup, Way, take_async


def _ways(setup: Setup) -> list[Way]:
    from google.adk.agents import LlmAgent, ParallelAgent
    from google.adk.agents.run_config import RunConfig, StreamingMode
    from google.adk.models.lite_llm import LiteLlm
    from google.adk.runners import InMemoryRunner
    from google.genai import types

    # These make Google's own client use the loopback provider.
    os.environ.update(GOOGLE_API_KEY="none", GOOGLE_GEMINI_BASE_URL=setup.provider.url.removesuffix("/v1"))

    def agent(name: str, model: Any = None) -> LlmAgent:
        config = types.GenerateContentConfig(max_output_tokens=100)
        return LlmAgent(name=name, model=model or LiteLlm(f"openai/{MODEL}"), generate_content_config=config)

    hello = types.Content(role="user", parts=[types.Part(text="Hi")])
    streaming = RunConfig(streaming_mode=StreamingMode.SSE)

    async def events(root: Any, config: RunConfig | None = None) -> AsyncIterator[Any]:
        runner = InMemoryRunner(root, app_name="app")
        session = await runner.session_service.create_session(app_name="app", user_id="somebody")
        more = {} if config is None else {"run_config": config}
        async for event in runner.run_async(user_id="somebody", session_id=session.id, new_message=hello, **more):
            yield event

    def run(root: Any, most: int | None = None, config: RunConfig | None = None) -> Any:
        return asyncio.run(take_async(events(root, config), most))

    def synchronous(user: str) -> Any:
        runner = InMemoryRunner(agent("assistant"), app_name="app")
        session = asyncio.run(runner.session_service.create_session(app_name="app", user_id="somebody"))
        return list(runner.run(user_id="somebody", session_id=session.id, new_message=hello))

    both = ParallelAgent(name="both", sub_agents=[agent("one"), agent("two")])
    return [
        Way("run_async", lambda user: run(agent("assistant"))),
        Way("run_async, StreamingMode.SSE", lambda user, most: run(agent("assistant"), most, streaming), STREAM),
        Way("ParallelAgent", lambda user: run(both), HELPER),
        Way("Runner.run, in a thread of its own", synchronous, HELPER),
        Way("a Gemini model by its name", lambda user: run(agent("native", "gemini-2.5-flash")), UNCOVERED),
    ]


FRAMEWORK = Framework(
    title="Google ADK",
    requires=("google-adk", "litellm"),
    shown=("google-adk",),
    named="`budget_context`",
    ways=_ways,
)
