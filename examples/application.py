"""An application as it was before budgets: it calls LiteLLM for its users, and knows nothing else."""

from __future__ import annotations

import asyncio

from litellm import acompletion


async def ask(user: str, question: str) -> str:
    """The model's answer to one user's question."""
    response = await acompletion(
        model="gpt-4o",
        messages=[{"role": "user", "content": question}],
        max_tokens=100,
        user=user,
    )
    return str(response.choices[0].message.content)


async def ask_many(user: str, questions: list[str]) -> list[str | BaseException]:
    """All of a user's questions at once; an exception stands in the place of an answer that failed."""
    return await asyncio.gather(*[ask(user, question) for question in questions], return_exceptions=True)
