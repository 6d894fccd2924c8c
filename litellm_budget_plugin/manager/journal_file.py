"""One file of the journal. It belongs to the process that holds its lock. Every line is a checksum and a JSON object:

    1c291ca3 {"at":1774734000000000,"command":{"type":"Settle",...}}

An incomplete line does not count: its process died before it had written the entry.
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
"""The suffix of files whose entries a person must check."""


class Entry(NamedTuple):
    """A waiting command, and the time when it began to wait (microseconds since 1970, by this machine's clock)."""

    at: int
    command: Settle | Release


def _line(text: str) -> bytes:
    data = text.encode()
    return b"%08x %s\n" % (zlib.crc32(data), data)


def parsed(line: bytes) -> Entry | None:
    """Return the entry in a line; None for an incomplete or damaged line."""
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
    """One file, locked by this process. It is not thread-safe."""

    def __init__(self, path: str, descriptor: int, entries: int = 0) -> None:
        self.path = path
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._read_to = 0
        self.waiting = entries
        self.torn = False

    @classmethod
    def create(cls, directory: str, digest: str) -> JournalFile:
        """Create a new and empty file, and lock it. Raises OSError."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        name = f"{digest}-{os.getpid()}-{uuid.uuid4().hex[:8]}{SUFFIX}"
        path, unnamed = os.path.join(directory, name), os.path.join(directory, f".{name}")
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | NO_TRANSLATION, 0o600)
        try:
            lock(descriptor)
            # It is locked before it gets its name, so that no process takes it for the file of a dead process.
            os.rename(unnamed, path)
        except BaseException:
            os.close(descriptor)
            raise
        # Some file systems cannot sync directories. Other processes see the file nevertheless.
        with suppress(OSError):
            sync_directory(directory)
        return cls(path, descriptor)

    @classmethod
    def claim(cls, path: str) -> JournalFile | None:
        """Lock the file at `path`, and return it; None if another process has it, or if it no longer exists. Raises OSError."""
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
        """Append the entries. They are on the disk when this returns. Raises OSError, and then keeps none of them."""
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
            # If it is not truncated, the partial line and the next entry would form one damaged line.
            self.torn = True
            os.ftruncate(self._descriptor, self._size)
            self.torn = False
            raise
        self._size += len(data)
        self.waiting += len(entries)

    def next(self, most: int) -> list[tuple[bytes, Entry | None]]:
        """Return at most `most` of the next waiting lines, each with its entry, or None if the line is damaged."""
        lines = []
        for line in self._lines():
            lines.append((line, parsed(line)))
            if len(lines) == most:
                break
        return lines

    def passed(self, lines: Sequence[bytes]) -> None:
        """Mark `lines`, which are the next ones, as delivered."""
        self._read_to += sum(map(len, lines))
        self.waiting -= sum(1 for line in lines if line.endswith(b"\n"))

    def _lines(self) -> Iterator[bytes]:
        with open(os.dup(self._descriptor), "rb") as file:
            file.seek(self._read_to)
            yield from file

    def add_dead_letters(self, lines: Sequence[bytes]) -> str:
        """Append lines to the file of dead letters beside this file. Returns the path of that file. Raises OSError."""
        path = self.path + DEAD_LETTERS
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with alone(path, flags) as descriptor, open(descriptor, "ab", closefd=False) as file:
            file.write(b"".join(line if line.endswith(b"\n") else line + b"\n" for line in lines))
            file.flush()
            flush(file.fileno())
        sync_directory(os.path.dirname(path))
        return path

    def remove(self) -> None:
        """Delete the file, because every entry was delivered."""
        try:
            os.unlink(self.path)
        finally:
            os.close(self._descriptor)

    def release(self) -> None:
        """Unlock the file, so that another process can claim it."""
        os.close(self._descriptor)


@contextmanager
def alone(path: str, flags: int) -> Iterator[int]:
    """Open the file at `path` under an exclusive lock. Raises OSError."""
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
"""Whether this system can tell the file of a living process from that of a dead one."""


def lock(descriptor: int) -> bool:
    """Lock the file until the descriptor is closed, and return whether that worked. A forked child must close its copy."""
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
