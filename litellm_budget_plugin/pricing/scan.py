"""One reading of any JSON-like value: how much text it holds, and which limits, choices, caches and media it asks for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from litellm_budget_plugin.pricing.tokens import byte_length

MOST_TOKENS = 10**9
MOST_COPIES = 10**6
# The size that counts for a part that cannot be read to its end: more than any context window holds.
_UNREADABLE = 1 << 22
_MOST_NODES = 1 << 21
_MOST_DEPTH = 2000
_LONGEST_NAME = 64
_LARGEST = 10**18
# The longest text of a double.
_FLOAT = 24


def words_of(words: str) -> frozenset[str]:
    """Return the words of a table."""
    return frozenset(words.split())


# The meaning of a field's name for its value, as bits: flags of the enum module take a microsecond each.
LIMIT = 1
"""A number is a limit of output tokens."""
THINKING = 2
"""A number is a budget of thinking tokens."""
COPIES = 4
"""A number is a count of answers, images, or the like."""
SECONDS = 8
"""A number is a length of what is made."""
CACHE = 16
"""The provider is asked to write a cache."""
CONTENT = 32
"""Conversation, schema or tool: text, and no numbers that a provider obeys."""
MEDIA = 64
"""Text that is base64 or an address stands for an image, a sound or a file."""
WORD = 128
"""The name is part of a provider's format and not text of a caller."""
KIND = 256
"""The value names a role or a type."""


_TOKEN_IDS = re.compile(r"tokenids?$|^(?:bos|eos|pad|mask|sep|stop|start|unk)token|tokentype|tokenizer|^logittokens?")
_LIMIT_NAME = re.compile(
    r"token|predict|budget|max.*(?:len|out|gen|new|compl|resp|answ|word|char)|"
    r"(?:out|gen|resp|answ|compl).*(?:len|size|limit)|^length$|^limit$"
)
# A minimum to write and a maximum to read are not limits either. But nobody writes less than the minimum.
_THINKING_NAME = re.compile(
    r"^(?:thinking)?budget(?:tokens)?$|(?:think|reason).*(?:budget|tokens)|^min.*(?:tokens?|len|length)$|^truncate.*tokens$"
)
_COPIES_NAME = re.compile(
    r"^n$|^best_?of$|candidate|beam|returnsequences|^(?:copies|variations|batchsize)$|"
    r"^(?:num(?:ber)?(?:of)?|n).*(?:gener|sequence|completion|choice|sample|response|output|result|image|video|answer|variation)|"
    r"^(?:sample|image|video|output|completion|choice|generation|answer|result)s?(?:count|number|num|n)$"
)
_SECONDS_NAME = re.compile(r"second|duration|^(?:video|clip)?length|frames")
_CACHE_NAME = re.compile(r"^cachecontrol|^cachepoint|^enablepromptcaching$|^promptcaching$")
_CONTENTS = words_of(
    "messages contents content system systeminstruction instructions tools toolconfig functions functiondeclarations "
    "responseformat responseschema responsejsonschema jsonschema inputschema outputformat outputschema schema format "
    "textformat prediction documents prompt prompts text texts toolcalls functioncall chathistory preamble guidedjson "
    "structuredoutputs logitbias stop stopsequences toolspec toolresults"
)
_PROMPTS = words_of("prompt prompts inputs instances")
_MEDIA_NAMES = words_of(
    "image images imageurl imageurls inputimage inputimages inputreference initimage mask video videos videourl audio "
    "audios audiourl inputaudio file files fileurl fileuri filedata inlinedata source document documenturl bytes "
    "bytesbase64encoded b64json base64 blob gcsuri s3location"
)
_WORDS = words_of(
    "role content contents parts text type messages message model system tools tool function functions name parameters "
    "functionDeclarations function_declarations generationConfig generation_config inferenceConfig toolConfig toolSpec "
    "inputSchema json input_schema properties description required inlineData inline_data mimeType mime_type source "
    "media_type data image image_url url detail tool_calls tool_call_id tool_use_id arguments id prompt input stream "
    "functionCall functionResponse function_call function_response args response system_instruction systemInstruction "
    "additionalModelRequestFields additionalModelResponseFieldPaths cache_control options parameters inputs "
    "response_format json_schema schema strict toolUse toolUseId toolResult toolChoice tool_choice format bytes input_text "
    "output_text extra_body anthropic_version additionalProperties title items enum images thinking budget_tokens "
    "disable_parallel_tool_use stream_options include_usage responseSchema response_schema responseMimeType "
    "response_mime_type safetySettings safety_settings"
)
_KINDS = words_of(
    "user assistant model system developer tool function text image image_url input_text output_text input_image json "
    "json_object json_schema object string number integer boolean array null base64 url tool_use tool_result ephemeral "
    "auto any none enabled disabled adaptive message file document function_call function_call_output"
)


@lru_cache(maxsize=4096)
def sense_of(name: str) -> int:
    """Return the meaning of a field's name, in any provider's spelling."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    found = WORD if name in _WORDS else 0
    if plain in ("role", "type"):
        found |= KIND
    for meaning, names in ((CONTENT, _CONTENTS), (MEDIA, _MEDIA_NAMES)):
        if plain in names:
            return found | meaning
    if _CACHE_NAME.search(plain):
        return found | CACHE
    if _TOKEN_IDS.search(plain):
        return found
    found |= SECONDS if _SECONDS_NAME.search(plain) else 0
    for meaning, pattern in ((THINKING, _THINKING_NAME), (COPIES, _COPIES_NAME), (LIMIT, _LIMIT_NAME)):
        if pattern.search(plain):
            return found | meaning
    return found


_NUMBERS = LIMIT | THINKING | COPIES | SECONDS
_INHERITED = _NUMBERS | CONTENT | MEDIA
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-=\r\n]{1,256}")
_BASE64_LEAST = 64
_ADDRESSES = ("http://", "https://", "gs://", "s3://", "file://")
_NO_LIMIT = frozenset({"", "unlimited", "none", "null", "max"})
_BINARY = ("image/", "audio/", "video/", "application/pdf", "application/octet-stream")


@dataclass(slots=True)
class Scan:
    """Sums and maxima over everything that was read."""

    text: int = 0
    """UTF-8 bytes of all text and numbers except the words of formats. Base64 of media does not count."""
    words: int = 0
    """Bytes of the names and punctuation of providers' formats."""
    limit: int = 0
    """The largest limit of output tokens; 0 without one."""
    unlimited: bool = False
    """Whether a limit says that there is none: -1, 0, or a word like "unlimited"."""
    nulls: bool = False
    """Whether a limit is null."""
    thinking: int = 0
    """The largest budget of thinking tokens."""
    copies: int = 1
    seconds: int = 0
    media: int = 0
    """Images, sounds and files."""
    caches: bool = False
    readable: bool = True
    """Whether everything could be read."""

    @property
    def size(self) -> int:
        """Bytes of everything: at least those of the text in its JSON."""
        return self.text + self.words

    def note_number(self, value: float, sense: int) -> None:
        """Note a number under a name of this sense."""
        known = value > 0 and math.isfinite(value)
        rounded = min(math.ceil(value), MOST_TOKENS) if known else 0
        if sense & LIMIT:
            self.limit = max(self.limit, rounded)
            self.unlimited = self.unlimited or not known
        elif sense & THINKING:
            self.thinking = max(self.thinking, rounded)
        elif sense & COPIES:
            self.copies = max(self.copies, min(rounded, MOST_COPIES))
        if sense & SECONDS:
            self.seconds = max(self.seconds, min(rounded, MOST_TOKENS))


def number_of(value: object) -> float | None:
    """Return a number, or the number that a text means; None for other values."""
    if isinstance(value, int) and not isinstance(value, bool):
        # Larger ones do not fit into a float.
        return min(value, _LARGEST)
    if isinstance(value, float):
        return value
    if isinstance(value, str) and len(value) <= _LONGEST_NAME:
        try:
            return float(value.strip().removesuffix("s"))
        except ValueError:
            return None
    return None


def count_of(value: object, most: int) -> int:
    """Return a positive number, rounded up, at most `most`; 0 for other values."""
    number = number_of(value)
    return math.ceil(min(number, most)) if number is not None and number > 0 else 0


def scan(value: object, name: str = "", *, skip: Callable[[str], bool] | None = None) -> Scan:
    """Read any value as it would be sent under this name. Never raises, and never consumes a generator or a file.

    `skip` says which fields of the outermost mapping are left out.
    """
    reader = _Reader()
    sense = sense_of(name) if len(name) <= _LONGEST_NAME else 0
    if sense & CACHE and value:
        reader.found.caches = True
    try:
        reader.read(value, sense & _INHERITED, skip)
    except Exception:  # noqa: BLE001  # the caller's own classes: anything can happen, and an estimate never raises
        reader.give_up()
    return reader.found


class _Reader:
    """A walk without recursion: depth and cycles cost bounded time."""

    __slots__ = ("found", "nodes", "stack")

    def __init__(self) -> None:
        self.found = Scan()
        self.nodes = 0
        self.stack: list[tuple[Any, int, int]] = []

    def give_up(self) -> None:
        """Count the rest as more than can be sent."""
        self.found.readable = False
        self.found.text += _UNREADABLE

    def read(self, value: object, sense: int, skip: Callable[[str], bool] | None) -> None:
        """Read a value and everything inside it."""
        if skip is not None and isinstance(value, Mapping):
            value = {key: item for key, item in value.items() if not (isinstance(key, str) and skip(key))}
        stack = self.stack
        stack.append((value, sense, 0))
        while stack:
            value, sense, depth = stack.pop()
            self.nodes += 1
            if self.nodes > _MOST_NODES or depth > _MOST_DEPTH:
                self.give_up()
                if self.nodes > _MOST_NODES:
                    return
                continue
            self._one(value, sense, depth)

    def _one(self, value: Any, sense: int, depth: int) -> None:
        found = self.found
        if isinstance(value, str):
            self._text(value, sense)
        elif isinstance(value, Mapping):
            self._mapping(value, sense, depth)
        elif isinstance(value, (list, tuple, set, frozenset)):
            found.words += 2 + len(value)
            if value and set(map(type, value)) == {int}:
                # Token ids come by the thousand.
                found.text += len(value) * _digits(max(*value, -min(value)))
                if sense & _NUMBERS and not sense & CONTENT:
                    found.note_number(min(max(value), _LARGEST), sense)
                return
            self.stack.extend((item, sense, depth + 1) for item in value)
        elif value is None or isinstance(value, bool):
            found.words += 5
            if value is None and sense & LIMIT and not sense & CONTENT:
                found.nulls = True
        elif isinstance(value, (int, float)):
            found.text += _FLOAT if isinstance(value, float) else _digits(value)
            if sense & _NUMBERS and not sense & CONTENT:
                found.note_number(min(value, _LARGEST), sense)
        else:
            self._object(value, sense, depth)

    def _object(self, value: Any, sense: int, depth: int) -> None:
        if isinstance(value, (bytes, bytearray, memoryview)) or callable(getattr(value, "read", None)):
            self.found.media += 1
            return
        for name in ("model_dump", "to_dict", "dict"):
            dump = None if isinstance(value, type) else getattr(value, name, None)
            if callable(dump):
                dumped = dump()
                if isinstance(dumped, (Mapping, list)):
                    self.stack.append((dumped, sense, depth + 1))
                    return
        schema = getattr(value, "model_json_schema", None)
        if callable(schema):
            self.stack.append((schema(), CONTENT, depth + 1))
            return
        self.found.readable = False
        self.found.text += len(repr(type(value)))

    def _text(self, value: str, sense: int) -> None:
        found = self.found
        if value.startswith("data:") or sense & MEDIA:
            media, counts = _is_media(value, sense)
            found.media += media
            if not counts:
                return
        found.words += 2
        found.text += len(value) if value.isascii() else byte_length(value)
        if sense & _NUMBERS and not sense & CONTENT:
            number = number_of(value)
            if number is not None:
                found.note_number(number, sense)
            elif sense & LIMIT:
                found.unlimited = found.unlimited or value.strip().lower() in _NO_LIMIT

    def _mapping(self, value: Mapping[Any, Any], sense: int, depth: int) -> None:
        found = self.found
        found.words += 2
        data = _base64_of(value)
        for key, item in value.items():
            if data is not None and item is data:
                found.media += 1
            elif isinstance(key, str):
                self._field(key, item, sense, depth)
            else:
                found.text += _FLOAT if isinstance(key, (int, float)) else _LONGEST_NAME
                self.stack.append((item, sense, depth + 1))

    def _field(self, name: str, item: object, sense: int, depth: int) -> None:
        found = self.found
        own = sense_of(name) if len(name) <= _LONGEST_NAME else 0
        size = len(name) if name.isascii() else byte_length(name)
        found.words += 4
        if own & WORD:
            found.words += size
        else:
            found.text += size
        if own & KIND and isinstance(item, str):
            found.caches = found.caches or item == "cachePoint"
            if item in _KINDS:
                found.words += len(item) + 2
                return
        if own & CACHE and item:
            found.caches = True
        if name in _PROMPTS and isinstance(item, (list, tuple)) and set(map(type, item)) != {int}:
            # Each of several prompts is answered.
            found.copies = max(found.copies, min(len(item), MOST_COPIES))
        if sense & CONTENT:
            own = CONTENT | ((own | sense) & MEDIA)
        else:
            own = own & _INHERITED or sense
        if type(item) is str:
            self._text(item, own)
        else:
            self.stack.append((item, own, depth + 1))


def _digits(value: int) -> int:
    """Return at least the number of characters of an integer, without writing out a huge one."""
    return value.bit_length() * 31 // 100 + 2


def _is_media(value: str, sense: int) -> tuple[bool, bool]:
    """Return (whether a text stands for media, whether its bytes count as text)."""
    if value.startswith("data:"):
        head, comma, rest = value[:256].partition(",")
        binary = head[5:].startswith(_BINARY) and head.endswith(";base64")
        return bool(comma), not (binary and _BASE64.fullmatch(rest) is not None)
    if not sense & MEDIA:
        return False, True
    if value.startswith(_ADDRESSES):
        return True, True
    base64 = len(value) >= _BASE64_LEAST and _BASE64.fullmatch(value[:256]) is not None
    return base64, not base64


def _base64_of(value: Mapping[Any, Any]) -> object:
    """Return the text in a mapping that holds the bytes of an image, a sound or a file; None if there is none."""
    for name in ("data", "bytes", "file_data", "bytesBase64Encoded"):
        data = value.get(name)
        if isinstance(data, str) and len(data) > _BASE64_LEAST and _BASE64.fullmatch(data[:256]) is not None:
            kind = next((value[key] for key in ("mimeType", "mime_type", "media_type", "format") if key in value), None)
            if isinstance(kind, str) and (kind.startswith(_BINARY) or "/" not in kind):
                return data
    return None
