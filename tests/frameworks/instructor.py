"""instructor, which asks a model for an object and asks again when the answer does not validate."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.frameworks.framework import HELPER, MODEL, STREAM, UNCOVERED, Framework, Setup, Way, take_async, tool_call


def _answer(body: dict[str, Any]) -> Any:
    name = body["tools"][0]["function"]["name"] if body.get("tools") else "City"
    return tool_call(name, '{"name": "Paris", "country": "France"}')


def _ways(setup: Setup) -> list[Way]:
    import instructor
    import litellm
    import openai
    from pydantic import BaseModel

    from litellm_budget_plugin import budget_context

    class City(BaseModel):
        name: str
        country: str

    asked: Any = {
        "model": MODEL,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Where is the Louvre?"}],
        "response_model": City,
    }
    client = instructor.from_litellm(litellm.completion)
    asynchronous = instructor.from_litellm(litellm.acompletion)
    plain = instructor.from_openai(openai.OpenAI())

    def partial(user: str, most: int | None) -> Any:
        # The synchronous client would return an asynchronous generator here, because LiteLLM's streams can be read both ways.
        return asyncio.run(take_async(asynchronous.chat.completions.create_partial(**asked), most))

    def threads(user: str) -> None:
        with ThreadPoolExecutor(2) as pool:
            work = budget_context.carry(client.chat.completions.create)
            for future in [pool.submit(work, **asked) for _ in range(2)]:
                future.result()

    return [
        Way("create", lambda user: client.chat.completions.create(**asked)),
        Way("create, max_retries=3", lambda user: client.chat.completions.create(**asked, max_retries=3)),
        Way("create, asynchronous", lambda user: asyncio.run(asynchronous.chat.completions.create(**asked))),
        Way("create_partial, asynchronous", partial, STREAM),
        Way("threads with `carry`", threads, HELPER),
        Way("from_openai", lambda user: plain.chat.completions.create(**asked), UNCOVERED),
    ]


FRAMEWORK = Framework(
    title="instructor",
    requires=("instructor",),
    shown=("instructor",),
    named="`budget_context`, or `user=` of the call",
    ways=_ways,
    answer=_answer,
)
