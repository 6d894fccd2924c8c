"""Making written data survive a power cut."""

from __future__ import annotations

import os
import sys


def flush(descriptor: int) -> None:
    """Write an open file's data through to the disk itself. Raises OSError."""
    if sys.platform == "darwin":
        import fcntl

        # fsync on macOS leaves the data in the drive's cache.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_directory(directory: str) -> None:
    """Make the names in a directory survive a power cut. Windows has no such call and does it by itself. Raises OSError."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
