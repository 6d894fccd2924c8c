"""Streamlit's scripts, which run in Streamlit's threads, under Streamlit's own test framework."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from tests.frameworks.framework import HELPER, STREAM, Framework, Seen, Setup, Way


def _asking(user: str) -> None:
    import litellm
    import streamlit as st

    from litellm_budget_plugin import budget_context

    with budget_context(user=user):
        answer = litellm.completion(model="gpt-4o", max_tokens=100, messages=[{"role": "user", "content": "Hi"}])
    st.write(answer.choices[0].message.content)


def _handling(user: str) -> None:
    import litellm
    import streamlit as st

    from litellm_budget_plugin import BudgetExceeded, budget_context

    try:
        with budget_context(user=user):
            litellm.completion(model="gpt-4o", max_tokens=100, messages=[{"role": "user", "content": "Hi"}])
    except BudgetExceeded as refused:
        st.error(str(refused))


def _streaming(user: str, most: int | None) -> None:
    from itertools import islice

    import litellm
    import streamlit as st

    from litellm_budget_plugin import budget_context

    with budget_context(user=user):
        chunks = litellm.completion(
            model="gpt-4o", max_tokens=100, messages=[{"role": "user", "content": "Hi"}], stream=True
        )
    st.write_stream(chunk.choices[0].delta.content or "" for chunk in islice(chunks, most))


def _threads(user: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import litellm

    from litellm_budget_plugin import budget_context

    call = {"model": "gpt-4o", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
    with ThreadPoolExecutor(2) as pool, budget_context(user=user):
        for future in [pool.submit(budget_context.carry(litellm.completion), **call) for _ in range(2)]:
            future.result()


def _ways(setup: Setup) -> list[Way]:
    from streamlit.testing.v1 import AppTest

    def run(script: Any, *arguments: Any) -> Any:
        # Streamlit prints the traceback of an exception on the terminal.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            shown = AppTest.from_function(script, args=arguments, default_timeout=60).run()
        if shown.exception:
            return Seen("the refusal in Streamlit's box for exceptions")
        return Seen("`st.error` of the script") if shown.error else shown

    return [
        Way("a script", lambda user: run(_asking, user), context=False),
        Way("a script that handles refusals", lambda user: run(_handling, user), context=False),
        Way("st.write_stream", lambda user, most: run(_streaming, user, most), STREAM, context=False),
        Way("threads with `carry`", lambda user: run(_threads, user), HELPER, context=False),
    ]


FRAMEWORK = Framework(
    title="Streamlit",
    requires=("streamlit",),
    shown=("streamlit",),
    named="`budget_context` in the script",
    ways=_ways,
    variables={"STREAMLIT_LOGGER_LEVEL": "error"},
)
