"""CrewAI, which calls LiteLLM only if `is_litellm=True` says so."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.frameworks.framework import HELPER, MODEL, STREAM, UNCOVERED, Framework, Setup, Way, take

_SAID = "Thought: I now can give a great answer\nFinal Answer: All is well with you and me."


def _ways(setup: Setup) -> list[Way]:
    from crewai import LLM, Agent, Crew, Task

    def llm(**more: Any) -> LLM:
        return LLM(model=f"openai/{MODEL}", max_tokens=100, **more)

    def crew(tasks: int = 1, *, is_litellm: bool = True, retries: int = 2, **more: Any) -> Crew:
        made = []
        for number in range(tasks):
            # A crew with stream=True makes its LLM stream from then on, and an agent works on one task at a time.
            model = llm(is_litellm=True) if is_litellm else llm(max_retries=0)
            agent = Agent(role="Assistant", goal="Help", backstory="You help.", llm=model, max_retry_limit=retries)
            # The last task waits for those that run in threads.
            threaded = number < tasks - 1
            said = {"description": f"Say how you are, {number}", "expected_output": "A word"}
            made.append(Task(**said, agent=agent, async_execution=threaded))
        return Crew(agents=[task.agent for task in made], tasks=made, **more)

    inputs = [{"name": "one"}, {"name": "two"}]

    def streamed(most: int | None, **more: Any) -> Any:
        return take(crew(stream=True, **more).kickoff(), most)

    native = LLM(model=f"openai/{MODEL}", max_retries=0)
    return [
        Way("LLM.call", lambda user: llm(is_litellm=True).call("Hi")),
        Way("LLM.acall", lambda user: asyncio.run(llm(is_litellm=True).acall("Hi"))),
        Way("kickoff", lambda user: crew().kickoff()),
        Way("akickoff", lambda user: asyncio.run(crew().akickoff())),
        Way("kickoff, stream=True", lambda user, most: streamed(most), STREAM),
        Way("the same, max_retry_limit=0", lambda user, most: streamed(most, retries=0), STREAM),
        Way("kickoff_async, in a thread", lambda user: asyncio.run(crew().kickoff_async()), HELPER),
        Way("kickoff_for_each", lambda user: crew().kickoff_for_each(inputs), HELPER),
        Way("tasks with async_execution, in threads", lambda user: crew(3).kickoff(), HELPER),
        Way("an LLM without `is_litellm=True`", lambda user: native.call("Hi"), UNCOVERED),
        Way("kickoff with such an LLM", lambda user: crew(is_litellm=False).kickoff(), UNCOVERED),
    ]


FRAMEWORK = Framework(
    title="CrewAI",
    requires=("crewai[litellm]",),
    shown=("crewai",),
    named="`budget_context`",
    ways=_ways,
    answer=lambda body: _SAID,
    variables={"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"},
)
