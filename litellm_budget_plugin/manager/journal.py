"""The journal: charges that cannot be delivered, on this machine's disk until the store is back.

A directory with one file for each process that had something to keep. A file belongs to whoever has locked it: its process,
or, when that has died, the next one that delivers for the same store. Every line is a checksum and a JSON object:

    1c291ca3 {"at":1774734000000000,"command":{"type":"Settle",...}}

A line is whole or does not count: what a process was writing when it died was not kept yet. Entries are delivered in
their order. All carry ids, so what was delivered before the file could be removed counts once all the same.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from typing import NamedTuple

from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.commands import Release, Settle
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.disk import flush, sync_directory

try:
    import fcntl
except ImportError:  # Windows: files of dead processes are delivered by hand there
    fcntl = None  # type: ignore[assignment]

_logger = logging.getLogger("litellm_budget_plugin")
SUFFIX = ".journal"
ASIDE = ".aside"
"""Ends the names of files that wait for a person."""


class Entry(NamedTuple):
    """A command that waits, and since when (microseconds since 1970, by this machine's clock)."""

    at: int
    command: Settle | Release


class Seen(NamedTuple):
    """A file as it was found: whole entries, damaged ones, since when the first waits, and whether a living process has it."""

    path: str
    entries: int
    damaged: int
    since: int | None
    in_use: bool


def store_digest(place: str) -> str:
    """What the names of a store's files begin with. `place` is `registry.place_of` its URL."""
    return sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _line(text: str) -> bytes:
    data = text.encode()
    return b"%08x %s\n" % (zlib.crc32(data), data)


def _parsed(line: bytes) -> Entry | None:
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
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | _NO_TRANSLATION, 0o600)
        try:
            _lock(descriptor)
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
    def adopt(cls, path: str) -> JournalFile | None:
        """The file at `path`, if nobody uses it. Raises OSError other than for a file that is gone."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | _NO_TRANSLATION)
        except FileNotFoundError:
            return None
        if not _lock(descriptor) or not _is_at(path, descriptor):
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
            lines.append((line, _parsed(line)))
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

    def set_aside(self, lines: Sequence[bytes]) -> str:
        """Keep lines that wait for a person beside the file; returns where. Raises OSError."""
        path = self.path + ASIDE
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with _alone(path, flags) as descriptor, open(descriptor, "ab", closefd=False) as file:
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

    def let_go(self) -> None:
        """Leave the file to whoever delivers it next."""
        os.close(self._descriptor)


class Journal:
    """The files of one store in one directory: this process's own, made when it is needed, and those of dead processes."""

    def __init__(self, directory: str, place: str) -> None:
        self.directory = directory
        self._digest = store_digest(place)
        self._files: list[JournalFile] = []
        self._own: JournalFile | None = None

    @property
    def waiting(self) -> int:
        """How many entries wait in the files that this process has."""
        return sum(file.waiting for file in self._files)

    def keep(self, commands: Sequence[Settle | Release]) -> None:
        """Write commands down, durably, behind those that wait. Raises OSError, having kept none of them."""
        if self._own is None or self._own.torn:
            self._own = JournalFile.create(self.directory, self._digest)
            self._files.append(self._own)
            _logger.warning("charges that the store cannot take are kept in %s", self._own.path)
        now = time.time_ns() // 1000
        # The charge belongs to the day on which it was made, whenever it is delivered.
        dated = [
            replace(command, at=now) if isinstance(command, Settle) and command.at is None else command
            for command in commands
        ]
        self._own.append([Entry(now, command) for command in dated])

    def adopt(self) -> None:
        """Take over the files of processes that are gone."""
        ours = {file.path for file in self._files}
        try:
            theirs = sorted(self._paths() - ours) if fcntl is not None else []
        except OSError as error:
            _logger.error("the journals in %s cannot be seen: %s", self.directory, error)
            return
        for path in theirs:
            try:
                file = JournalFile.adopt(path)
            except OSError as error:
                _logger.error("the journal %s cannot be read, its charges wait for you: %s", path, error)
                continue
            if file is not None:
                _logger.warning("%d charges of a process that is gone are delivered from %s", file.waiting, path)
                self._files.insert(0, file)

    def _paths(self, suffix: str = SUFFIX) -> set[str]:
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return set()
        return {
            os.path.join(self.directory, name)
            for name in names
            if name.startswith(self._digest) and name.endswith(suffix)
        }

    def seen(self) -> list[Seen]:
        """Every file of this store that lies in the directory, those that wait for a person included, in the order of names.

        Raises OSError if the directory or one of them cannot be read.
        """
        found = [_seen(path) for path in sorted(self._paths() | self._paths(SUFFIX + ASIDE))]
        return [seen for seen in found if seen is not None]

    def first(self) -> JournalFile | None:
        """The file to deliver from; those in which nothing waits are removed first."""
        while self._files:
            file = self._files[0]
            if file.next(1):
                return file
            del self._files[0]
            if file is self._own:
                self._own = None
            file.remove()
        return None

    def close(self) -> None:
        """Leave what waits to others."""
        while self._files:
            self._files.pop().let_go()
        self._own = None


def _seen(path: str) -> Seen | None:
    """None for a file that has been delivered in this moment."""
    try:
        with open(path, "rb") as file:
            entries = [_parsed(line) for line in file]
            in_use = not path.endswith(ASIDE) and not _lock(file.fileno())
    except FileNotFoundError:
        return None
    times = [entry.at for entry in entries if entry is not None]
    return Seen(path, len(times), len(entries) - len(times), min(times, default=None), in_use)


def deliver_aside(path: str, send: Callable[[list[Settle | Release]], None]) -> int:
    """Have `send` deliver the whole entries of a file that was set aside, all at once; damaged lines stay in it, and so does
    what is set aside meanwhile. Returns how many.

    Raises what `send` raises, and OSError; then the file is as it was, and may be delivered again.
    """
    with open(path, "rb") as file:
        lines = list(file)
    entries = [entry for entry in map(_parsed, lines) if entry is not None]
    send([entry.command for entry in entries])
    # Not locked before: a service that sets something aside must not wait for this delivery.
    try:
        with _alone(path, os.O_RDONLY) as descriptor, open(descriptor, "rb", closefd=False) as file:
            found, delivered = file.read(), b"".join(lines)
            # Else another process has delivered the same and taken it out.
            if found.startswith(delivered):
                damaged = [line for line in lines if _parsed(line) is None]
                _put_back(path, b"".join(damaged) + found[len(delivered) :])
    except FileNotFoundError:
        pass
    return len(entries)


def _put_back(path: str, left: bytes) -> None:
    """Have `left` stand in the file's place, and no file if it is empty."""
    if left:
        unnamed = path + ".new"
        descriptor = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_TRANSLATION, 0o600)
        with open(descriptor, "wb") as file:
            file.write(left)
            file.flush()
            flush(file.fileno())
        os.replace(unnamed, path)
    else:
        os.unlink(path)
    sync_directory(os.path.dirname(path))


@contextmanager
def _alone(path: str, flags: int) -> Iterator[int]:
    """The file at `path`, while no other process is here with it. Raises OSError."""
    while True:
        descriptor = os.open(path, flags | _NO_TRANSLATION, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
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


_NO_TRANSLATION = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
