"""DSPy, whose LM calls LiteLLM if its engine says so."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.frameworks.framework import HELPER, LOST, MODEL, STREAM, UNCOVERED, Framework, Setup, Way, take

_SAID = "[[ ## reasoning ## ]]\nIt is so.\n\n[[ ## answer ## ]]\nAll is well.\n\n[[ ## completed ## ]]"


def _ways(setup: Setup) -> list[Way]:
    import dspy

    from litellm_budget_plugin import budget_context

    model = dspy.LM(f"openai/{MODEL}", engine="litellm", max_tokens=100, cache=False)
    dspy.configure(lm=model)
    program = dspy.Predict("question -> answer")
    # The default engine, "auto", chooses this one for OpenAI and others, unless the environment names an address as it does
    # here.
    native = dspy.LM(f"openai/{MODEL}", engine="lm15", api_base=setup.provider.url, cache=False, num_retries=0)
    examples = [dspy.Example(question=f"{number}?").with_inputs("question") for number in range(3)]

    threads: Any = {"num_threads": 2, "disable_progress_bar": True, "max_errors": 1}

    def parallel(called: Any) -> Any:
        return dspy.Parallel(**threads)([(called, example) for example in examples])

    def batch(user: str) -> Any:
        return program.batch(examples, **threads)

    def named(user: str) -> Any:
        with dspy.context(lm=model.copy(litellm_metadata={"budget_user": user})):
            return batch(user)

    def streamed(most: int | None) -> Any:
        listeners = [dspy.streaming.StreamListener(signature_field_name="answer")]
        chunks = dspy.streamify(program, stream_listeners=listeners, async_streaming=False)(question="Hi?")
        return take(chunks, most)

    def best(user: str) -> Any:
        return dspy.BestOfN(program, N=2, reward_fn=lambda args, made: 1.0, threshold=1.0)(question="Hi?")

    def openai_model(user: str) -> None:
        with dspy.context(lm=native):
            program(question="Hi?")

    return [
        Way("Predict", lambda user: program(question="Hi?")),
        Way("ChainOfThought", lambda user: dspy.ChainOfThought("question -> answer")(question="Hi?")),
        Way("acall", lambda user: asyncio.run(program.acall(question="Hi?"))),
        Way("BestOfN", best),
        Way("streamify", lambda user, most: streamed(most), STREAM),
        Way("asyncify", lambda user: asyncio.run(dspy.asyncify(program)(question="Hi?"))),
        Way("Parallel", lambda user: parallel(program), LOST),
        Way("Parallel with `carry`", lambda user: parallel(budget_context.carry(program)), HELPER),
        Way("batch", batch, LOST),
        Way("batch, an LM with `budget_user`", named, HELPER, context=False),
        Way('an LM without `engine="litellm"`', openai_model, UNCOVERED),
    ]


FRAMEWORK = Framework(
    title="DSPy",
    requires=("dspy",),
    shown=("dspy",),
    named="`budget_context`",
    ways=_ways,
    answer=lambda body: _SAID,
)
