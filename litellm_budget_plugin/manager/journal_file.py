"""One file of the journal. A file belongs to whoever has locked it. Every line is a checksum and a JSON object:

    1c291ca3 {"at":1774734000000000,"command":{"type":"Settle",...}}

A line is whole or does not count: what a process was writing when it died was not kept yet.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.commands import Release, Settle
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.disk import flush, sync_directory

try:
    import fcntl
except ImportError:  # Windows: files of dead processes are delivered by hand there
    fcntl = None  # type: ignore[assignment]


SUFFIX = ".journal"
DEAD_LETTERS = ".aside"
"""Ends the names of files that wait for a person."""


class Entry(NamedTuple):
    """A command that waits, and since when (microseconds since 1970, by this machine's clock)."""

    at: int
    command: Settle | Release


def _line(text: str) -> bytes:
    data = text.encode()
    return b"%08x %s\n" % (zlib.crc32(data), data)


def parsed(line: bytes) -> Entry | None:
    """The entry of a line; None for one that is not whole."""
    checksum, _, data = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(data):
        return None
    try:
        fields = json.loads(data)
        command = wire.decode(fields["command"])
    except (ValueError, KeyError, TypeError, BudgetInputError):
        return None
    return Entry(int(fields["at"]), command) if isinstance(command, (Settle, Release)) else None


class JournalFile:
    """One file, locked by this process. Not safe for threads by itself."""

    def __init__(self, path: str, descriptor: int, entries: int = 0) -> None:
        self.path = path
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._read_to = 0
        self.waiting = entries
        self.torn = False

    @classmethod
    def create(cls, directory: str, digest: str) -> JournalFile:
        """A new and empty file. Raises OSError."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        name = f"{digest}-{os.getpid()}-{uuid.uuid4().hex[:8]}{SUFFIX}"
        path, unnamed = os.path.join(directory, name), os.path.join(directory, f".{name}")
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | NO_TRANSLATION, 0o600)
        try:
            lock(descriptor)
            # Under its name it is locked from the first moment: nobody can take it for a dead process's.
            os.rename(unnamed, path)
        except BaseException:
            os.close(descriptor)
            raise
        # Some file systems cannot sync directories; the file is there for every process all the same.
        with suppress(OSError):
            sync_directory(directory)
        return cls(path, descriptor)

    @classmethod
    def claim(cls, path: str) -> JournalFile | None:
        """The file at `path`, if nobody uses it. Raises OSError other than for a file that is gone."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | NO_TRANSLATION)
        except FileNotFoundError:
            return None
        if not lock(descriptor) or not _is_at(path, descriptor):
            os.close(descriptor)
            return None
        found = cls(path, descriptor)
        found.waiting = sum(1 for line in found._lines() if line.endswith(b"\n"))
        return found

    def append(self, entries: Sequence[Entry]) -> None:
        """Keep the entries: on the disk when this returns. Raises OSError, having kept none of them."""
        data = b"".join(
            _line(json.dumps({"at": entry.at, "command": wire.encode(entry.command)}, separators=(",", ":")))
            for entry in entries
        )
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            flush(self._descriptor)
        except BaseException:
            # Until that is taken back, what is written behind it would be one damaged line with it.
            self.torn = True
            os.ftruncate(self._descriptor, self._size)
            self.torn = False
            raise
        self._size += len(data)
        self.waiting += len(entries)

    def next(self, most: int) -> list[tuple[bytes, Entry | None]]:
        """The next lines that wait, each with its entry, or None if it is damaged."""
        lines = []
        for line in self._lines():
            lines.append((line, parsed(line)))
            if len(lines) == most:
                break
        return lines

    def passed(self, lines: Sequence[bytes]) -> None:
        """These lines, the next ones, wait no longer."""
        self._read_to += sum(map(len, lines))
        self.waiting -= sum(1 for line in lines if line.endswith(b"\n"))

    def _lines(self) -> Iterator[bytes]:
        with open(os.dup(self._descriptor), "rb") as file:
            file.seek(self._read_to)
            yield from file

    def add_dead_letters(self, lines: Sequence[bytes]) -> str:
        """Keep lines that wait for a person beside the file; returns where. Raises OSError."""
        path = self.path + DEAD_LETTERS
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with alone(path, flags) as descriptor, open(descriptor, "ab", closefd=False) as file:
            file.write(b"".join(line if line.endswith(b"\n") else line + b"\n" for line in lines))
            file.flush()
            flush(file.fileno())
        sync_directory(os.path.dirname(path))
        return path

    def remove(self) -> None:
        """Everything has been delivered."""
        try:
            os.unlink(self.path)
        finally:
            os.close(self._descriptor)

    def release(self) -> None:
        """Leave the file to whoever delivers it next."""
        os.close(self._descriptor)


@contextmanager
def alone(path: str, flags: int) -> Iterator[int]:
    """The file at `path`, while no other process is here with it. Raises OSError."""
    while True:
        descriptor = os.open(path, flags | NO_TRANSLATION, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


CAN_LOCK = fcntl is not None
"""Whether a file of a living process can be told from one of a dead one."""


def lock(descriptor: int) -> bool:
    """Whether the file is this process's until the descriptor is closed. A child that is forked lets go of its copy."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


NO_TRANSLATION = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
