"""browser-use with its ChatLiteLLM; its agents use the machine's own Chromium."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Any

from tests.frameworks.framework import HELPER, MODEL, UNCOVERED, Framework, Seen, Setup, Way

_DONE = {"text": "All is well with you and me.", "success": True, "files_to_display": []}
_STEP = {
    "thinking": "It is done.",
    "evaluation_previous_goal": "Well.",
    "memory": "Nothing.",
    "next_goal": "To be done.",
    "action": [{"done": _DONE}],
}


def _ways(setup: Setup) -> list[Way]:
    from browser_use import Agent, BrowserProfile, ChatLiteLLM, ChatOpenAI
    from browser_use.llm.messages import UserMessage

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    chat = ChatLiteLLM(model=f"openai/{MODEL}", max_tokens=100)
    hello: Any = [UserMessage(content="Hi")]

    async def together() -> None:
        await asyncio.gather(chat.ainvoke(hello), chat.ainvoke(hello))

    async def agent(**more: Any) -> Any:
        profile = BrowserProfile(
            headless=True,
            executable_path=chromium,
            chromium_sandbox=False,
            enable_default_extensions=False,
            user_data_dir=None,
        )
        made = Agent("Say how you are", llm=chat, browser_profile=profile, use_judge=False, use_vision=False, **more)
        history = await made.run(max_steps=10)
        return None if history.is_successful() else Seen("an unfinished history")

    return [
        Way("ChatLiteLLM.ainvoke", lambda user: asyncio.run(chat.ainvoke(hello))),
        Way("asyncio.gather", lambda user: asyncio.run(together()), HELPER),
        Way("Agent.run", lambda user: asyncio.run(agent())),
        Way(
            "Agent.run, to be stopped at the first failure",
            lambda user: asyncio.run(agent(max_failures=1, final_response_after_failure=False)),
        ),
        Way("ChatOpenAI", lambda user: asyncio.run(ChatOpenAI(model=MODEL).ainvoke(hello)), UNCOVERED),
    ]


FRAMEWORK = Framework(
    title="browser-use",
    requires=("browser-use", "litellm"),
    shown=("browser-use",),
    named="`budget_context`",
    ways=_ways,
    answer=lambda body: json.dumps(_STEP),
    variables={
        "ANONYMIZED_TELEMETRY": "false",
        "BROWSER_USE_CLOUD_SYNC": "false",
        "BROWSER_USE_LOGGING_LEVEL": "result",
        "LITELLM_LOG": "ERROR",
    },
)
