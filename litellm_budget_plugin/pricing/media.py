"""Token bounds of images, audio and files inside chat messages. Never the length of their base64."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Media:
    """One part of a message that is not text."""

    tokens: int
    """At most, where `certain`; else a generous number."""
    floor: int
    """As probably billed."""
    certain: bool
    images: int = 0
    audio_seconds: int = 0


# OpenAI, "Images and vision", high detail: scaled into 2048x2048, then the short side to 768, then 512-pixel tiles.
# 2048x768 keeps 4x2 = 8 tiles, the most there can be: base + 8 tiles. Low detail costs the base alone.
_TILES: tuple[tuple[re.Pattern[str], int, int], ...] = (
    (re.compile(r"gpt-4o-mini(?!-(?:tts|transcribe))"), 2833, 5667),
    (re.compile(r"(?:chatgpt-4o|gpt-4o|gpt-4\.5|gpt-4-turbo|gpt-4-vision)"), 85, 170),
    (re.compile(r"gpt-4\.1(?!-(?:mini|nano))"), 85, 170),
    (re.compile(r"(?:^|/)o(?:1|3)(?:-pro)?(?:-\d{4}-\d\d-\d\d)?$"), 75, 150),
    (re.compile(r"(?:^|/)gpt-5(?:-chat-latest|-\d{4}-\d\d-\d\d)?$"), 70, 140),
)
# Same page: 32-pixel patches, capped at 1536, times the model's factor (1.62, 1.72, at most 2.46): 1536 x 2.46.
_PATCHES = re.compile(r"gpt-4\.1-(?:mini|nano)|o4-mini|(?:^|/)gpt-5-(?:mini|nano)")
_PATCH_MOST = 3779
_TILE_MOST = 8
_OPENAI = frozenset({"openai", "azure", "text-completion-openai"})
# Anthropic, "Vision": width x height / 750 after scaling; 1,600 mostly, 4,784 for those that take 2,576-pixel sides.
_CLAUDE_MOST = 4784
# 10,000 patches (the largest budget documented by OpenAI) x 2.46: generous where nothing is documented.
_UNKNOWN_OPENAI = 24_600
_UNKNOWN_MOST = 4784
_IMAGE_FLOOR = 765
# A page of a PDF is billed as text and image by the provider; how many pages there are is not visible here.
_FILE_MOST = 32_768


def image(model: str, provider: str | None, detail: object) -> Media:
    """The bound of one image of any size for this model. `detail` as in OpenAI's image_url."""
    low = detail == "low"
    if provider in _OPENAI:
        if _PATCHES.search(model):
            return Media(_PATCH_MOST, _IMAGE_FLOOR, certain=True, images=1)
        for pattern, base, tile in _TILES:
            if pattern.search(model):
                most, floor = (base, base) if low else (base + tile * _TILE_MOST, base + tile * 4)
                return Media(most, floor, certain=True, images=1)
        return Media(_UNKNOWN_OPENAI, _IMAGE_FLOOR, certain=False, images=1)
    if "claude" in model:
        return Media(_CLAUDE_MOST, _IMAGE_FLOOR, certain=True, images=1)
    return Media(_UNKNOWN_MOST, _IMAGE_FLOOR, certain=False, images=1)


def audio(provider: str | None, part: Mapping[str, object]) -> Media:
    """The bound of one `input_audio` part, from the decoded size of its base64."""
    source = part.get("input_audio")
    data = source.get("data") if isinstance(source, Mapping) else None
    form = source.get("format") if isinstance(source, Mapping) else None
    if not isinstance(data, (str, bytes)):
        return Media(_FILE_MOST, 0, certain=False)
    size = len(data) * 3 // 4
    if provider in _OPENAI and form == "mp3":
        # MP3 has no rate below 8 kbit/s, so 1,000 bytes are at most a second; OpenAI bills 10 tokens a second.
        seconds = size // 1000 + 1
        return Media(seconds * 10, size // 16_000 * 10, certain=True, audio_seconds=seconds)
    # WAV may hold any codec; 250 bytes a second is below any in use, 32 tokens a second is Google's rate.
    seconds = size // 250 + 1
    return Media(seconds * 32, size // 32_000 * 10, certain=False, audio_seconds=seconds)


def attachment() -> Media:
    """A file, a video, or something that only the provider can measure."""
    return Media(_FILE_MOST, _IMAGE_FLOOR, certain=False, images=1)
