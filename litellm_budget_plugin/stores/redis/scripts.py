"""The Lua scripts: each file with what it needs before it, and how a call of it is written for the wire."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

_NEEDS = re.compile(r"^-- needs: (.*)$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*$|^\s+|\s+-- .*$", re.MULTILINE)


class Script(NamedTuple):
    """A script as it is sent: without its comments, and the name under which a server keeps it."""

    name: str
    text: bytes
    sha: bytes


@lru_cache(maxsize=64)
def script(name: str) -> Script:
    """The script of `name`.lua with the files that it needs before it, each once."""
    parts: dict[str, str] = {}
    _collect(name, parts)
    text = "\n".join(_COMMENT.sub("", part) for part in parts.values()).encode()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


def _collect(name: str, parts: dict[str, str]) -> None:
    source = resources.files(__package__).joinpath(f"{name}.lua").read_text("utf-8")
    needed = _NEEDS.search(source)
    for other in needed[1].split(", ") if needed else ():
        if other not in parts:
            _collect(other, parts)
    parts[name] = source


@lru_cache(maxsize=4096)
def _call(name: str, root: bytes, whole: bool) -> bytes:
    found = script(name)
    verb, body = (b"EVAL", found.text) if whole else (b"EVALSHA", found.sha)
    return b"*6\r\n" + b"".join(map(_bulk, (verb, body, b"1", root)))


def packed_words(*words: bytes) -> bytes:
    """A command that is no script's, for the wire."""
    return b"*%d\r\n" % len(words) + b"".join(map(_bulk, words))


def _bulk(part: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(part), part)


class Request(NamedTuple):
    """One run of a script for one project: `root` is what the project's keys begin with, the rest are its arguments."""

    script: str
    root: bytes
    arguments: bytes
    defaults: bytes = b"[]"

    def packed(self, whole: bool = False) -> bytes:
        """The command for the wire: by the script's name or, if `whole`, with its text."""
        arguments, defaults = self.arguments, self.defaults
        return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
            _call(self.script, self.root, whole),
            len(arguments),
            arguments,
            len(defaults),
            defaults,
        )
