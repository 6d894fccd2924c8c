"""How long a sound file may be, from its header and size alone. It is never read as a whole, and never consumed."""

from __future__ import annotations

import os
import re
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

# Bytes a second at the least. MP3 has no rate below 8 kbit/s; AAC, Opus, Vorbis and AMR are not used below these, but may
# leave silence out.
_LEAST = {"mp3": 1000, "mp4": 1000, "ogg": 500, "webm": 500, "amr": 500}
_UNKNOWN_LEAST = 250
_USUAL = 16_000
_HEAD = 4096
# Formats of a WAV file whose every second takes the same bytes: PCM, float, A-law, mu-law, extensible.
_EVEN = frozenset({1, 3, 6, 7, 0xFFFE})
_LEAST_RATE = 1000
# RIFF and its size, WAVE, the format, data and its size: what is before the sound at the least.
_WAV_HEAD = 44


@dataclass(frozen=True, slots=True)
class AudioDuration:
    """Seconds, rounded up."""

    most: int = 0
    probable: int = 0
    known: bool = False
    """There is a size to reckon with."""
    certain: bool = False
    """It cannot be longer than `most`."""


def audio_duration(file: object) -> AudioDuration:
    """The length of what `litellm.transcription` is given: bytes, an open file, a path, or a tuple with one of them.

    Unknown for streams that cannot be rewound, and for URLs.
    """
    if isinstance(file, tuple) and len(file) > 1:
        file = file[1]
    try:
        found = _head_and_size(file)
    except Exception:  # noqa: BLE001  # the caller's own file object: anything can happen, and an estimate never raises
        found = None
    if not found or not found[1]:
        return AudioDuration()
    return _length(*found)


def _head_and_size(file: Any) -> tuple[bytes, int] | None:
    if isinstance(file, (bytes, bytearray, memoryview)):
        return bytes(file[:_HEAD]), len(file)
    if isinstance(file, (str, os.PathLike)):
        return _of_path(os.fspath(file))
    if not callable(getattr(file, "seek", None)) or (callable(getattr(file, "seekable", None)) and not file.seekable()):
        return None
    before = file.tell()
    try:
        size = file.seek(0, os.SEEK_END)
        size = file.tell() if size is None else size
        file.seek(0)
        head = file.read(_HEAD)
    finally:
        file.seek(before)
    return (head, size) if isinstance(head, bytes) and isinstance(size, int) else None


def _of_path(path: str | bytes) -> tuple[bytes, int] | None:
    with suppress(OSError, ValueError):
        found = os.stat(path)
        # A pipe would wait for its writer.
        if stat.S_ISREG(found.st_mode):
            with open(path, "rb") as opened:
                return opened.read(_HEAD), found.st_size
    return None


def _length(head: bytes, size: int) -> AudioDuration:
    probable = size // _USUAL
    exact = _wav(head, size) or _flac(head)
    if exact:
        return AudioDuration(exact, min(exact, probable) if head[:4] == b"fLaC" else exact, known=True, certain=True)
    form = _form(head)
    most = -(-size // _LEAST.get(form, _UNKNOWN_LEAST))
    return AudioDuration(most, min(probable, most), known=True, certain=form == "mp3")


def _wav(head: bytes, size: int) -> int | None:
    if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
        return None
    at = head.find(b"fmt ", 12)
    if at < 0 or len(head) < at + 20:
        return None
    coding, _, _, rate = struct.unpack_from("<HHII", head, at + 8)
    # The size of the file, not what the header says of it: a stream's header says anything.
    return -(-max(size - _WAV_HEAD, 1) // rate) if coding in _EVEN and rate >= _LEAST_RATE else None


def _flac(head: bytes) -> int | None:
    if head[:4] != b"fLaC" or len(head) < 26:
        return None
    packed = int.from_bytes(head[18:26], "big")
    rate, samples = packed >> 44, packed & (1 << 36) - 1
    return -(-samples // rate) if rate and samples else None


def _form(head: bytes) -> str:
    if head[:3] == b"ID3" or re.match(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]", head):
        return "mp3"
    if head[4:8] == b"ftyp":
        return "mp4"
    return {b"OggS": "ogg", b"\x1aE\xdf\xa3": "webm", b"#!AM": "amr"}.get(head[:4], "")
