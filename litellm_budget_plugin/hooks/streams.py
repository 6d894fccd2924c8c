"""Streams: a dropped stream is charged by what was received of it.

LiteLLM has several classes of streams. Some keep their chunks, some receive each event, and some only pass bytes on.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import litellm

from litellm_budget_plugin.hooks.call import Call
from litellm_budget_plugin.hooks.call_binding import call_of
from litellm_budget_plugin.hooks.call_types import FAMILIES
from litellm_budget_plugin.pricing import Request
from litellm_budget_plugin.pricing.cost_map import ASKS_NETWORK, providers, route

_LAST_EVENTS = ("response.completed", "response.incomplete")


class Received(list[Any]):
    """The chunks received from a stream that keeps none itself."""


def is_stream(result: Any) -> bool:
    """Return whether LiteLLM's answer is still to be read."""
    return hasattr(result, "__next__") or hasattr(result, "__anext__")


def ask_for_usage(call: Call, params: dict[str, Any]) -> None:
    """Have the provider report the usage of a stream whose caller does not ask for it. The caller does not see the
    report.

    Without it, tokens that are not in the text would not be charged, above all those of reasoning.
    """
    family = call.request.call_type
    # Of the functions without an estimate of their own, those that chat pass their arguments on to `completion`.
    chats = family in ("completion", "text_completion") or (family not in FAMILIES and bool(params.get("messages")))
    if not chats or params.get("stream") is not True:
        return
    given, dropped = params.get("stream_options"), params.get("additional_drop_params")
    if not isinstance(dropped, (list, tuple, set, frozenset, str)):
        dropped = ()
    elif call.to_be_routed:
        # The deployment's own values are not known yet. A client of the proxy must not choose how it is charged.
        params["additional_drop_params"] = dropped = [name for name in dropped if name != "stream_options"]
    # LiteLLM ignores any value but True, and providers interpret it in different ways.
    if isinstance(given, Mapping) and given.get("include_usage") is True:
        return
    if "stream_options" in dropped or not all(_reports_usage(request) for request in call.candidates):
        return
    params["stream_options"] = {**(given if isinstance(given, Mapping) else {}), "include_usage": True}
    call.hidden_usage = (given,)


def _reports_usage(request: Request) -> bool:
    return _takes_stream_options(*route(request.model, request.provider))


@lru_cache(maxsize=4096)
def _takes_stream_options(model: str, provider: str | None) -> bool:
    """Return whether LiteLLM knows that the provider takes `stream_options`. Never uses the network."""
    if provider not in providers() or provider in ASKS_NETWORK:
        return False
    try:
        known = litellm.get_supported_openai_params(model=model, custom_llm_provider=provider)
    except Exception:  # noqa: BLE001  # LiteLLM's own look-up: a stream without its usage is still charged by its text
        return False
    return "stream_options" in (known or ())


def stream_init(original: Callable[..., Any], stream: Any, *args: Any, **kwargs: Any) -> None:
    """Note the beginning of a stream of chat or text chunks. Its list of chunks outlives it."""
    original(stream, *args, **kwargs)
    call = call_of(getattr(stream, "logging_obj", None))
    if call is None:
        return
    if getattr(stream, "custom_llm_provider", None) == "cached_response":
        call.release()
    elif call.chunks is None:
        # The Router wraps a stream in another of the same class. The first one made gets the chunks.
        call.chunks = stream.chunks
    else:
        # The Router's wrapper has a class that is made for this call and whose functions hold the stream inside. Only
        # garbage collections free classes. The wrapper is what the caller drops.
        weakref.finalize(stream, call.dropped).atexit = False
    if call.hidden_usage and not _litellm_asks(stream):
        # The provider was asked for the usage on behalf of the budget. LiteLLM keeps it, and the caller sees the stream
        # that he asked for.
        stream.stream_options = call.hidden_usage[0]
        stream.send_stream_usage = False


def _litellm_asks(stream: Any) -> bool:
    """Whether LiteLLM asks for the usage by itself and shows it to the caller, as it does at OpenAI's own address."""
    if getattr(stream, "custom_llm_provider", None) != "openai":
        return False
    details: Mapping[str, Any] = stream.logging_obj.model_call_details
    address = (details.get("additional_args") or {}).get("api_base")
    host = urlsplit(str(address)).hostname or "" if address is not None else "api.openai.com"
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def stream_chunk_builder(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Settle the answer that LiteLLM builds from a stream after the last chunk, before the caller learns of the end."""
    response = original(*args, **kwargs)
    chunks = args[0] if args else kwargs.get("chunks")
    logging_obj = kwargs.get("logging_obj")
    call = call_of(logging_obj)
    if call is not None and response is not None and chunks is call.chunks:
        call.answered(response, None, logging_obj)
    return response


def process_chunk(original: Callable[..., Any], stream: Any, *args: Any, **kwargs: Any) -> Any:
    """Record an event of a Responses API stream. The last one carries the whole answer, with its usage."""
    event = original(stream, *args, **kwargs)
    logging_obj = getattr(stream, "logging_obj", None)
    call = call_of(logging_obj)
    if call is not None and event is not None:
        if call.chunks is None:
            call.chunks = Received()
        # If LiteLLM turns the events into chunks of a chat, those count. They are in a list of LiteLLM's own.
        if isinstance(call.chunks, Received):
            call.chunks.append(event)
        if getattr(event, "type", None) in _LAST_EVENTS:
            call.answered(getattr(event, "response", None), None, logging_obj)
    return event


def begin(stream: Any, call: Call) -> None:
    """Record a stream of another class that is about to be returned to the caller."""
    if call.hidden_usage and hasattr(stream, "convert_to_text_completion_object"):
        # LiteLLM's stream of text completions, around one that was set up above.
        stream.stream_options = call.hidden_usage[0]
        if hasattr(stream, "include_usage"):
            stream.include_usage = False
    if call.chunks is not None:
        return
    kept = getattr(stream, "collected_chunks", None)
    inner: Any = getattr(stream, "completion_stream", None)
    if isinstance(kept, list):
        call.chunks = kept
        lines = getattr(stream, "stream_iterator", None)
        if lines is not None:
            stream.stream_iterator = Lines(lines, call)
    elif call.request.call_type == "messages" and hasattr(inner, "__anext__"):
        call.chunks = chunks = Received()
        stream.completion_stream = Recorded(inner, chunks, call)


class Recorded:
    """An asynchronous stream that keeps the chunks read from it. At its end the call is settled before the reader
    learns of it.
    """

    def __init__(self, stream: AsyncIterator[Any], chunks: Received, call: Call) -> None:
        self._stream = stream
        self._chunks = chunks
        self._call = call
        # A dropped stream of this kind leaves LiteLLM's Logging object in a queue. A loop that has ended never reads
        # that queue.
        weakref.finalize(self, call.dropped).atexit = False

    def __aiter__(self) -> Recorded:
        return self

    async def __anext__(self) -> Any:
        try:
            chunk = await self._stream.__anext__()
        except StopAsyncIteration:
            self._call.abandon()
            raise
        except BaseException as error:
            # LiteLLM reports it later, through its own queue, which may never be read.
            self._call.failed(error)
            raise
        self._chunks.append(chunk)
        return chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Lines:
    """The lines from which a Google stream makes its events. At their end the call is settled before the reader learns
    of it.
    """

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
        # Lines that no empty line follows are an event too. LiteLLM passes it on and asks once more.
        if self._pending:
            self._pending = False
        else:
            self._call.abandon()
