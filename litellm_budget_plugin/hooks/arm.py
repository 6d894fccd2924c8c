"""Arming: putting the gate around LiteLLM's functions, and taking it off again."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import litellm
import litellm.images.main
import litellm.main
import litellm.rerank_api.main
import litellm.utils
from litellm.caching.caching_handler import LLMCachingHandler
from litellm.google_genai.adapters.handler import GenerateContentToCompletionHandler
from litellm.litellm_core_utils.litellm_logging import Logging
from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper
from litellm.responses.streaming_iterator import BaseResponsesAPIStreamingIterator

from litellm_budget_plugin.errors import LiteLLMChanged
from litellm_budget_plugin.hooks import gate, settlement, streams
from litellm_budget_plugin.hooks.requests import MESSAGES


class Seam(NamedTuple):
    """A function of LiteLLM's that the gate stands around: `needs` are parameters that the gate relies on."""

    owner: Any
    name: str
    around: Callable[..., Any]
    needs: tuple[str, ...]


_SERVED = ("model", "contents", "kwargs")

# Before LiteLLM 1.106 these two names begin with an underscore.
_PRIVATE = "" if hasattr(LLMCachingHandler, "sync_get_cache") else "_"

# docs/guarantees.md says what each of them is for; the contract tests hold each against the installed LiteLLM.
SEAMS = (
    Seam(litellm.utils, "function_setup", gate.function_setup, ("original_function", "rules_obj", "start_time")),
    Seam(GenerateContentToCompletionHandler, "generate_content_handler", gate.served_by_chat, _SERVED),
    Seam(GenerateContentToCompletionHandler, "async_generate_content_handler", gate.async_served_by_chat, _SERVED),
    Seam(LLMCachingHandler, f"{_PRIVATE}sync_get_cache", settlement.sync_get_cache, ("self", "logging_obj")),
    Seam(LLMCachingHandler, f"{_PRIVATE}async_get_cache", settlement.async_get_cache, ("self", "logging_obj")),
    Seam(litellm.utils, "update_response_metadata", settlement.update_response_metadata, ("result", "logging_obj")),
    *(
        Seam(owner, "exception_type", settlement.exception_type, ("original_exception", "extra_kwargs"))
        # Each of these modules looks up a name of its own.
        for owner in (litellm, litellm.main, litellm.images.main, litellm.rerank_api.main, MESSAGES)
    ),
    Seam(litellm, "stream_chunk_builder", streams.stream_chunk_builder, ("chunks", "logging_obj")),
    Seam(Logging, "pre_call", gate.pre_call, ("self",)),
    Seam(Logging, "post_call", settlement.post_call, ("self", "original_response")),
    Seam(Logging, "success_handler", settlement.success_handler, ("self", "result", "cache_hit")),
    Seam(Logging, "async_success_handler", settlement.async_success_handler, ("self", "result", "cache_hit")),
    Seam(Logging, "failure_handler", settlement.failure_handler, ("self", "exception")),
    Seam(Logging, "async_failure_handler", settlement.async_failure_handler, ("self", "exception")),
    Seam(CustomStreamWrapper, "__init__", streams.stream_init, ("self", "logging_obj")),
    Seam(BaseResponsesAPIStreamingIterator, "_process_chunk", streams.process_chunk, ("self", "chunk")),
)

_lock = threading.Lock()
# What is in place: for each seam's name, what LiteLLM had there and what is there now, both as their owner holds them.
_armed: dict[str, tuple[Any, Any]] = {}
_users = 0


def arm() -> None:
    """Put the gate in place; the first of several callers does. Raises LiteLLMChanged, having changed nothing, if the
    installed LiteLLM lacks a seam.
    """
    global _users
    with _lock:
        if not _users:
            check_seams()
            for seam in SEAMS:
                entry = _armed.get(_name(seam))
                if entry is None or inspect.getattr_static(seam.owner, seam.name, None) is entry[0]:
                    _armed[_name(seam)] = _wrap(seam)
        _users += 1


def disarm() -> None:
    """Take the gate off when the last caller of `arm` says so. Where somebody else has wrapped it since, it stays, and the
    next `arm` finds it there: without a registered callback it does nothing.
    """
    global _users
    with _lock:
        _users = max(0, _users - 1)
        if _users:
            return
        for seam in reversed(SEAMS):
            original, wrapper = _armed[_name(seam)]
            if inspect.getattr_static(seam.owner, seam.name, None) is wrapper:
                setattr(seam.owner, seam.name, original)
                del _armed[_name(seam)]


def in_place() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the seams that the gate stands around now, and of those that it does not."""
    with _lock:
        armed = [_name(seam) for seam in SEAMS if _name(seam) in _armed]
    return tuple(armed), tuple(_name(seam) for seam in SEAMS if _name(seam) not in armed)


def check_seams() -> None:
    """Raise LiteLLMChanged, naming what is missing, unless every seam of the installed LiteLLM is as it must be."""
    problems = [problem for seam in SEAMS for problem in _problems(seam)]
    if problems:
        raise LiteLLMChanged(
            f"LiteLLM {litellm_version()} has changed where budgets are enforced: {'; '.join(problems)}. "
            "Nothing was armed. Install a LiteLLM version that docs/guarantees.md lists as tested"
        )


def _name(seam: Seam) -> str:
    return f"{getattr(seam.owner, '__name__', seam.owner)}.{seam.name}"


def _problems(seam: Seam) -> list[str]:
    where = _name(seam)
    function = getattr(seam.owner, seam.name, None)
    if not callable(function):
        return [f"{where} is missing"]
    parameters = inspect.signature(function).parameters
    # Somebody else's wrapper that passes everything on says nothing about what it wraps.
    passes_on = {parameter.kind for parameter in parameters.values()} == {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    }
    missing = [name for name in seam.needs if name not in parameters and not passes_on]
    asynchronous = inspect.iscoroutinefunction(inspect.unwrap(function))
    problems = [f"{where} has no parameter {name!r}" for name in missing]
    if asynchronous != inspect.iscoroutinefunction(seam.around):
        problems.append(f"{where} is {'' if asynchronous else 'not '}asynchronous")
    return problems


def _wrap(seam: Seam) -> tuple[Any, Any]:
    held = inspect.getattr_static(seam.owner, seam.name)
    original: Callable[..., Any] = getattr(seam.owner, seam.name)
    around = seam.around
    wrapper: Any

    if inspect.iscoroutinefunction(around):

        @functools.wraps(original)
        async def async_wrapper(*args: Any, **kwargs: Any) -> Any:
            return await around(original, *args, **kwargs)

        wrapper = async_wrapper
    else:

        @functools.wraps(original)
        def sync_wrapper(*args: Any, **kwargs: Any) -> Any:
            return around(original, *args, **kwargs)

        wrapper = sync_wrapper
    if isinstance(held, staticmethod):
        wrapper = staticmethod(wrapper)
    setattr(seam.owner, seam.name, wrapper)
    return held, wrapper


def litellm_version() -> str:
    """The version of the installed LiteLLM."""
    try:
        return version("litellm")
    except PackageNotFoundError:
        return "(unknown version)"
