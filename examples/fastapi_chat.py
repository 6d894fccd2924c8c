"""A chat over HTTP: answers are streamed, each user has a budget, and can look at it.

    pip install fastapi uvicorn
    python examples/fastapi_chat.py --port 8000
    curl -N -H 'Authorization: Bearer token-of-alice' -d '{"question": "What is the answer?"}' \
        -H 'Content-Type: application/json' localhost:8000/chat
    curl -H 'Authorization: Bearer token-of-alice' localhost:8000/budget

With OPENAI_API_KEY set it talks to OpenAI; without, to a server of its own on loopback.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import AsyncIterator
from typing import Annotated

from provider import LocalProvider

if "OPENAI_API_KEY" not in os.environ:
    os.environ.update(OPENAI_API_KEY="none", OPENAI_API_BASE=LocalProvider().url, LITELLM_LOCAL_MODEL_COST_MAP="True")

import litellm  # it reads the environment when it is imported
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from litellm_budget_plugin import (
    BudgetCallback,
    BudgetRefused,
    BudgetStoreUnavailable,
    budget_context,
)

# What your sessions or your identity provider would say.
USERS = {"token-of-alice": "alice", "token-of-bob": "bob"}
LEDGER = os.environ.get("LITELLM_BUDGET_STORE_URL", f"sqlite:///{tempfile.mkdtemp()}/budgets.db")

litellm.callbacks = [budgets := BudgetCallback(store_url=LEDGER, user_limits="$0.01/day")]
app = FastAPI()
bearer = HTTPBearer()


def current_user(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> str:
    """Whose token this is."""
    if credentials.credentials not in USERS:
        raise HTTPException(401)
    return USERS[credentials.credentials]


User = Annotated[str, Depends(current_user)]


class Question(BaseModel):
    """What a user asks."""

    question: str


@app.post("/chat")
async def chat(asked: Question, user: User) -> StreamingResponse:
    """The model's answer, word by word. A refusal is raised here, before the first byte."""
    messages = [{"role": "user", "content": asked.question}]
    with budget_context(user=user):
        chunks = await litellm.acompletion(model="gpt-4o", messages=messages, max_tokens=500, stream=True)

    async def text() -> AsyncIterator[str]:
        async for chunk in chunks:
            yield chunk.choices[0].delta.content or ""

    return StreamingResponse(text(), media_type="text/plain")


@app.get("/budget")
def budget(user: User) -> dict[str, str | None]:
    """What the user may still spend."""
    left = budgets.manager.remaining(user)
    return {
        "budget": left.budget,
        "remaining": None if left.usd is None else f"${left.usd:f}",
        "resets_at": None if left.resets_at is None else left.resets_at.isoformat(),
    }


@app.exception_handler(BudgetRefused)
async def refused(_: Request, error: BudgetRefused) -> JSONResponse:
    """422: a client does not try that again, as it would with 429."""
    return JSONResponse({"detail": str(error)}, 422)


@app.exception_handler(BudgetStoreUnavailable)
async def unavailable(_: Request, __: BudgetStoreUnavailable) -> JSONResponse:
    """503: the ledger does not answer, and nobody may spend unseen."""
    return JSONResponse({"detail": "try again later"}, 503)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, port=options.parse_args().port)
