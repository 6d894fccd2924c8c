"""A chat over HTTP that streams its answers and shows each user the budget.

    pip install fastapi uvicorn
    python examples/fastapi_chat.py --port 8000

Open http://localhost:8000 in a browser, or:

    curl -N -H 'Authorization: Bearer token-of-alice' --json '{"question": "What is the answer?"}' localhost:8000/chat
    curl -H 'Authorization: Bearer token-of-alice' localhost:8000/budget

With OPENAI_API_KEY set it talks to OpenAI; without, to a server of its own on loopback.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from provider import LocalProvider

if not os.environ.get("OPENAI_API_KEY"):
    os.environ.update(OPENAI_API_KEY="none", OPENAI_API_BASE=LocalProvider().url, LITELLM_LOCAL_MODEL_COST_MAP="True")

import litellm  # it reads the environment when it is imported
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel
from starlette.datastructures import Headers

from litellm_budget_plugin import BudgetCallback
from litellm_budget_plugin.asgi import BudgetMiddleware

# Stands for your sessions or your identity provider.
USERS = {"token-of-alice": "alice", "token-of-bob": "bob"}
LEDGER = os.environ.get("LITELLM_BUDGET_STORE_URL") or f"sqlite:///{tempfile.mkdtemp()}/budgets.db"


def user_of(scope: Any) -> str | None:
    """Return the user that a request's token names."""
    return USERS.get(Headers(scope=scope).get("authorization", "").removeprefix("Bearer "))


def signed_in(request: Request) -> None:
    """Answer 401 to requests without a valid token."""
    if user_of(request.scope) is None:
        raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})


litellm.callbacks = [BudgetCallback(store_url=LEDGER, user_limits="$0.01/day")]
app = FastAPI()
# It names the paying user of each request, answers refusals with 402, and GET /budget with the user's budgets.
app.add_middleware(BudgetMiddleware, user=user_of, remaining_path="/budget")


class Question(BaseModel):
    """The body of a question."""

    question: str


@app.post("/chat", dependencies=[Depends(signed_in)])
async def chat(asked: Question) -> StreamingResponse:
    """Stream the model's answer. A refusal is raised here, before the first byte."""
    messages = [{"role": "user", "content": asked.question}]
    chunks = await litellm.acompletion(model="gpt-4o", messages=messages, max_tokens=500, stream=True)

    async def text() -> AsyncIterator[str]:
        async for chunk in chunks:
            yield chunk.choices[0].delta.content or ""

    return StreamingResponse(text(), media_type="text/plain")


@app.get("/")
def page() -> HTMLResponse:
    """Return a page with the chat and the user's budget."""
    return HTMLResponse(PAGE)


PAGE = """<!doctype html>
<html lang="en"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><title>Chat</title>
<style>body { font: 1rem/1.5 system-ui; max-width: 40rem; margin: 2rem auto; padding: 0 1rem } meter { width: 100% }</style>
<main><h1>Chat</h1>
<form><label>You are <select name="token"><option value="token-of-alice">Alice<option value="token-of-bob">Bob</select></label>
<label>Question <input name="question" value="What is the answer?" required></label> <button>Ask</button></form>
<p><output></output></p>
<p><label>Budget <meter></meter></label> <span id="budget"></span></p></main>
<script>
const form = document.forms[0], answer = document.querySelector("output"), meter = document.querySelector("meter")
const ask = (path, options = {}) => fetch(path, {...options,
  headers: {"Authorization": "Bearer " + form.token.value, "Content-Type": "application/json"}})
async function showBudget() {
  const [{budget, limit, remaining}] = (await (await ask("budget")).json()).budgets
  meter.max = limit; meter.value = remaining
  document.getElementById("budget").textContent = `$${remaining} of ${budget} left`
}
form.token.onchange = showBudget
form.onsubmit = async event => {
  event.preventDefault()
  answer.textContent = ""
  const said = await ask("chat", {method: "POST", body: JSON.stringify({question: form.question.value})})
  if (said.ok) for await (const text of said.body.pipeThrough(new TextDecoderStream())) answer.append(text)
  else answer.textContent = (await said.json()).detail
  await showBudget()
}
showBudget()
</script></html>
"""


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=8000)
    given = options.parse_args()
    uvicorn.run(app, host=given.host, port=given.port)
