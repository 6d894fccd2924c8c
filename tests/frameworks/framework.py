"""What a module of this package declares of its framework: what to install, and the ways in which it calls models."""

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

    `run(user)` calls it for a user, within `budget_context(user=user)` if `context` says so; that of a STREAM is `run(user, most)`,
    reads at most `most` pieces (None: all) and drops the rest. A HELPER makes several calls at once. A LOST one does, too, and is known
    to lose the user of `budget_context`; an UNCOVERED one is known to call the provider without LiteLLM. `user` is who calls, where that
    matters.
    """

    name: str
    run: Callable[..., Any]
    kind: Kind = CALL
    context: bool = True
    user: str = ""


class Seen(str):
    """Returned by `Way.run` in place of a refusal's exception: what the application sees instead."""

    __slots__ = ()


@dataclass(frozen=True)
class Setup:
    """What a framework's ways are made with: the provider on loopback, a folder, and what is closed afterwards."""

    provider: Upstream
    folder: Path
    closing: ExitStack


@dataclass(frozen=True)
class Framework:
    """A framework. `requires` is installed; `shown` are the distributions whose versions the table shows. `answer` is what the model
    says to a request's body: text, or a whole message. Without `in_process` the ways start processes that have the callback.
    `variables` are put into the environment before the framework is imported.
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
    """The first pieces of a stream, which is dropped then."""
    return list(islice(pieces, most))


async def take_async(pieces: AsyncIterable[Any], most: int | None) -> list[Any]:
    """The first pieces of an asynchronous stream, which is dropped then."""
    taken: list[Any] = []
    async for piece in pieces:
        taken.append(piece)
        if len(taken) == most:
            break
    return taken


def tool_call(name: str, arguments: str) -> dict[str, Any]:
    """A model's message that calls a tool."""
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}
