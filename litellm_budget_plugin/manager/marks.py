"""The marks of a settled response. They keep `update_cost`, in old code that also uses the callback, from charging it again."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from litellm_budget_plugin.core.names import MAX_ID_LENGTH


def response_marks(user: str, response: Any) -> tuple[str, ...]:
    """Return the names of the marks for `user` and this response, by its own id, else by LiteLLM's call id; empty if it has neither.

    The user is part of the name, because a response charged to one user may still be charged to another by hand.
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
    """Return `text`, which a provider or a caller chose, in a form that every store accepts as part of a name."""
    if len(text) <= MAX_ID_LENGTH and text.isprintable():
        return text
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)
