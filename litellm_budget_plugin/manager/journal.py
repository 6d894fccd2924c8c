"""The journal: charges that cannot be delivered, kept on this machine's disk until the store answers again.

It is a directory with one file for each process that had charges to keep. A file belongs to its process or, after the process has
died, to the first process that claims it for the same store. Entries are delivered in their order. Each has an id, so an entry that
is delivered twice counts once.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import NamedTuple

from litellm_budget_plugin.core.commands import Release, Settle
from litellm_budget_plugin.manager.journal_file import (
    CAN_LOCK,
    DEAD_LETTERS,
    NO_TRANSLATION,
    SUFFIX,
    Entry,
    JournalFile,
    alone,
    lock,
    parsed,
)
from litellm_budget_plugin.stores.disk import flush, sync_directory

_logger = logging.getLogger("litellm_budget_plugin")

_RELEASED_SECONDS = 600.0
"""How long this process waits before it claims a file again that it could not deliver."""


class Seen(NamedTuple):
    """A journal file: the numbers of its whole and its damaged entries, the time of its oldest entry (microseconds since 1970; None if it
    has none), and whether a living process has it.
    """

    path: str
    entries: int
    damaged: int
    since: int | None
    in_use: bool


def store_digest(place: str) -> str:
    """Return the prefix of the file names of a store. `place` is the result of `registry.place_of` for its URL."""
    return sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:12]


class Journal:
    """The files of one store in one directory: this process's own file, created when needed, and files claimed from dead processes."""

    def __init__(self, directory: str, place: str) -> None:
        self.directory = directory
        self._digest = store_digest(place)
        self._files: list[JournalFile] = []
        self._own: JournalFile | None = None
        self._claimed: set[JournalFile] = set()
        self._released: dict[str, float] = {}

    @property
    def waiting(self) -> int:
        """The number of entries that wait in this process's files."""
        return sum(file.waiting for file in self._files)

    def keep(self, commands: Sequence[Settle | Release]) -> None:
        """Append commands durably. Raises OSError, and then keeps none of them."""
        if self._own is None or self._own.torn:
            self._own = JournalFile.create(self.directory, self._digest)
            self._files.append(self._own)
            _logger.warning("charges that the store cannot take are kept in %s", self._own.path)
        now = time.time_ns() // 1000
        # A charge counts on the day on which it was made, not on the day of its delivery.
        dated = [
            replace(command, at=now) if isinstance(command, Settle) and command.at is None else command
            for command in commands
        ]
        self._own.append([Entry(now, command) for command in dated])

    def claim(self) -> None:
        """Claim the files of dead processes. Errors are logged."""
        now = time.monotonic()
        self._released = {path: until for path, until in self._released.items() if until > now}
        ours = {file.path for file in self._files}
        try:
            theirs = sorted(self._paths() - ours - self._released.keys()) if CAN_LOCK else []
        except OSError as error:
            _logger.error("the journals in %s cannot be listed: %s", self.directory, error)
            return
        for path in theirs:
            try:
                file = JournalFile.claim(path)
            except OSError as error:
                _logger.error("the journal %s cannot be read, its charges stay in it: %s", path, error)
                continue
            if file is not None:
                _logger.warning("%d charges of a dead process are delivered from %s", file.waiting, path)
                self._files.insert(0, file)
                self._claimed.add(file)

    def release(self, file: JournalFile) -> bool:
        """Give up a claimed file, so that other processes can claim it. This process does not claim it again for ten minutes. Returns
        False, and changes nothing, for this process's own file.
        """
        if file not in self._claimed:
            return False
        self._claimed.discard(file)
        self._files.remove(file)
        self._released[file.path] = time.monotonic() + _RELEASED_SECONDS
        file.release()
        return True

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
        """Return every file of this store in the directory, dead letters included, in the order of their names.

        Raises OSError if the directory or one of the files cannot be read.
        """
        found = [_seen(path) for path in sorted(self._paths() | self._paths(SUFFIX + DEAD_LETTERS))]
        return [seen for seen in found if seen is not None]

    def first(self) -> JournalFile | None:
        """Return the file to deliver from; None if there is none. Deletes files without waiting entries."""
        while self._files:
            file = self._files[0]
            if file.next(1):
                return file
            del self._files[0]
            if file is self._own:
                self._own = None
            self._claimed.discard(file)
            file.remove()
        return None

    def close(self) -> None:
        """Release every file for other processes to claim."""
        while self._files:
            self._files.pop().release()
        self._own = None
        self._claimed.clear()


def _seen(path: str) -> Seen | None:
    """Return the state of the file; None for a file that was just delivered."""
    try:
        with open(path, "rb") as file:
            entries = [parsed(line) for line in file]
            in_use = not path.endswith(DEAD_LETTERS) and not lock(file.fileno())
    except FileNotFoundError:
        return None
    times = [entry.at for entry in entries if entry is not None]
    return Seen(path, len(times), len(entries) - len(times), min(times, default=None), in_use)


def deliver_dead_letters(path: str, send: Callable[[list[Settle | Release]], None]) -> int:
    """Pass all whole entries of a file of dead letters to `send`, at once. Damaged lines, and entries that are added meanwhile, stay in
    the file. Returns how many entries were sent.

    Raises OSError and the errors of `send`; then the file is unchanged and can be delivered again.
    """
    with open(path, "rb") as file:
        lines = list(file)
    entries = [entry for entry in map(parsed, lines) if entry is not None]
    send([entry.command for entry in entries])
    # The lock is taken only now: a service that adds dead letters must not wait for this delivery.
    try:
        with alone(path, os.O_RDONLY) as descriptor, open(descriptor, "rb", closefd=False) as file:
            found, delivered = file.read(), b"".join(lines)
            # If it does not, another process has delivered and removed the entries.
            if found.startswith(delivered):
                damaged = [line for line in lines if parsed(line) is None]
                _put_back(path, b"".join(damaged) + found[len(delivered) :])
    except FileNotFoundError:
        pass
    return len(entries)


def _put_back(path: str, left: bytes) -> None:
    """Replace the file's content by `left`; delete the file if `left` is empty."""
    if left:
        unnamed = path + ".new"
        descriptor = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | NO_TRANSLATION, 0o600)
        with open(descriptor, "wb") as file:
            file.write(left)
            file.flush()
            flush(file.fileno())
        os.replace(unnamed, path)
    else:
        os.unlink(path)
    sync_directory(os.path.dirname(path))
