"""Streams: what was received of them is what a dropped one is charged by.

LiteLLM has several classes of streams. Some keep their chunks, some are told each event, and some only pass bytes on.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

from litellm_budget_plugin.hooks.call import Call
from litellm_budget_plugin.hooks.carrier import call_of

_LAST_EVENTS = ("response.completed", "response.incomplete")


class Received(list[Any]):
    """What was received of a stream that keeps nothing itself."""


def is_stream(result: Any) -> bool:
    """Whether LiteLLM answered with something that is still to be read."""
    return hasattr(result, "__next__") or hasattr(result, "__anext__")


def stream_init(original: Callable[..., Any], stream: Any, *args: Any, **kwargs: Any) -> None:
    """A stream of chat or text chunks begins: its list of chunks outlives it."""
    original(stream, *args, **kwargs)
    call = call_of(getattr(stream, "logging_obj", None))
    if call is None:
        return
    if getattr(stream, "custom_llm_provider", None) == "cached_response":
        call.from_cache()
    elif call.attempt.chunks is None:
        # The Router wraps a stream in another of the same class: the first one made is the one that gets the chunks.
        call.attempt.chunks = stream.chunks


def stream_chunk_builder(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """LiteLLM puts a stream's answer together when the last chunk has been read, before the caller learns of the end."""
    response = original(*args, **kwargs)
    chunks = args[0] if args else kwargs.get("chunks")
    call = call_of(kwargs.get("logging_obj"))
    if call is not None and response is not None and chunks is call.attempt.chunks:
        call.answered(response, None)
    return response


def process_chunk(original: Callable[..., Any], stream: Any, *args: Any, **kwargs: Any) -> Any:
    """An event of a Responses API stream; the last one carries the whole answer, with its usage."""
    event = original(stream, *args, **kwargs)
    call = call_of(getattr(stream, "logging_obj", None))
    if call is not None and event is not None:
        if call.attempt.chunks is None:
            call.attempt.chunks = Received()
        # Where LiteLLM turns the events into chunks of a chat, those are what counts, in a list of LiteLLM's own.
        if isinstance(call.attempt.chunks, Received):
            call.attempt.chunks.append(event)
        if getattr(event, "type", None) in _LAST_EVENTS:
            call.answered(getattr(event, "response", None), None)
    return event


def begin(stream: Any, call: Call) -> None:
    """A stream of another class is about to be handed to the caller."""
    if call.attempt.chunks is not None:
        return
    kept = getattr(stream, "collected_chunks", None)
    inner: Any = getattr(stream, "completion_stream", None)
    if isinstance(kept, list):
        call.attempt.chunks = kept
        lines = getattr(stream, "stream_iterator", None)
        if lines is not None:
            stream.stream_iterator = Lines(lines, call)
    elif call.attempt.request.call_type == "messages" and hasattr(inner, "__anext__"):
        call.attempt.chunks = chunks = Received()
        stream.completion_stream = Recorded(inner, chunks, call)


class Recorded:
    """An asynchronous stream that keeps what was read of it. Read to its end, the call is settled before the reader learns of it."""

    def __init__(self, stream: AsyncIterator[Any], chunks: Received, call: Call) -> None:
        self._stream = stream
        self._chunks = chunks
        self._call = call
        # Dropped, such a stream leaves LiteLLM's Logging object in a queue, which a loop that has ended never reads.
        weakref.finalize(self, call.dropped, call.attempt).atexit = False

    def __aiter__(self) -> Recorded:
        return self

    async def __anext__(self) -> Any:
        try:
            chunk = await self._stream.__anext__()
        except StopAsyncIteration:
            self._call.ended()
            raise
        except BaseException as error:
            # LiteLLM reports it later, from a queue of its own that may never be read.
            self._call.failed(error)
            raise
        self._chunks.append(chunk)
        return chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Lines:
    """The lines that a stream of Google's makes its events of. Where they end, the call is settled, before the reader learns of it."""

    def __init__(self, lines: Any, call: Call) -> None:
        self._lines = lines
        self._call = call
        self._pending = False

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> Any:
        try:
            line = next(self._lines)
        except StopIteration:
            self._stopped()
            raise
        self._pending = line != ""
        return line

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> Any:
        try:
            line = await self._lines.__anext__()
        except StopAsyncIteration:
            self._stopped()
            raise
        self._pending = line != ""
        return line

    def _stopped(self) -> None:
        # Lines without an empty one behind them are an event too: LiteLLM hands it on, and asks once more.
        if self._pending:
            self._pending = False
        else:
            self._call.ended()
