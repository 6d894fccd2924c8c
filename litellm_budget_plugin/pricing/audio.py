"""Speech, billed by the characters to speak, and transcription, billed by the seconds of audio."""

from __future__ import annotations

import os
import re
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from litellm_budget_plugin.pricing.price_sheet import PriceSheet
from litellm_budget_plugin.pricing.tokens import byte_length
from litellm_budget_plugin.pricing.unit_estimate import UnitCost, count
from litellm_budget_plugin.pricing.values import Estimate, Options, Request

# OpenAI and Google count 20 to 25 audio tokens for a second of speech. Nobody speaks slower than 4 characters a second.
_TOKENS_A_CHARACTER = 6
# OpenAI, "Managing costs": an audio input token is 100 ms. Google counts 32 tokens a second.
_HEARD = {"openai": 10, "azure": 10}
_HEARD_MOST = 32
# Speech above 8 syllables, or 20 tokens, a second cannot be understood.
_WRITTEN_A_SECOND = 20
_PER_CALL = 96


def estimate_speech(request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """Estimate by characters, or by one price for a piece of music. If a model is billed by tokens, estimate by the
    text and a generous guess at the audio, which no argument limits. A lost answer is charged its text: speech is made
    even if the answer is lost, and LiteLLM bills no audio tokens for it.
    """
    params = request.params
    text, tone = params.get("input"), params.get("instructions")
    characters = len(text) if isinstance(text, str) else len(repr(text))
    per_character, per_piece = sheet.rate("input_cost_per_character"), sheet.rate("output_cost_per_image")
    if per_character or per_piece:
        copies = count(params, "n", "sample_count") or 1 if per_piece else 1
        fixed = characters * per_character + per_piece * copies
        return UnitCost(fixed, fixed, copies=copies, per_byte=per_character).estimate(sheet, options)
    tokens = sum(byte_length(part) for part in (text, tone) if isinstance(part, str)) + _PER_CALL
    spoken = characters * _TOKENS_A_CHARACTER + _PER_CALL
    spoken = min(spoken, sheet.max_output) if sheet.max_output else spoken
    tier = sheet.tiers[0]
    cost = UnitCost(
        most=tokens * tier.text + spoken * tier.audio_output,
        floor=characters // 4 * tier.plain,
        certain=False,
        per_byte=tier.text + _TOKENS_A_CHARACTER * tier.audio_output,
        tokens=tokens + spoken,
        floor_tokens=characters // 4,
    )
    return cost.estimate(sheet, options)


def estimate_transcription(request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """Estimate the seconds by the file's own header or by the lowest rate of its format, times the price of one. If a
    model has a price for tokens, and the price by tokens is higher, that counts. A lost answer is charged the seconds
    that a file of this size usually has.
    """
    file = audio_duration(request.params.get("file"))
    per_second = sheet.rate("input_cost_per_second", "output_cost_per_second")
    most, floor = file.most * per_second, file.probable * per_second
    prompt = request.params.get("prompt")
    tier = sheet.tiers[-1]
    heard = file.most * _HEARD.get(sheet.provider or "", _HEARD_MOST)
    asked = (byte_length(prompt) if isinstance(prompt, str) else 0) + _PER_CALL
    written = file.most * _WRITTEN_A_SECOND
    written = min(written, sheet.max_output) if sheet.max_output else written
    by_token = bool(tier.text or tier.media or tier.output)
    if by_token:
        most = max(most, heard * tier.media + asked * tier.text + written * tier.output)
        floor = max(floor, file.probable * 10 * tier.media)
    cost = UnitCost(
        most=most,
        floor=floor,
        known=file.known,
        certain=file.certain and not (by_token and (sheet.max_output is None or sheet.provider not in _HEARD)),
        tokens=heard + asked + written if by_token else 0,
        floor_tokens=file.probable * 10 if by_token else 0,
        per_byte=tier.text,
    )
    return cost.estimate(sheet, options)


# The fewest bytes a second. MP3 has no rate below 8 kbit/s. AAC, Opus, Vorbis and AMR are not used below these rates,
# but may omit silence.
_LEAST = {"mp3": 1000, "mp4": 1000, "ogg": 500, "webm": 500, "amr": 500}
_UNKNOWN_LEAST = 250
_USUAL = 16_000
_HEAD = 4096
# Formats of a WAV file in which every second takes the same bytes: PCM, float, A-law, mu-law, extensible.
_EVEN = frozenset({1, 3, 6, 7, 0xFFFE})
_LEAST_RATE = 1000
# The least that precedes the sound: RIFF and its size, WAVE, the format, data and its size.
_WAV_HEAD = 44


@dataclass(frozen=True, slots=True)
class AudioDuration:
    """The length of a sound in seconds, rounded up."""

    most: int = 0
    probable: int = 0
    known: bool = False
    """Whether the size of the file is known."""
    certain: bool = False
    """Whether the sound cannot be longer than `most`."""


def audio_duration(file: object) -> AudioDuration:
    """Return the length of an argument of `litellm.transcription`: bytes, an open file, a path, or a tuple with one of
    them.

    It is read from the header and the size only. A file is never read as a whole and never consumed. The length is
    unknown for streams that cannot be rewound, and for URLs.
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
        # Reading a pipe would wait for its writer.
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
    # The size of the file, not the one in the header, because a stream's header is not reliable.
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
