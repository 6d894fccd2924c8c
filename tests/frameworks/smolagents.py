"""smolagents, whose agents call tools, and each other, in threads."""

from __future__ import annotations

from typing import Any

from tests.frameworks.framework import HELPER, MODEL, STREAM, UNCOVERED, Framework, Setup, Way, take, tool_call

_CODE = 'Thought: this is easy.\n<code>\nfinal_answer("all is well")\n</code>'


def _answer(body: dict[str, Any]) -> Any:
    """Return the final answer; before it, two calls at once of the tool `ask` if there is one."""
    tools = [tool["function"]["name"] for tool in body.get("tools") or []]
    if not tools:
        return _CODE
    if "ask" in tools and body["messages"][-1]["role"] == "user" and "Calling tools" not in str(body["messages"]):
        message = tool_call("ask", '{"question": "one"}')
        message["tool_calls"].append({**tool_call("ask", '{"question": "two"}')["tool_calls"][0], "id": "call_2"})
        return message
    return tool_call("final_answer", '{"answer": "all is well"}')


def _ways(setup: Setup) -> list[Way]:
    import litellm
    from smolagents import CodeAgent, LiteLLMModel, LogLevel, OpenAIModel, ToolCallingAgent, tool

    @tool
    def ask(question: str) -> str:
        """Ask another model.

        Args:
            question: What to ask.
        """
        messages = [{"role": "user", "content": question}]
        return str(litellm.completion(model=MODEL, messages=messages, max_tokens=100).choices[0].message.content)

    model = LiteLLMModel(model_id=MODEL, max_tokens=100)
    retrying = LiteLLMModel(model_id=MODEL, max_tokens=100)
    retrying.retryer.wait_seconds = 0.001  # the default is 60 s
    once = LiteLLMModel(model_id=MODEL, max_tokens=100, retry=False)
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    quiet: dict[str, Any] = {"verbosity_level": LogLevel.OFF}

    def agent(kind: Any, tools: Any = (), **more: Any) -> Any:
        return kind(tools=list(tools), model=model, **quiet, **more)

    def streamed(user: str, most: int | None) -> Any:
        return take(agent(CodeAgent, stream_outputs=True).run("Do it", stream=True), most)

    return [
        Way("model.generate", lambda user: model.generate(messages)),
        Way("CodeAgent.run", lambda user: agent(CodeAgent).run("Do it")),
        Way("ToolCallingAgent.run", lambda user: agent(ToolCallingAgent).run("Do it")),
        Way("model.generate_stream", lambda user, most: take(model.generate_stream(messages), most), STREAM),
        Way("CodeAgent.run, stream=True", streamed, STREAM),
        Way("tools that call models, in threads", lambda user: agent(ToolCallingAgent, [ask]).run("Do it"), HELPER),
        Way(
            'a refusal with "429" in its text (waits cut short)',
            lambda user: retrying.generate(messages),
            user="user-429",
        ),
        Way("the same with retry=False", lambda user: once.generate(messages), user="other-user-429"),
        Way("OpenAIModel", lambda user: OpenAIModel(model_id=MODEL).generate(messages), UNCOVERED),
    ]


FRAMEWORK = Framework(
    title="smolagents",
    requires=("smolagents[litellm,openai]",),
    shown=("smolagents",),
    named="`budget_context`",
    ways=_ways,
    answer=_answer,
)
