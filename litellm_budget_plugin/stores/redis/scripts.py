"""The Lua scripts: each file with what it needs before it, and how a call of it is written for the wire."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

_NEEDS = re.compile(r"^-- needs: (.*)$", re.MULTILINE)
_LAZY = re.compile(r"^-- lazily: (\w+)$(.*?)(?:^-- and at once:$|\Z)", re.MULTILINE | re.DOTALL)
_LAZILY = r"""
setmetatable(\1, {__index = function(_, key)
setmetatable(\1, nil)
\2
return rawget(\1, key)
end})
"""
_TABLE = re.compile(r"^local (\w+) = \{(?=\}$|[a-z_]+ = )", re.MULTILINE)
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
    # A server runs the whole text at every call, definitions included. So the functions that few calls need are made when
    # they are needed, and the tables of the others are made in their size: growing costs more than filling.
    at_once = "\n".join(_LAZY.sub("", part) for part in parts.values())
    lines = "\n".join(_COMMENT.sub("", _LAZY.sub(_LAZILY, part)) for part in parts.values())
    text = _TABLE.sub(lambda found: found[0] + _places(found[1], at_once), lines).encode()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


def _places(table: str, source: str) -> str:
    names = re.findall(rf"^function {table}\.(\w+)\(", source, re.MULTILINE)
    return "".join(f"{name} = false, " for name in names)


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
