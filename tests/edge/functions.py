"""Every function of the installed LiteLLM under its `@client` decorator, and arguments to call it with."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import io
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import litellm

from tests.edge.provider import BillingProvider

_ROOT = Path(litellm.__file__).parent
_USES_IT = re.compile(r"^\s*(from|import)\s.*\bclient\b|^\s+client( as \w+)?,?$|utils\.client\b", re.MULTILINE)


class Found(NamedTuple):
    """A function, and the names that it may be listed by: those of its definition and those of its places."""

    function: Callable[..., Any]
    names: tuple[str, ...]

    def __str__(self) -> str:
        return min(self.names, key=lambda name: ("<locals>" in name, len(name), name))


@cache
def client_functions() -> tuple[Found, ...]:
    """Return the functions for which LiteLLM would set up a Logging object, except in its proxy, which needs more
    packages than LiteLLM brings.
    """
    _import_all()
    found: dict[int, tuple[Callable[..., Any], set[str]]] = {}
    for module in _modules():
        for name, function in _members(module):
            if _is_under_client(function):
                names = found.setdefault(id(function), (function, set()))[1]
                where, made = function.__module__.removeprefix("litellm."), function.__qualname__
                # A function that another one makes has its own name, and the names that it was assigned to.
                names |= {f"{where}:{known}" for known in (made, made.rpartition(".")[2], name)}
    return tuple(sorted((Found(function, tuple(sorted(names))) for function, names in found.values()), key=str))


def _import_all() -> None:
    for path in sorted(_ROOT.rglob("*.py")):
        parts = path.relative_to(_ROOT).with_suffix("").parts
        if parts[0] != "proxy" and _USES_IT.search(path.read_text(errors="replace")):
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # A module that needs missing packages cannot be called either.
                importlib.import_module(".".join(("litellm", *(part for part in parts if part != "__init__"))))


def _modules() -> list[Any]:
    found = [module for name, module in list(sys.modules.items()) if name == "litellm" or name.startswith("litellm.")]
    return [module for module in found if not module.__name__.startswith("litellm.proxy")]


def _members(module: Any) -> Iterator[tuple[str, Any]]:
    for name, value in list(vars(module).items()):
        yield name, value
        if inspect.isclass(value) and value.__module__ == module.__name__:
            for inner in list(vars(value).values()):
                yield getattr(inner, "__name__", name), getattr(inner, "__func__", inner)


def _is_under_client(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    if not inspect.isfunction(function) or not hasattr(function, "__wrapped__") or code is None:
        return False
    return {"original_function", "rules_obj"} <= set(code.co_freevars)


_TEXTS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "x"}],
    "contents": [{"role": "user", "parts": [{"text": "x"}]}],
    "documents": ["a", "b"],
    "document": {"type": "document_url", "document_url": "http://127.0.0.1:9/a.pdf"},
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
    "purpose": "batch",
    "seconds": "4",
    "search_provider": "serper",
    "retrieval_config": {"vector_store_id": "vs_1", "custom_llm_provider": "openai"},
    "ingest_options": {"vector_store": {"custom_llm_provider": "openai"}},
    "file_ids": ["file-1"],
    "hyperparameters": {},
    "method": "POST",
    "sdp_body": b"v=0",
    "websocket": object(),
    "data_source_config": {"type": "custom", "item_schema": {}},
    "data_source": {"type": "jsonl", "source": {"type": "file_id", "id": "file-1"}},
    "testing_criteria": [],
    "voice": "alloy",
    "config": {},
    "attributes": {},
}
_PICTURES = ("image", "mask", "character")
_FILES = ("file", "video")


_CONTENT = ("input", "prompt", "messages")
_REST = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function, or those of its synchronous version if it has none of its own."""
    found = inspect.signature(function).parameters
    if all(parameter.kind in _REST for parameter in found.values()):
        twin = getattr(sys.modules[function.__module__], function.__name__.removeprefix("a"), function)
        return inspect.signature(twin).parameters
    return found


def arguments_for(found: Found, provider: BillingProvider) -> dict[str, Any]:
    """Return arguments for everything that a function requires, with an address on loopback."""
    parameters = _parameters(found.function)
    given: dict[str, Any] = {"litellm_metadata": {"budget_user": "alice"}}
    for name, parameter in parameters.items():
        optional = parameter.default is not inspect.Parameter.empty and name not in _CONTENT
        if optional or parameter.kind in _REST:
            continue
        if name in _PICTURES or name in _FILES:
            given[name] = io.BytesIO(b"\x89PNG\r\n\x1a\n" + bytes(64))
        else:
            given[name] = _TEXTS.get(name, "x")
    if "model" in parameters:
        given["model"] = "openai/edge-chat"
    elif "custom_llm_provider" in parameters:
        given["custom_llm_provider"] = "openai"
    given |= {"api_base": provider.url, "api_key": "sk-test"}
    return given


def run(found: Found, arguments: dict[str, Any]) -> Any:
    """Call a function and await its result if necessary."""

    async def awaited() -> Any:
        return await found.function(**arguments)

    return asyncio.run(awaited()) if inspect.iscoroutinefunction(found.function) else found.function(**arguments)
