"""How each family that is billed by tokens reports them: its usage, its text, and its streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from litellm_budget_plugin.pricing import google, messages, responses
from litellm_budget_plugin.pricing.usage import Counted, Received, answer_text, field, read_usage, receive_choices
from litellm_budget_plugin.pricing.values import Request


class Dialect(NamedTuple):
    """One API's answers."""

    usage: Callable[[object], Counted | None]
    texts: Callable[[object], list[str]]
    receive: Callable[[Sequence[object]], Received]
    call_type: str
    """LiteLLM's name of the family."""


_CHAT = Dialect(read_usage, answer_text, receive_choices, "completion")
_DIALECTS = {
    "completion": _CHAT,
    "text_completion": _CHAT._replace(call_type="text_completion"),
    "embedding": _CHAT._replace(call_type="embedding"),
    "responses": Dialect(responses.usage_of, responses.texts_of, responses.receive, "responses"),
    "messages": Dialect(read_usage, messages.texts_of, messages.receive, "anthropic_messages"),
    "generate_content": Dialect(google.usage_of, google.texts_of, google.receive, "generate_content"),
    "realtime": Dialect(responses.usage_of, responses.texts_of, responses.receive_session, "completion"),
}


def dialect_of(request: Request, answer: object = None) -> Dialect:
    """The dialect of an answer, or of the chunks that begin with `answer`: that of the request's family, unless LiteLLM has
    had it served by another API and reports that one's answers.
    """
    own = _DIALECTS.get(request.call_type, _CHAT)
    if request.call_type == "realtime":
        return own
    kind = field(answer, "type")
    if field(answer, "object") == "response" or (isinstance(kind, str) and kind.startswith("response.")):
        return _DIALECTS["responses"]
    return _CHAT if own.receive is not receive_choices and field(answer, "choices") is not None else own
