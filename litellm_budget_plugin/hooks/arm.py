"""Arming: putting the gate around LiteLLM's functions, and taking it off again."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import litellm
import litellm.main
import litellm.utils
from litellm.litellm_core_utils.litellm_logging import Logging
from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper

from litellm_budget_plugin.errors import LiteLLMChanged
from litellm_budget_plugin.hooks import gate


class Seam(NamedTuple):
    """A function of LiteLLM's that the gate stands around: `needs` are parameters that the gate relies on."""

    owner: Any
    name: str
    around: Callable[..., Any]
    needs: tuple[str, ...]


# docs/guarantees.md says what each of them is for; the contract tests hold each against the installed LiteLLM.
SEAMS = (
    Seam(litellm.utils, "function_setup", gate.function_setup, ("original_function", "rules_obj", "start_time")),
    Seam(litellm.utils, "update_response_metadata", gate.update_response_metadata, ("result", "logging_obj")),
    Seam(litellm.main, "exception_type", gate.exception_type, ("original_exception", "extra_kwargs")),
    Seam(litellm, "stream_chunk_builder", gate.stream_chunk_builder, ("chunks", "logging_obj")),
    Seam(Logging, "pre_call", gate.pre_call, ("self",)),
    Seam(Logging, "post_call", gate.post_call, ("self", "original_response")),
    Seam(Logging, "success_handler", gate.success_handler, ("self", "result", "cache_hit")),
    Seam(Logging, "async_success_handler", gate.async_success_handler, ("self", "result", "cache_hit")),
    Seam(Logging, "failure_handler", gate.failure_handler, ("self", "exception")),
    Seam(Logging, "async_failure_handler", gate.async_failure_handler, ("self", "exception")),
    Seam(CustomStreamWrapper, "__init__", gate.stream_init, ("self", "logging_obj")),
)

_lock = threading.Lock()
# What is in place: for each seam's name, LiteLLM's function and ours around it.
_armed: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}
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


def check_seams() -> None:
    """Raise LiteLLMChanged, naming what is missing, unless every seam of the installed LiteLLM is as it must be."""
    problems = [problem for seam in SEAMS for problem in _problems(seam)]
    if problems:
        raise LiteLLMChanged(
            f"LiteLLM {_litellm_version()} has changed where budgets are enforced: {'; '.join(problems)}. "
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


def _wrap(seam: Seam) -> tuple[Callable[..., Any], Callable[..., Any]]:
    original: Callable[..., Any] = getattr(seam.owner, seam.name)
    around = seam.around
    wrapper: Callable[..., Any]

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
    setattr(seam.owner, seam.name, wrapper)
    return original, wrapper


def _litellm_version() -> str:
    try:
        return version("litellm")
    except PackageNotFoundError:
        return "(unknown version)"
