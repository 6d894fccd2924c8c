"""The versions of LiteLLM that this package was tested with. docs/guarantees.md lists the same ones. This module does
not import LiteLLM.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

TESTED = ("1.104.0", "1.105.0", "1.106.2", "1.108.7", "1.110.2")
"""From the lowest accepted version to the newest."""


def litellm_version() -> str:
    """Return the version of the installed LiteLLM."""
    try:
        return version("litellm")
    except PackageNotFoundError:
        return "(unknown version)"


def untested(installed: str) -> str:
    """Return a sentence that says what is wrong with a version of LiteLLM; "" for one between the oldest and the newest
    tested ones.
    """
    numbers = _numbers(installed)
    if not numbers:
        return f"LiteLLM {installed} has no readable version; {TESTED[0]} to {TESTED[-1]} were tested"
    if numbers > _numbers(TESTED[-1]):
        return f"LiteLLM {installed} is newer than {TESTED[-1]}, the newest that was tested"
    if numbers < _numbers(TESTED[0]):
        return f"LiteLLM {installed} is older than {TESTED[0]}, the oldest that was tested"
    return ""


def _numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(each or 0) for each in found.groups()) if found else ()
