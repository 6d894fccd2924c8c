"""Which models a budget is for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache

# How providers name the dated and numbered versions of a model: gpt-4o-2024-08-06, gpt-4-0613, claude-3-5-sonnet-20241022,
# claude-3-5-sonnet@20240620, gemini-1.5-pro-002, gemini-2.5-flash-preview-05-20, claude-3-5-sonnet-latest, and Bedrock's -v1:0 behind one.
_VERSION = r"(?:[-@](?:\d{4}-\d{2}-\d{2}|\d{2}-\d{4}|\d{4}-preview|\d{4}-\d{3}|\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|\d{3}|latest|default))?(?:-v\d+(?::\d+)?)?"


def is_pattern(model: str) -> bool:
    """Whether a budget's model may stand for more than one name and its versions."""
    return "*" in model or "?" in model


_FAMILY = re.compile(r"[^/*?]+/\*")


@lru_cache(maxsize=1024)
def _expression(model: str) -> re.Pattern[str]:
    # In names of models, brackets are no sets of characters.
    text = translate(model.replace("[", "[[]")) if is_pattern(model) else re.escape(model) + _VERSION
    return re.compile(text, re.IGNORECASE | re.DOTALL)


@lru_cache(maxsize=8192)
def covers(model: str, name: str) -> bool:
    """Whether a budget for `model` is one for the model called `name`.

    `model` is a name, which includes its dated versions, a provider's family such as `openai/*`, or a glob with `*` and `?`.
    Upper and lower case are the same: a provider may not tell them apart.
    """
    if model.casefold() == name.casefold():
        return True
    # A provider's family is a name of its own, which every call of the provider has; what a gateway passes on to it has not.
    return not _FAMILY.fullmatch(model) and _expression(model).fullmatch(name) is not None


def covers_any(model: str, names: Iterable[str]) -> bool:
    """Whether a budget for `model` is one for a model of these names. Every model is covered by the empty one."""
    return not model or any(covers(model, name) for name in names)
