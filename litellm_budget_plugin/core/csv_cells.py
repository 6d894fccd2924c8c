"""CSV cells that spreadsheets do not run as formulas: text that begins like a formula gets an apostrophe before it."""

from __future__ import annotations

import re

# A cell begins at the start of the value, and after every character that some spreadsheet, in some language, reads as the end of a cell.
_BEGINS = r"(?:^|[;,|]|[^\S ])[\s\"']*"
_SIGNS = "(?=[=+\\-@＝＋－＠])"  # noqa: RUF001  # the wide ones too
_FORMULA = re.compile(f"({_BEGINS}){_SIGNS}")
_GUARDED = re.compile(f"({_BEGINS})'{_SIGNS}")


def guarded(value: object) -> object:
    """A value as a cell: text that begins like a formula gets an apostrophe, true and false become yes and no, numbers stay."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str):
        return value
    text = _FORMULA.sub(r"\1'", value)
    return f"'{text}" if text[:1] in ("\t", "\r", "\n") else text


def unguarded(text: str) -> str:
    """The text that `guarded` turned into this cell, if it had no control characters."""
    return _GUARDED.sub(r"\1", text)
