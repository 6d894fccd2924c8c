"""Count tokens with the cl100k_base encoding that LiteLLM contains. Never uses the network."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

# The families that OpenAI serves with cl100k_base. Tests compare this list with tiktoken's own.
_CL100K = re.compile(
    r"^(?:ft:)?(?:"
    r"gpt-4(?:-(?:\d{4}|32k(?:-\d{4})?|\d{4}-(?:vision-)?preview|turbo(?:-preview|-\d{4}-\d\d-\d\d)?|vision-preview))?"
    r"|gpt-(?:3\.5|35)-turbo(?:-(?:\d{4}|16k(?:-\d{4})?|instruct(?:-\d{4})?))?"
    r"|text-embedding-ada-002|text-embedding-3-(?:small|large)"
    r")(?::.*)?$"
)
_PROVIDERS = frozenset({"openai", "azure", "text-completion-openai", "azure_text"})
# tiktoken's cache name of cl100k_base: the SHA-1 of its URL.
_FILE = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"


def is_cl100k(provider: str | None, key: str | None) -> bool:
    """Return whether this cost-map key names a model whose tokens cl100k_base counts exactly."""
    if provider not in _PROVIDERS or not key:
        return False
    return _CL100K.match(key.rpartition("/")[2]) is not None


@cache
def is_available() -> bool:
    """Return whether the encoding can be loaded without a download."""
    import litellm

    bundled = Path(litellm.__file__).parent / "litellm_core_utils" / "tokenizers"
    return (Path(os.environ.get("CUSTOM_TIKTOKEN_CACHE_DIR") or bundled) / _FILE).is_file()


@cache
def _encoding() -> Any:
    if not is_available():
        return None
    with suppress(Exception):
        from litellm.litellm_core_utils.default_encoding import encoding

        return encoding
    return None


def count(text: str) -> int | None:
    """Return the tokens of a text in cl100k_base, with special tokens taken as text; None if LiteLLM's file is missing."""
    encoding = _encoding()
    if encoding is None:
        return None
    with suppress(Exception):
        return len(encoding.encode_ordinary(text))
    return None


def probable(text: str) -> int:
    """Return the tokens of a text for a call that reported no usage: by cl100k_base for every model, else four bytes a
    token.
    """
    found = count(text)
    return found if found is not None else -(-byte_length(text) // 4)


NO_JSON = 4096
"""The size that counts for a value that has no JSON."""


def json_size(value: object) -> int | None:
    """Return the characters of a value's JSON; None if it has none. A template does not render the value as longer text."""
    with suppress(ValueError, RecursionError, TypeError):
        return len(json.dumps(value, default=repr, skipkeys=True))
    return None


def byte_length(text: str) -> int:
    """Return the UTF-8 bytes of a text. A lone surrogate counts three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
