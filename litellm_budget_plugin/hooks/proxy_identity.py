"""The caller that the LiteLLM proxy has authenticated: the key, user and team of a request, and the account that they
pay from.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from typing import Any

_METADATA = ("metadata", "litellm_metadata")
_HASHED = re.compile(r"(hashed-jwt-)?[0-9a-f]{64}")


def caller_of(params: Mapping[str, Any]) -> Any | None:
    """Return the proxy's record of the caller (its UserAPIKeyAuth) from the arguments of a call; None outside of the
    proxy.

    The proxy puts the object itself into one of the two metadata dictionaries. A client can only write JSON there,
    which is never such an object, whatever its name.
    """
    for name in _METADATA:
        metadata = params.get(name)
        record = metadata.get("user_api_key_auth") if isinstance(metadata, Mapping) else None
        if record is not None and is_caller(record):
            return record
    return None


def is_caller(record: Any) -> bool:
    """Return whether this is the proxy's own record of a caller."""
    # The proxy has loaded this module. If it is not loaded, no such object exists.
    kind = getattr(sys.modules.get("litellm.proxy._types"), "UserAPIKeyAuth", None)
    return kind is not None and isinstance(record, kind)


def account_of(caller: Any) -> str | None:
    """Return the id that pays for a caller's requests: its user, or its key if it has no user; None if it has neither.

    A key is named by LiteLLM's hash of it, which cannot be chosen. An alias can be chosen, and could equal another
    person's user id.
    """
    if caller.user_id not in (None, ""):
        return str(caller.user_id)
    key = caller.api_key or caller.token
    if not key:
        return None
    if _HASHED.fullmatch(key) or key == caller.key_alias:
        # LiteLLM's own services use one name for both. It is not secret.
        return str(key)
    return hashlib.sha256(key.encode()).hexdigest()


def team_of(caller: Any) -> str | None:
    """Return the team that the proxy has found for a caller."""
    team = getattr(caller, "team_id", None)
    return str(team) if team not in (None, "") else None


def tags_of(caller: Any) -> tuple[str, ...]:
    """Return the tags of a caller's key and team, as the proxy's administrator has set them."""
    found: list[str] = []
    for name in ("metadata", "team_metadata"):
        metadata = getattr(caller, name, None)
        tags = metadata.get("tags") if isinstance(metadata, Mapping) else None
        found += [tag for tag in tags if isinstance(tag, str) and tag] if isinstance(tags, (list, tuple)) else []
    return tuple(dict.fromkeys(found))
