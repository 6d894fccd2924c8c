"""Streams: what was received of them is what a dropped one is charged by.

LiteLLM has several classes of streams. Some keep their chunks, some are told each event, and some only pass bytes on.
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
    """What was received of a stream that keeps nothing itself."""


def is_stream(result: Any) -> bool:
    """Whether LiteLLM answered with something that is still to be read."""
    return hasattr(result, "__next__") or hasattr(result, "__anext__")


def ask_for_usage(call: Call, params: dict[str, Any]) -> None:
    """Have the provider report the usage of a stream whose caller does not ask for it; the caller does not see the report.

    Without it the tokens that are not in the text, reasoning above all, would not be charged.
    """
    family = call.request.call_type
    # Of the functions without an estimate of their own, those that chat hand their arguments on to `completion`.
    chats = family in ("completion", "text_completion") or (family not in FAMILIES and bool(params.get("messages")))
    if not chats or params.get("stream") is not True:
        return
    given, dropped = params.get("stream_options"), params.get("additional_drop_params")
    if not isinstance(dropped, (list, tuple, set, frozenset, str)):
        dropped = ()
    elif call.to_be_routed:
        # Those of a deployment are not here yet: a client of the proxy does not choose how it is charged.
        params["additional_drop_params"] = dropped = [name for name in dropped if name != "stream_options"]
    # Of any other value LiteLLM makes no, and the provider what it likes.
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
    """Whether LiteLLM knows that the provider takes `stream_options`. Asks nobody over the network."""
    if provider not in providers() or provider in ASKS_NETWORK:
        return False
    try:
        known = litellm.get_supported_openai_params(model=model, custom_llm_provider=provider)
    except Exception:  # noqa: BLE001  # somebody else's look-up: a stream without its usage is still charged by its text
        return False
    return "stream_options" in (known or ())


def stream_init(original: Callable[..., Any], stream: Any, *args: Any, **kwargs: Any) -> None:
    """A stream of chat or text chunks begins: its list of chunks outlives it."""
    original(stream, *args, **kwargs)
    call = call_of(getattr(stream, "logging_obj", None))
    if call is None:
        return
    if getattr(stream, "custom_llm_provider", None) == "cached_response":
        call.release()
    elif call.chunks is None:
        # The Router wraps a stream in another of the same class: the first one made is the one that gets the chunks.
        call.chunks = stream.chunks
    else:
        # The Router's wrapper is of a class made for this call, whose functions have the stream within: classes are freed by
        # garbage collections only. What the caller drops is the wrapper.
        weakref.finalize(stream, call.dropped).atexit = False
    if call.hidden_usage and not _litellm_asks(stream):
        # The provider was asked for the usage on behalf of the budget: LiteLLM keeps it, and the caller sees his own stream.
        stream.stream_options = call.hidden_usage[0]
        stream.send_stream_usage = False


def _litellm_asks(stream: Any) -> bool:
    """Whether LiteLLM asks for the usage by itself, and shows it to the caller, as it does at OpenAI's own address."""
    if getattr(stream, "custom_llm_provider", None) != "openai":
        return False
    details: Mapping[str, Any] = stream.logging_obj.model_call_details
    address = (details.get("additional_args") or {}).get("api_base")
    host = urlsplit(str(address)).hostname or "" if address is not None else "api.openai.com"
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def stream_chunk_builder(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """LiteLLM puts a stream's answer together when the last chunk has been read, before the caller learns of the end."""
    response = original(*args, **kwargs)
    chunks = args[0] if args else kwargs.get("chunks")
    logging_obj = kwargs.get("logging_obj")
    call = call_of(logging_obj)
    if call is not None and response is not None and chunks is call.chunks:
        call.answered(response, None, logging_obj)
    return response


def process_chunk(original: Callable[..., Any], stream: Any, *args: Any, **kwargs: Any) -> Any:
    """An event of a Responses API stream; the last one carries the whole answer, with its usage."""
    event = original(stream, *args, **kwargs)
    logging_obj = getattr(stream, "logging_obj", None)
    call = call_of(logging_obj)
    if call is not None and event is not None:
        if call.chunks is None:
            call.chunks = Received()
        # Where LiteLLM turns the events into chunks of a chat, those are what counts, in a list of LiteLLM's own.
        if isinstance(call.chunks, Received):
            call.chunks.append(event)
        if getattr(event, "type", None) in _LAST_EVENTS:
            call.answered(getattr(event, "response", None), None, logging_obj)
    return event


def begin(stream: Any, call: Call) -> None:
    """A stream of another class is about to be handed to the caller."""
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
    """An asynchronous stream that keeps what was read of it. Read to its end, the call is settled before the reader learns of it."""

    def __init__(self, stream: AsyncIterator[Any], chunks: Received, call: Call) -> None:
        self._stream = stream
        self._chunks = chunks
        self._call = call
        # Dropped, such a stream leaves LiteLLM's Logging object in a queue, which a loop that has ended never reads.
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
            self._call.abandon()
