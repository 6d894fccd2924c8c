"""The marks that a settled response leaves, so that old code beside the callback cannot charge it again."""

from __future__ import annotations

from typing import Any


def response_marks(user: str, response: Any) -> tuple[str, ...]:
    """Names of the marks for `user` and this response: by its own id, else by LiteLLM's call id; empty if it has neither.

    A response charged to one user may still be charged to another by hand: the user is part of the name.
    """
    if response is None:
        return ()
    own = _field(response, "id")
    if isinstance(own, str) and own:
        return (f"response:{own}:{user}",)
    hidden = _field(response, "_hidden_params")
    call = _field(hidden, "litellm_call_id") if hidden is not None else None
    return (f"call:{call}:{user}",) if isinstance(call, str) and call else ()


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)
