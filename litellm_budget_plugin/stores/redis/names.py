"""How a project is written in the keys of Redis."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote

from litellm_budget_plugin.errors import BudgetInputError

_CHECK = "%check"
"""In the place of a project, and no project's encoded name."""

_ENCODED = {"%": "%25", "{": "%7B", "}": "%7D"}


@lru_cache(maxsize=4096)
def root_of(prefix: str, project: str) -> bytes:
    """What the keys of a project begin with. The braces make it their hash tag: all of them lie in one slot.

    Raises BudgetInputError for half a surrogate pair.
    """
    encoded = "".join(_ENCODED.get(character, character) for character in project)
    try:
        # An empty tag would count for nothing.
        return f"{prefix}{{{encoded or '%'}}}".encode()
    except UnicodeEncodeError as error:
        raise BudgetInputError(f"the project's name holds text that cannot be stored: {error}") from None


def check_root(prefix: str) -> bytes:
    """What the keys begin with that belong to no project."""
    return f"{prefix}{{{_CHECK}}}".encode()


def project_of(prefix: str, key: str) -> str | None:
    """The project that a key belongs to; None for a key that is no project's."""
    tag, _, _ = key.removeprefix(f"{prefix}{{").partition("}")
    if tag == _CHECK:
        return None
    return "" if tag == "%" else unquote(tag)
