"""LangChain with ChatLiteLLM."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.frameworks.framework import HELPER, LOST, MODEL, STREAM, UNCOVERED, Framework, Setup, Way, take, take_async


def _ways(setup: Setup) -> list[Way]:
    import litellm
    from langchain.agents import create_agent
    from langchain_core.runnables import RunnableLambda, RunnableParallel
    from langchain_litellm import ChatLiteLLM
    from langchain_openai import ChatOpenAI

    from litellm_budget_plugin import budget_context

    chat = ChatLiteLLM(model=MODEL, max_tokens=100)
    stubborn = ChatLiteLLM(model=MODEL, max_tokens=100, max_retries=5)
    patient = chat.with_retry(retry_if_exception_type=(litellm.Timeout,))
    chain = RunnableLambda(lambda text: f"Say: {text}") | chat
    agent = create_agent(chat, tools=[])
    hello: Any = {"messages": [{"role": "user", "content": "Hi"}]}

    async def astream(most: int | None) -> Any:
        return await take_async(chat.astream("Hi"), most)

    def threads(work: Any) -> None:
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(work, "Hi") for _ in range(2)]:
                future.result()

    return [
        Way("invoke", lambda user: chat.invoke("Hi")),
        Way("invoke, max_retries=5", lambda user: stubborn.invoke("Hi")),
        Way("ainvoke", lambda user: asyncio.run(chat.ainvoke("Hi"))),
        Way("create_agent", lambda user: agent.invoke(hello)),
        Way("with_fallbacks", lambda user: chat.with_fallbacks([chat]).invoke("Hi")),
        Way("with_retry", lambda user: chat.with_retry(wait_exponential_jitter=False).invoke("Hi")),
        Way("with_retry for timeouts only", lambda user: patient.invoke("Hi")),
        Way("stream", lambda user, most: take(chat.stream("Hi"), most), STREAM),
        Way("astream", lambda user, most: asyncio.run(astream(most)), STREAM),
        Way("stream of an agent", lambda user, most: take(agent.stream(hello, stream_mode="messages"), most), STREAM),
        Way("batch", lambda user: chain.batch(["one", "two", "three"]), HELPER),
        Way("abatch", lambda user: asyncio.run(chain.abatch(["one", "two", "three"])), HELPER),
        Way("RunnableParallel", lambda user: RunnableParallel(a=chat, b=chat).invoke("Hi"), HELPER),
        Way("threads of your own", lambda user: threads(chat.invoke), LOST),
        Way("threads with `carry`", lambda user: threads(budget_context.carry(chat.invoke)), HELPER),
        Way("ChatOpenAI", lambda user: ChatOpenAI(model=MODEL).invoke("Hi"), UNCOVERED),
    ]


FRAMEWORK = Framework(
    title="LangChain",
    requires=("langchain-litellm", "langchain", "langchain-openai"),
    shown=("langchain-litellm", "langchain", "langchain-core"),
    named="`budget_context`",
    ways=_ways,
)
