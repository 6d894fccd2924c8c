"""The number of tokens that the input of a request may have, without a tokenizer unless asked for.

A byte-level BPE never yields more tokens than UTF-8 bytes, nor does one with byte fallback. Images, audio and files
inside messages have their own bounds, which never depend on the length of their base64.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litellm_budget_plugin.pricing.scan import scan
from litellm_budget_plugin.pricing.tokens import NO_JSON, byte_length, count, json_size


@dataclass(frozen=True, slots=True)
class Media:
    """One part of a message that is not text."""

    tokens: int
    """The most tokens if `certain`; else a generous number."""
    floor: int
    """Tokens as probably billed."""
    certain: bool
    images: int = 0
    audio_seconds: int = 0


# OpenAI, "Images and vision", high detail: scaled into 2048x2048, then the short side to 768, then 512-pixel tiles.
# 2048x768 keeps 4x2 = 8 tiles, which is the most: base + 8 tiles. Low detail costs only the base.
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
# Anthropic, "Vision": width x height / 750 after scaling. Mostly 1,600, and 4,784 for models that take 2,576-pixel
# sides.
_CLAUDE_MOST = 4784
# 10,000 patches (the largest budget documented by OpenAI) x 2.46: generous for undocumented models.
_UNKNOWN_OPENAI = 24_600
_UNKNOWN_MOST = 4784
_IMAGE_FLOOR = 765
# A provider bills a page of a PDF as text and image. The number of pages is not known here.
_FILE_MOST = 32_768


def image(model: str, provider: str | None, detail: object) -> Media:
    """Return the bound of one image of any size for this model. `detail` is as in OpenAI's image_url."""
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
    """Return the bound of one `input_audio` part, from the decoded size of its base64."""
    source = part.get("input_audio")
    data = source.get("data") if isinstance(source, Mapping) else None
    form = source.get("format") if isinstance(source, Mapping) else None
    if not isinstance(data, (str, bytes)):
        return Media(_FILE_MOST, 0, certain=False)
    size = len(data) * 3 // 4
    if provider in _OPENAI and form == "mp3":
        # MP3 has no rate below 8 kbit/s, so 1,000 bytes are at most a second. OpenAI bills 10 tokens a second.
        seconds = size // 1000 + 1
        return Media(seconds * 10, size // 16_000 * 10, certain=True, audio_seconds=seconds)
    # WAV may hold any codec. 250 bytes a second is below any in use. 32 tokens a second is Google's rate.
    seconds = size // 250 + 1
    return Media(seconds * 32, size // 32_000 * 10, certain=False, audio_seconds=seconds)


def attachment() -> Media:
    """Return the bound of a file, a video, or something that only the provider can measure."""
    return Media(_FILE_MOST, _IMAGE_FLOOR, certain=False, images=1)


# Role, separators and end mark: 4 tokens in ChatML, 6 in Llama 3, about 15 in "[INST] <<SYS>>" templates.
PER_MESSAGE = 16
# The beginning of the answer, and what a template adds in front by itself: Llama's date lines take 30, gpt-oss's system
# text 80.
PER_CALL = 96
# The tokens that a provider adds when tools are declared: Anthropic documents at most 530, computer use 735.
PER_TOOLS = 1024
_PER_TOOL = 16
# [CLS] and [SEP], or begin and end marks, of embedding models.
PER_ITEM = 4
# xAI puts a hidden prompt of about 680 tokens in front of every grok-4 call.
PROVIDER_CALL = {"xai": 1024}
_FLOOR_MESSAGE = 4
_DEPTH = 8
_MOST_PARTS = 10**4
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal", "guarded_text"})
_IMAGE_PARTS = frozenset({"image_url", "image", "input_image"})
_FILE_PARTS = frozenset({"file", "input_file", "document", "video_url", "video", "video_file"})
_PLAIN_PARTS = frozenset({"thinking", "redacted_thinking", "tool_use", "reasoning", "server_tool_use", "cachePoint"})
_KNOWN_KEYS = frozenset({"role", "content"})


@dataclass(slots=True)
class InputCounter:
    """Running sums while a request is read."""

    model: str
    provider: str | None
    exact: bool
    text: int = 0
    """The most tokens: bytes, or the count if `exact`."""
    loose: int = 0
    """Bytes that `exact` would count."""
    saved: int = 0
    """The number of bytes minus the number of tokens, in text that was counted."""
    floor: int = 0
    """Bytes of text. In the end, four bytes count as one token."""
    messages: int = 0
    media: int = 0
    media_floor: int = 0
    media_parts: int = 0
    images: int = 0
    audio_seconds: int = 0
    certain: bool = True
    caches: bool = False

    def add_text(self, text: str) -> None:
        """Add text that a tokenizer may count."""
        size = len(text) if text.isascii() else byte_length(text)
        self.floor += size
        counted = count(text) if self.exact else None
        if counted is None:
            self.loose += size
            self.text += size
        else:
            self.saved += size - counted
            self.text += counted

    @property
    def bytes(self) -> int:
        """The value of `text` without a tokenizer: at least the UTF-8 bytes of everything read."""
        return self.text + self.saved

    @property
    def floor_tokens(self) -> int:
        """The input tokens as probably billed: four bytes a token."""
        return min(-(-self.floor // 4) + self.media_floor, self.text + self.media)

    def add_bytes(self, size: int) -> None:
        """Add text that was measured elsewhere."""
        self.text += size
        self.floor += size

    def add_attachments(self, parts: int) -> None:
        """Add a number of media of which nothing more is known."""
        for _ in range(min(parts, _MOST_PARTS)):
            self.add_media(attachment())

    def add_json(self, value: object) -> None:
        """Add structured content: the bytes of its JSON."""
        size = json_size(value)
        if size is None:
            self.certain = False
        self.add_bytes(NO_JSON if size is None else size)

    def add_unknown(self, value: object) -> None:
        """Add something that is not understood: its bytes, and the result is no longer certain. Does not consume
        generators.
        """
        self.certain = False
        seen = scan(value, "content")
        self.add_bytes(seen.size)
        self.add_attachments(seen.media)
        self.caches = self.caches or seen.caches

    def add_media(self, part: Media) -> None:
        """Add an image, audio or file."""
        self.media_parts += 1
        self.media += part.tokens
        self.media_floor += min(part.floor, part.tokens)
        self.images += part.images
        self.audio_seconds += part.audio_seconds
        self.certain = self.certain and part.certain

    def add_messages(self, messages: object) -> None:
        """Add the `messages` of a chat completion."""
        if isinstance(messages, (list, tuple)):
            for message in messages:
                if type(message) is dict and len(message) == 2 and "role" in message:
                    content = message.get("content")
                    if type(content) is str:
                        # The plain case, which covers nearly every message.
                        self.messages += 1
                        self.text += PER_MESSAGE
                        self.floor += _FLOOR_MESSAGE * 4
                        self.add_text(content)
                        continue
                self.add_message(message)
        elif messages is not None:
            self.add_unknown(messages)

    def add_message(self, message: Any) -> None:
        """Add one message: a dictionary, or an object of LiteLLM's or the provider's."""
        self.messages += 1
        self.text += PER_MESSAGE
        self.floor += _FLOOR_MESSAGE * 4
        if not isinstance(message, dict):
            message = as_dict(message)
            if message is None:
                self.certain = False
                return
        content = message.get("content")
        if type(content) is str:
            self.add_text(content)
        elif content is not None:
            self.add_content(content)
        if len(message) > len(_KNOWN_KEYS) or "content" not in message:
            rest = {key: value for key, value in message.items() if key not in _KNOWN_KEYS and value is not None}
            images = rest.pop("images", None)
            for _ in images if isinstance(images, (list, tuple)) else ():
                self.add_media(image(self.model, self.provider, None))
            if rest:
                self.caches = self.caches or scan(rest).caches
                self.add_json(rest)

    def add_content(self, content: object, depth: int = _DEPTH) -> None:
        """Add the content of a message: text, or a list of parts."""
        if isinstance(content, str):
            self.add_text(content)
        elif isinstance(content, (list, tuple)) and depth:
            for part in content:
                self._add_part(part, depth - 1)
        elif isinstance(content, Mapping) and depth:
            self._add_part(content, depth - 1)
        elif content is not None:
            self.add_unknown(content)

    def _add_part(self, part: object, depth: int) -> None:
        if not isinstance(part, Mapping):
            if isinstance(part, str):
                self.add_text(part)
            else:
                self.add_unknown(part)
            return
        kind = part.get("type")
        kind = kind if isinstance(kind, str) else ""
        self.caches = self.caches or "cache_control" in part
        self.text += 4
        if kind in _TEXT_PARTS and isinstance(part.get("text") or part.get("refusal"), str):
            self.add_text(part.get("text") or part["refusal"])
        elif kind in _IMAGE_PARTS:
            source = part.get("image_url")
            detail = source.get("detail") if isinstance(source, Mapping) else part.get("detail")
            self.add_media(image(self.model, self.provider, detail))
        elif kind == "input_audio":
            self.add_media(audio(self.provider, part))
        elif kind in _FILE_PARTS:
            seen = scan(part, "content")
            self.add_bytes(seen.text)
            # Text inside a file is counted as text. Content that only the provider can open is an attachment.
            self.add_attachments(max(seen.media, 1))
        elif kind == "tool_result":
            self.text += PER_MESSAGE + len(str(part.get("tool_use_id")))
            self.add_content(part.get("content"), depth)
        elif kind in _PLAIN_PARTS:
            self.add_json(part)
        else:
            self.add_unknown(part)

    def add_tools(self, tools: object) -> None:
        """Add declared tools or functions."""
        self.text += PER_TOOLS
        for tool in tools if isinstance(tools, (list, tuple)) else (tools,):
            self.text += _PER_TOOL
            self.add_json(tool)
            # Other kinds run at the provider and add their results to the input.
            if not isinstance(tool, Mapping) or not runs_at_caller(tool):
                self.certain = False
        self.caches = self.caches or scan(tools).caches

    def add_prompt(self, prompt: object) -> int:
        """Add the `prompt` or `input` of text completions and embeddings: text, token ids, or a list of either.

        Returns the number of items.
        """
        if isinstance(prompt, str):
            self._add_item(prompt)
        elif isinstance(prompt, (list, tuple)) and prompt:
            if set(map(type, prompt)) == {int}:
                self._add_ids(prompt)
                return 1
            for item in prompt:
                self._add_item(item)
            return len(prompt)
        elif prompt is not None:
            self.add_unknown(prompt)
        return 1

    def _add_item(self, item: object) -> None:
        if isinstance(item, str) and not item.startswith("data:"):
            self.text += PER_ITEM
            self.add_text(item)
        elif isinstance(item, str):
            self.add_media(attachment())
        elif isinstance(item, (list, tuple)) and set(map(type, item)) <= {int}:
            self._add_ids(item)
        else:
            self.text += PER_ITEM
            self.add_unknown(item)

    def _add_ids(self, ids: Sequence[int]) -> None:
        self.text += len(ids)
        self.saved += scan(ids).size
        self.floor += len(ids) * 4


def runs_at_caller(tool: Mapping[str, Any]) -> bool:
    """Return whether a declared tool only describes a function of the caller."""
    if "functionDeclarations" in tool or "function_declarations" in tool:
        return len(tool) == 1
    kind = tool.get("type")
    return kind in ("function", "custom") or (kind is None and ("name" in tool or "function" in tool))


def as_dict(message: object) -> dict[str, Any] | None:
    """Return an object with fields as a dictionary without the unset ones; None if it cannot be read as one."""
    dump = getattr(message, "model_dump", None)
    try:
        found = dump(exclude_none=True) if callable(dump) else dict(message) if isinstance(message, Mapping) else None
    except Exception:  # noqa: BLE001  # a model class of other code: anything can happen, and an estimate never raises
        return None
    return found if isinstance(found, dict) else None
