"""Ids of projects, scopes and subjects, and labels of models."""

from __future__ import annotations

from typing import Any

from litellm_budget_plugin.errors import BudgetInputError

MAX_ID_LENGTH = 256


def checked_id(value: Any, what: str) -> str:
    """`value` as an id: 1 to 256 printable characters, no white space at either end. Integers become text.

    Raises BudgetInputError, naming `what`, for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 10**MAX_ID_LENGTH else "9" * (MAX_ID_LENGTH + 1)
    if not isinstance(value, str):
        raise BudgetInputError(f"{what} must be text or an integer, got {type(value).__name__} {value!r:.80}")
    if not 1 <= len(value) <= MAX_ID_LENGTH:
        raise BudgetInputError(f"{what} must have 1 to {MAX_ID_LENGTH} characters, got {len(value)}: {value!r:.80}")
    if not value.isprintable() or value != value.strip():
        raise BudgetInputError(
            f"{what} must be printable characters without white space at the ends, got {value!r:.80}"
        )
    return value


def clean_label(text: str) -> str:
    """`text` as a label that every store can keep: printable, at most 256 characters. A provider chooses the model name
    in its response, and a charge must not fail because of it.
    """
    if text.isprintable() and len(text) <= MAX_ID_LENGTH:
        return text
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:MAX_ID_LENGTH])
