"""The database file: its path, whether it can be used there, and its flushing to the disk."""

from __future__ import annotations

import os
import re
from pathlib import Path

from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores.disk import flush, sync_directory

_MOUNTS = "/proc/self/mountinfo"
_NETWORK = re.compile(
    "nfs4?|cifs|smb3|smbfs|9p|afs|ceph|lustre|beegfs|glusterfs|gfs2|ocfs2|coda|fuse[.](sshfs|glusterfs|ceph|cephfs|s3fs|gcsfuse|"
    "rclone|juicefs|goofys|blobfuse2?|mount-s3|smbnetfs|curlftpfs|davfs)"
)


def path_from(rest: str) -> str:
    """The absolute path that follows `sqlite://` in a URL: `/relative.db` or `//absolute.db`.

    Raises BudgetInputError, with what to write instead, for anything else.
    """
    said = f"sqlite://{rest}"
    if ":memory:" in rest:
        raise BudgetInputError(f"{said!r}: for a ledger in memory, write memory://")
    if "?" in rest:
        raise BudgetInputError(f"{said!r}: a store's URL takes no parameters after '?'")
    if "\0" in rest:
        raise BudgetInputError(f"{said!r}: a path cannot contain a NUL character")
    if rest in ("", "/", "//"):
        raise BudgetInputError(f"{said!r} names no file; write sqlite:///relative.db or sqlite:////absolute.db")
    if not rest.startswith("/"):
        raise BudgetInputError(
            f"{said!r}: a file has no host; write sqlite:///{rest} for a relative path, sqlite:////... for an absolute one"
        )
    return os.path.abspath(rest[1:])


def prepare_file(path: str) -> None:
    """Create the file, readable only by its owner, if it does not exist; its -wal and -shm get the same mode.

    Raises BudgetStoreError if its directory is missing or not writable, or is on a network file system.
    """
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise BudgetStoreError(f"{path}: the directory {directory} does not exist; create it or name another file")
    if os.path.isdir(path):
        raise BudgetStoreError(f"{path} is a directory; name a file in it")
    kind = network_kind(os.path.realpath(path), _mounts())
    if kind is not None:
        raise BudgetStoreError(
            f"{path} is on a network file system ({kind}), where SQLite's locks and shared memory do not hold; "
            "name a file on a local disk"
        )
    try:
        # Only a new file is opened here: closing a descriptor of a file that SQLite has open would release SQLite's locks.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise BudgetStoreError(
            f"{path} cannot be created ({error.strerror}); give this user write access to {directory} or name another file"
        ) from error
    sync_directory(directory)


def _mounts() -> str:
    try:
        return Path(_MOUNTS).read_text("utf-8", "surrogateescape")
    except OSError:
        return ""


def network_kind(path: str, mounts: str) -> str | None:
    """The network file system of the absolute `path`, None if it is on none.

    `mounts` is a table in the form of Linux's /proc/self/mountinfo; if it is empty, nothing is known and nothing refused.
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields, _, source = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), (fields.split() + [""] * 5)[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # The later of two mounts on one point covers the earlier one.
        if point and inside and len(point) >= best:
            best, kind = len(point), source.split(" ")[0]
    return kind if _NETWORK.fullmatch(kind) else None


def identity(path: str) -> tuple[int, int] | None:
    """The identity of a file, which differs for another file in its place; None without a file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def file_size(path: str) -> int:
    """The size in bytes; 0 if the file does not exist."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def sync_file(path: str) -> int:
    """Flush the file's written data to the disk, if the file exists; return its size in bytes, or 0.

    Never call it on the database itself: closing the descriptor would release the locks of this process's connection.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return 0
    try:
        flush(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
