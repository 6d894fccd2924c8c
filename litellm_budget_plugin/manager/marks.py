"""The marks of a settled response: `update_cost` in old code beside the callback does not charge it again."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from litellm_budget_plugin.core.names import MAX_ID_LENGTH


def response_marks(user: str, response: Any) -> tuple[str, ...]:
    """Names of the marks for `user` and this response: by its own id, else by LiteLLM's call id; empty if it has neither.

    A response charged to one user may still be charged to another by hand: the user is part of the name.
    """
    if response is None:
        return ()
    own = _field(response, "id")
    if isinstance(own, str) and own:
        return (f"response:{safe_name(own)}:{user}",)
    hidden = _field(response, "_hidden_params")
    call = _field(hidden, "litellm_call_id") if hidden is not None else None
    return (f"call:{safe_name(call)}:{user}",) if isinstance(call, str) and call else ()


def safe_name(text: str) -> str:
    """`text`, which a provider or a caller chose, as part of a name that every store can keep."""
    if len(text) <= MAX_ID_LENGTH and text.isprintable():
        return text
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)
