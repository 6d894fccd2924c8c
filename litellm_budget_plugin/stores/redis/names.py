"""The names of projects in the keys of Redis."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote

from litellm_budget_plugin.errors import BudgetInputError

_CHECK = "%check"
"""Stands in the place of a project, and is not any project's encoded name."""

_ENCODED = {"%": "%25", "{": "%7B", "}": "%7D"}


@lru_cache(maxsize=4096)
def root_of(prefix: str, project: str) -> bytes:
    """The beginning of a project's keys. The braces make it their hash tag: all of them are in one slot.

    Raises BudgetInputError for half a surrogate pair.
    """
    encoded = "".join(_ENCODED.get(character, character) for character in project)
    try:
        # An empty tag would be ignored.
        return f"{prefix}{{{encoded or '%'}}}".encode()
    except UnicodeEncodeError as error:
        raise BudgetInputError(f"the project's name holds text that cannot be stored: {error}") from None


def check_root(prefix: str) -> bytes:
    """The beginning of the keys that belong to no project."""
    return f"{prefix}{{{_CHECK}}}".encode()


def project_of(prefix: str, key: str) -> str | None:
    """The project of a key; None if it belongs to no project."""
    tag, _, _ = key.removeprefix(f"{prefix}{{").partition("}")
    if tag == _CHECK:
        return None
    return "" if tag == "%" else unquote(tag)
