"""The models that a budget covers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache

# The dated and numbered versions of a model, as providers name them: gpt-4o-2024-08-06, gpt-4-0613,
# claude-3-5-sonnet-20241022, claude-3-5-sonnet@20240620, gemini-1.5-pro-002, gemini-2.5-flash-preview-05-20,
# claude-3-5-sonnet-latest, and Bedrock's -v1:0 behind one.
_VERSION = r"(?:[-@](?:\d{4}-\d{2}-\d{2}|\d{2}-\d{4}|\d{4}-preview|\d{4}-\d{3}|\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|\d{3}|latest|default))?(?:-v\d+(?::\d+)?)?"


def is_pattern(model: str) -> bool:
    """Whether a budget's model may stand for more than one name and its versions."""
    return "*" in model or "?" in model


_FAMILY = re.compile(r"[^/*?]+/\*")


@lru_cache(maxsize=1024)
def _expression(model: str) -> re.Pattern[str]:
    # Brackets in model names are literal, not sets of characters.
    text = translate(model.replace("[", "[[]")) if is_pattern(model) else re.escape(model) + _VERSION
    return re.compile(text, re.IGNORECASE | re.DOTALL)


@lru_cache(maxsize=8192)
def covers(model: str, name: str) -> bool:
    """Whether a budget for `model` covers the model called `name`.

    `model` is a name, which includes its dated versions, a provider's family such as `openai/*`, or a glob with `*` and
    `?`. Case is ignored: a provider may not distinguish it.
    """
    if model.casefold() == name.casefold():
        return True
    # A provider's own calls have its family as one of their names, which is compared above. Calls that a gateway passes
    # on to the provider do not have it, so a family is not read as a glob.
    return not _FAMILY.fullmatch(model) and _expression(model).fullmatch(name) is not None


def covers_any(model: str, names: Iterable[str]) -> bool:
    """Whether a budget for `model` covers one of these names. The empty model covers every name."""
    return not model or any(covers(model, name) for name in names)
