"""Cells of CSV files that spreadsheets do not run: one that begins like a formula is text with an apostrophe before it."""

from __future__ import annotations

import re

# A cell begins where the value does, and after everything that some spreadsheet, set to some language, takes for the end of one.
_BEGINS = r"(?:^|[;,|]|[^\S ])[\s\"']*"
_SIGNS = "(?=[=+\\-@＝＋－＠])"  # noqa: RUF001  # the wide ones too
_FORMULA = re.compile(f"({_BEGINS}){_SIGNS}")
_GUARDED = re.compile(f"({_BEGINS})'{_SIGNS}")


def guarded(value: object) -> object:
    """A value as a cell: text that begins like a formula gets an apostrophe, true and false are yes and no, numbers stay."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str):
        return value
    text = _FORMULA.sub(r"\1'", value)
    return f"'{text}" if text[:1] in ("\t", "\r", "\n") else text


def unguarded(text: str) -> str:
    """The text, without control characters, that `guarded` made a cell of."""
    return _GUARDED.sub(r"\1", text)
