"""The Lua scripts, and the wire format of their runs."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

_ALONE = ("check", "prepare", "release")
"""The scripts that run without head.lua."""


class Script(NamedTuple):
    """A script, and the name under which a server keeps it."""

    text: bytes
    sha: bytes


@lru_cache(maxsize=64)
def script(name: str) -> Script:
    """The script of `name`.lua."""
    files = [f"{name}.lua"] if name in _ALONE else ["head.lua", f"{name}.lua"]
    text = b"".join(resources.files(__package__).joinpath(file).read_bytes() for file in files)
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


def packed_words(*words: bytes) -> bytes:
    """A command for the wire."""
    return b"*%d\r\n" % len(words) + b"".join(map(_bulk, words))


def _bulk(part: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(part), part)


@lru_cache(maxsize=1024)
def _head(name: str, root: bytes, arguments: int, whole: bool) -> bytes:
    found = script(name)
    verb, body = (b"EVAL", found.text) if whole else (b"EVALSHA", found.sha)
    return b"*%d\r\n" % (4 + arguments) + b"".join(map(_bulk, (verb, body, b"1", root)))


class Request(NamedTuple):
    """One run of a script for one project: `root` is the beginning of the project's keys, the rest are its arguments."""

    script: str
    root: bytes
    arguments: tuple[bytes, ...]

    def packed(self, whole: bool = False) -> bytes:
        """The command for the wire: by the script's name or, if `whole`, with its text."""
        return _head(self.script, self.root, len(self.arguments), whole) + b"".join(map(_bulk, self.arguments))
