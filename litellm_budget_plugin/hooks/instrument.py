"""Instrument LiteLLM: put the gate around its functions, and remove it again."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

from litellm_budget_plugin.errors import IncompatibleLiteLLMError
from litellm_budget_plugin.hooks import gate, sdk_retries, settlement, streams
from litellm_budget_plugin.hooks.versions import litellm_version


class PatchPoint(NamedTuple):
    """A function of LiteLLM that the gate wraps.

    `path` is "module:attribute". `needs` are the parameters that the gate relies on. With `everywhere`, modules that
    hold the function under their own name are patched, too.
    """

    path: str
    around: Callable[..., Any]
    needs: tuple[str, ...]
    everywhere: bool = False


_LOGGING = "litellm.litellm_core_utils.litellm_logging:Logging"
_BY_CHAT = "litellm.google_genai.adapters.handler:GenerateContentToCompletionHandler"
_NESTED = ("model", "contents", "kwargs")

# docs/guarantees.md gives the reason for each. The contract tests check each against the installed LiteLLM.
PATCH_POINTS = (
    PatchPoint("litellm.utils:function_setup", gate.function_setup, ("original_function", "rules_obj", "start_time")),
    PatchPoint("litellm.utils:async_pre_call_deployment_hook", gate.deployment_hook, ("kwargs", "call_type")),
    PatchPoint(f"{_LOGGING}.pre_call", gate.pre_call, ("self", "additional_args")),
    PatchPoint(f"{_BY_CHAT}.generate_content_handler", gate.nested_in_chat, _NESTED),
    PatchPoint(f"{_BY_CHAT}.async_generate_content_handler", gate.async_nested_in_chat, _NESTED),
    PatchPoint(
        "litellm.caching.caching_handler:update_response_metadata",
        settlement.found_in_cache,
        ("result", "logging_obj"),
    ),
    PatchPoint(
        "litellm.litellm_core_utils.llm_response_utils.response_metadata:update_response_metadata",
        settlement.update_response_metadata,
        ("result", "logging_obj"),
        everywhere=True,
    ),
    PatchPoint(
        "litellm.litellm_core_utils.exception_mapping_utils:exception_type",
        settlement.exception_type,
        ("original_exception", "extra_kwargs"),
        everywhere=True,
    ),
    PatchPoint("litellm:stream_chunk_builder", streams.stream_chunk_builder, ("chunks", "logging_obj")),
    PatchPoint(f"{_LOGGING}.post_call", settlement.post_call, ("self", "original_response")),
    PatchPoint(f"{_LOGGING}.success_handler", settlement.success_handler, ("self", "result", "cache_hit")),
    PatchPoint(f"{_LOGGING}.async_success_handler", settlement.async_success_handler, ("self", "result", "cache_hit")),
    PatchPoint(f"{_LOGGING}.failure_handler", settlement.failure_handler, ("self", "exception")),
    PatchPoint(f"{_LOGGING}.async_failure_handler", settlement.async_failure_handler, ("self", "exception")),
    PatchPoint(
        "litellm.litellm_core_utils.streaming_handler:CustomStreamWrapper.__init__",
        streams.stream_init,
        ("self", "logging_obj"),
    ),
    PatchPoint(
        "litellm.responses.streaming_iterator:BaseResponsesAPIStreamingIterator._process_chunk",
        streams.process_chunk,
        ("self", "chunk"),
    ),
    PatchPoint("openai._base_client:SyncAPIClient._sleep_for_retry", sdk_retries.sleep_for_retry, ("self",)),
    PatchPoint("openai._base_client:AsyncAPIClient._sleep_for_retry", sdk_retries.async_sleep_for_retry, ("self",)),
)


class _Found(NamedTuple):
    point: PatchPoint
    owner: Any
    name: str
    function: Callable[..., Any]


_lock = threading.Lock()
# The patched functions, by owner and name: the owner, LiteLLM's original and the wrapper, as the owner holds them.
_patched: dict[tuple[str, str], tuple[Any, Any, Any]] = {}
_users = 0


def instrument() -> None:
    """Put the gate in place, if no earlier caller did. Raises IncompatibleLiteLLMError if the installed LiteLLM lacks a
    patch point. Then nothing has changed.
    """
    global _users
    with _lock:
        if not _users:
            found = _resolved()
            try:
                for each in found:
                    _patch(each)
            except BaseException:
                _restore()
                raise
        _users += 1


def uninstrument() -> None:
    """Remove the gate when the last caller of `instrument` calls this. Where other code has wrapped it since, it stays,
    and the next `instrument` finds it there. Without an open callback it does nothing.
    """
    global _users
    with _lock:
        _users = max(0, _users - 1)
        if not _users:
            _restore()


def put_back() -> None:
    """Put the gate back after `importlib.reload` has executed LiteLLM again and restored its own functions.

    Raises IncompatibleLiteLLMError if LiteLLM's modules were loaded a second time, because the gate wraps the old ones.
    """
    with _lock:
        for (_, name), (owner, original, wrapper) in _patched.items():
            module = owner.__module__ if isinstance(owner, type) else owner.__name__
            loaded = sys.modules.get(module)
            if loaded is not owner and (
                loaded is None or getattr(loaded, getattr(owner, "__name__", ""), None) is not owner
            ):
                raise IncompatibleLiteLLMError(
                    f"{module} was loaded a second time in this process, and only the first copy enforces budgets; "
                    "start a new process instead of removing LiteLLM from sys.modules"
                )
            if inspect.getattr_static(owner, name, None) is original:
                setattr(owner, name, wrapper)


def _restore() -> None:
    for key, (owner, original, wrapper) in reversed(_patched.copy().items()):
        if inspect.getattr_static(owner, key[1], None) is wrapper:
            setattr(owner, key[1], original)
            del _patched[key]


def in_place() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the paths of the functions that the gate wraps now, and of those that it does not wrap."""
    with _lock:
        names = {f"{owner}.{name}" for owner, name in _patched}
    patched = [point.path for point in PATCH_POINTS if point.path.replace(":", ".") in names]
    return tuple(patched), tuple(point.path for point in PATCH_POINTS if point.path not in patched)


def _resolved() -> list[_Found]:
    """Return every patch point of the installed LiteLLM. Raises IncompatibleLiteLLMError, which names all that is
    missing or changed.
    """
    found: list[_Found] = []
    problems: list[str] = []
    for point in PATCH_POINTS:
        module, _, path = point.path.partition(":")
        try:
            owner: Any = import_module(module)
            *classes, name = path.split(".")
            for part in classes:
                owner = getattr(owner, part)
            function = getattr(owner, name)
        except (ImportError, AttributeError) as error:
            problems.append(f"{point.path} is missing ({error})")
            continue
        wrong = _problems(point, function)
        problems += wrong
        if not wrong:
            found.append(_Found(point, owner, name, function))
    if problems:
        raise IncompatibleLiteLLMError(
            f"LiteLLM {litellm_version()} has changed where budgets are enforced: {'; '.join(problems)}. "
            "Nothing was patched. Install a LiteLLM version that docs/guarantees.md lists as tested"
        )
    return found


def _problems(point: PatchPoint, function: Any) -> list[str]:
    if not callable(function):
        return [f"{point.path} is missing"]
    parameters = inspect.signature(function).parameters
    # The wrapper of other code that passes everything on does not show the parameters of the function inside.
    passes_on = {parameter.kind for parameter in parameters.values()} == {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    }
    missing = [name for name in point.needs if name not in parameters and not passes_on]
    problems = [f"{point.path} has no parameter {name!r}" for name in missing]
    asynchronous = inspect.iscoroutinefunction(inspect.unwrap(function))
    if asynchronous != inspect.iscoroutinefunction(point.around):
        problems.append(f"{point.path} is {'' if asynchronous else 'not '}asynchronous")
    return problems


def _patch(found: _Found) -> None:
    holders = [found.owner, *_other_holders(found)] if found.point.everywhere else [found.owner]
    wrapper = _wrapper(found.point.around, found.function)
    for owner in holders:
        key = (_name_of(owner), found.name)
        held = inspect.getattr_static(owner, found.name)
        if key in _patched and held is not _patched[key][1]:
            # Other code has wrapped our earlier wrapper, which is still in place.
            continue
        put = staticmethod(wrapper) if isinstance(held, staticmethod) else wrapper
        setattr(owner, found.name, put)
        _patched[key] = (owner, held, put)


def _other_holders(found: _Found) -> Iterator[Any]:
    """Yield LiteLLM's modules that have imported the function under its name. Modules loaded later import the wrapper."""
    for module_name, module in sys.modules.copy().items():
        inside = module_name.partition(".")[0] == "litellm" and module is not found.owner
        if inside and vars(module).get(found.name) is found.function:
            yield module


def _name_of(owner: Any) -> str:
    return f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else str(owner.__name__)


def _wrapper(around: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(around):

        @functools.wraps(original)
        async def async_wrapper(*args: Any, **kwargs: Any) -> Any:
            return await around(original, *args, **kwargs)

        async_wrapper.litellm_budget_gate = around  # type: ignore[attr-defined]  # by which the gate finds it
        return async_wrapper

    @functools.wraps(original)
    def sync_wrapper(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    return sync_wrapper
