"""An application without any code for budgets: it calls LiteLLM for its users."""

from __future__ import annotations

import asyncio

from litellm import acompletion


async def ask(user: str, question: str) -> str:
    """Return the model's answer to one user's question."""
    response = await acompletion(
        model="gpt-4o",
        messages=[{"role": "user", "content": question}],
        max_tokens=100,
        user=user,
    )
    return str(response.choices[0].message.content)


async def ask_many(user: str, questions: list[str]) -> list[str | BaseException]:
    """Ask all of a user's questions at once. For a call that fails, its exception takes the place of the answer."""
    return await asyncio.gather(*[ask(user, question) for question in questions], return_exceptions=True)
