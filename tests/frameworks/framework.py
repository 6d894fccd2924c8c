"""The types with which a module of this package declares its framework: the packages to install, and the ways in which it calls
models.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.upstream import Upstream

CALL, STREAM, HELPER, LOST, UNCOVERED = "call", "stream", "helper", "lost", "uncovered"
Kind = Literal["call", "stream", "helper", "lost", "uncovered"]

MODEL = "gpt-4o"
"""The model that every way calls."""


class Way(NamedTuple):
    """One way in which a framework calls a model.

    `run(user)` calls it for a user, within `budget_context(user=user)` if `context` is True. For a STREAM it is `run(user,
    most)`, which reads at most `most` pieces (None: all) and drops the rest. A HELPER makes several calls at once. A LOST one
    does, too, and is known to lose the user of `budget_context`. An UNCOVERED one is known to call the provider without
    LiteLLM. `user` is a fixed user, for ways that need one.
    """

    name: str
    run: Callable[..., Any]
    kind: Kind = CALL
    context: bool = True
    user: str = ""


class Seen(str):
    """The application's view of a refusal, returned by `Way.run` if the refusal reaches it as something other than an exception."""

    __slots__ = ()


@dataclass(frozen=True)
class Setup:
    """The resources for a framework's ways: the provider on loopback, a folder, and a stack that is closed afterwards."""

    provider: Upstream
    folder: Path
    closing: ExitStack


@dataclass(frozen=True)
class Framework:
    """A framework. `requires` is installed; `shown` are the distributions whose versions the table shows. `answer` returns the
    model's answer to a request's body: text, or a whole message. Without `in_process` the ways start processes that have the
    callback. `variables` are put into the environment before the framework is imported.
    """

    title: str
    requires: tuple[str, ...]
    shown: tuple[str, ...]
    named: str
    ways: Callable[[Setup], list[Way]]
    answer: Callable[[dict[str, Any]], str | dict[str, Any]] = field(
        default=lambda body: "All is well with you and me."
    )
    in_process: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)


def take(pieces: Iterable[Any], most: int | None) -> list[Any]:
    """Read the first pieces of a stream, and drop the rest."""
    return list(islice(pieces, most))


async def take_async(pieces: AsyncIterable[Any], most: int | None) -> list[Any]:
    """Read the first pieces of an asynchronous stream, and drop the rest."""
    taken: list[Any] = []
    async for piece in pieces:
        taken.append(piece)
        if len(taken) == most:
            break
    return taken


def tool_call(name: str, arguments: str) -> dict[str, Any]:
    """Return a model's message that calls a tool."""
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}
