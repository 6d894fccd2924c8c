"""OpenAI's Agents SDK with its LitellmModel."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.frameworks.framework import HELPER, MODEL, STREAM, UNCOVERED, Framework, Setup, Way, take_async, tool_call


def _answer(body: dict[str, Any]) -> Any:
    """Return a call of the tool if there is one that was not called yet, else the final answer."""
    if body.get("tools") and body["messages"][-1]["role"] == "user":
        return tool_call("ask", '{"input": "How are you?"}')
    return "All is well with you and me."


def _ways(setup: Setup) -> list[Way]:
    from agents import Agent, ModelRetrySettings, ModelSettings, Runner, set_tracing_disabled
    from agents.extensions.models.litellm_model import LitellmModel

    # Otherwise traces would be sent to OpenAI.
    set_tracing_disabled(disabled=True)
    settings = ModelSettings(max_tokens=100)
    agent = Agent(name="Assistant", model=LitellmModel(model=MODEL), model_settings=settings)
    retrying = Agent(
        name="Stubborn",
        model=LitellmModel(model=MODEL),
        model_settings=ModelSettings(max_tokens=100, retry=ModelRetrySettings(max_retries=2)),
    )
    manager = Agent(
        name="Manager",
        model=LitellmModel(model=MODEL),
        model_settings=settings,
        tools=[agent.as_tool("ask", "Ask the specialist.")],
    )
    plain = Agent(name="Plain", model=MODEL)

    async def stream(most: int | None) -> None:
        result = Runner.run_streamed(agent, "Hi")
        # The first events come before the request is sent.
        await take_async((event async for event in result.stream_events() if event.type == "raw_response_event"), most)

    async def together() -> None:
        await asyncio.gather(Runner.run(agent, "one"), Runner.run(agent, "two"))

    return [
        Way("Runner.run_sync", lambda user: Runner.run_sync(agent, "Hi")),
        Way("Runner.run", lambda user: asyncio.run(Runner.run(agent, "Hi"))),
        Way("Runner.run_sync, with retries", lambda user: Runner.run_sync(retrying, "Hi")),
        Way("Runner.run_streamed", lambda user, most: asyncio.run(stream(most)), STREAM),
        Way("an agent as a tool", lambda user: Runner.run_sync(manager, "Hi"), HELPER),
        Way("asyncio.gather", lambda user: asyncio.run(together()), HELPER),
        Way("a model by its name, without LitellmModel", lambda user: Runner.run_sync(plain, "Hi"), UNCOVERED),
    ]


FRAMEWORK = Framework(
    title="OpenAI Agents SDK",
    requires=("openai-agents[litellm]",),
    shown=("openai-agents",),
    named="`budget_context`",
    ways=_ways,
    answer=_answer,
)
