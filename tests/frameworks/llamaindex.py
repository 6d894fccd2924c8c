"""LlamaIndex with its LiteLLM class."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.frameworks.framework import HELPER, MODEL, STREAM, UNCOVERED, Framework, Setup, Way, take, take_async


def _ways(setup: Setup) -> list[Way]:
    from llama_index.core import Document, SummaryIndex
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.chat_engine import SimpleChatEngine
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.litellm import LiteLLM
    from llama_index.llms.openai import OpenAI

    llm = LiteLLM(model=MODEL, max_tokens=100)
    hello = [ChatMessage(role="user", content="Hi")]
    index = SummaryIndex.from_documents([Document(text="All is well.")])

    async def agent() -> None:
        await FunctionAgent(tools=[], llm=llm, streaming=False).run("Hi")

    async def astream(most: int | None) -> Any:
        return await take_async(await llm.astream_chat(hello), most)

    async def together() -> None:
        await asyncio.gather(llm.achat(hello), llm.achat(hello))

    def engine(most: int | None) -> Any:
        return take(SimpleChatEngine.from_defaults(llm=llm).stream_chat("Hi").response_gen, most)

    return [
        Way("chat", lambda user: llm.chat(hello)),
        Way("complete", lambda user: llm.complete("Hi")),
        Way("achat", lambda user: asyncio.run(llm.achat(hello))),
        Way("a query engine", lambda user: index.as_query_engine(llm=llm).query("How are you?")),
        Way("FunctionAgent", lambda user: asyncio.run(agent())),
        Way("stream_chat", lambda user, most: take(llm.stream_chat(hello), most), STREAM),
        Way("astream_chat", lambda user, most: asyncio.run(astream(most)), STREAM),
        Way("stream_chat of a chat engine", lambda user, most: engine(most), STREAM),
        Way("asyncio.gather", lambda user: asyncio.run(together()), HELPER),
        Way("llama_index.llms.openai", lambda user: OpenAI(model=MODEL, max_retries=0).chat(hello), UNCOVERED),
    ]


FRAMEWORK = Framework(
    title="LlamaIndex",
    requires=("llama-index-llms-litellm", "llama-index-llms-openai"),
    shown=("llama-index-llms-litellm", "llama-index-core"),
    named="`budget_context`",
    ways=_ways,
)
