"""Who pays for a call: resolved once, at the gate, because a context may be gone when the call is settled."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
)
from contextvars import Context, ContextVar, copy_context
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast, overload

from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.errors import BudgetInputError, BudgetUserMissing
from litellm_budget_plugin.hooks.proxy_identity import account_of, caller_of
from litellm_budget_plugin.settings import BudgetSettings

_logger = logging.getLogger("litellm_budget_plugin")
_P = ParamSpec("_P")
_R = TypeVar("_R")
_Y = TypeVar("_Y")
_S = TypeVar("_S")


class _Entry:
    """A payer for the length of a `with` block; None stands for nobody. Entered once."""

    def __init__(self, payer: str | None) -> None:
        self.payer = payer
        self.ended = False
        self._entered = False
        self._parent: _Entry | None = None

    def __enter__(self) -> None:
        if self._entered:
            raise RuntimeError("a budget_context can be entered once; make a new one for each block")
        self._entered = True
        self._parent = parent = _innermost()
        if parent is not None:
            # Blocks that overlap without end must not become a chain without end.
            parent._parent = _first_open(parent._parent)
        _current.set(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A generator may leave its block in another context than it entered it in, or after a block that it entered
        # later: no token can be reset then. The mark is seen in every context that has a copy.
        self.ended = True
        if _current.get() is self:
            _current.set(_first_open(self._parent))


_current: ContextVar[_Entry | None] = ContextVar("litellm_budget_payer", default=None)


def _first_open(entry: _Entry | None) -> _Entry | None:
    while entry is not None and entry.ended:
        entry = entry._parent
    return entry


def _innermost() -> _Entry | None:
    return _first_open(_current.get())


def _payer_here() -> str | None:
    entry = _innermost()
    return None if entry is None else entry.payer


class budget_context(_Entry):  # noqa: N801  # used like a function
    """Within this context, LiteLLM calls are paid by `user` (1 to 256 printable characters; integers become text).

    It holds in the same thread or task and, while the block lasts, in tasks started from it and in `asyncio.to_thread`.
    Threads, executors and tasks that outlive the block need `carry`; generators that are read in turns, or by a web
    framework, need `iterate`. Leaving the block never raises. Can also decorate a function or a coroutine function.
    Raises BudgetInputError for a bad id.
    """

    # Whether a block was ever entered in this process: a call without a payer may have lost it then.
    _used = False

    def __init__(self, *, user: str | int) -> None:
        super().__init__(checked_id(user, "budget_context(user=...)"))

    def __enter__(self) -> None:
        super().__enter__()
        budget_context._used = True

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorate a function: each call of it runs in a context of its own for this user."""
        return _paid_by(self.payer, function)

    @staticmethod
    def carry(function: Callable[_P, _R]) -> Callable[_P, _R]:
        """`function`, to be called anywhere, with the payer of the place where `carry` is called, also if there is none.

        For threads, executors and tasks that outlive the block: `executor.submit(budget_context.carry(work), item)`. A
        coroutine function stays one; a coroutine or generator that `function` returns has the same payer.
        """
        return _paid_by(_payer_here(), function)

    @overload
    @staticmethod
    def iterate(generator: Generator[_Y, _S, _R]) -> Generator[_Y, _S, _R]: ...
    @overload
    @staticmethod
    def iterate(generator: AsyncGenerator[_Y, _S]) -> AsyncGenerator[_Y, _S]: ...
    @overload
    @staticmethod
    def iterate(generator: Iterator[_Y]) -> Iterator[_Y]: ...
    @overload
    @staticmethod
    def iterate(generator: AsyncIterator[_Y]) -> AsyncIterator[_Y]: ...
    @staticmethod
    def iterate(generator: Any) -> Any:
        """`generator`, sync or async, each step of which runs in one context of its own.

        Its payer at first is that of the place where `iterate` is called; a `budget_context` that the generator enters
        holds in all of its later steps, whichever thread or task asks for them, and nowhere else. `send`, `throw` and
        `close`, or `asend`, `athrow` and `aclose`, reach the generator. Raises TypeError for what is no iterator.
        """
        return _iterated(_payer_here(), generator)


def _paid_by(payer: str | None, function: Callable[_P, _R]) -> Callable[_P, _R]:
    if inspect.iscoroutinefunction(function):

        async def awaited(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            with _Entry(payer):
                return await function(*args, **kwargs)

        paid: Any = awaited
    else:

        def called(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            with _Entry(payer):
                result = function(*args, **kwargs)
            if inspect.iscoroutine(result):
                return _awaited(payer, result)
            if inspect.isgenerator(result) or inspect.isasyncgen(result):
                return _iterated(payer, result)
            return result

        paid = called
    return cast(Callable[_P, _R], functools.wraps(function)(paid))


async def _awaited(payer: str | None, coroutine: Coroutine[Any, Any, Any]) -> Any:
    with _Entry(payer):
        return await coroutine


def _iterated(payer: str | None, generator: Any) -> Any:
    context = copy_context()
    # The block where `iterate` was called may end before the generator does.
    context.run(_current.set, _Entry(payer))
    if hasattr(generator, "__anext__"):
        return _AsyncSteps(generator, context)
    if hasattr(generator, "__next__"):
        return _Steps(generator, context)
    raise TypeError(f"iterate needs a generator or another iterator, not {type(generator).__name__}")


class _Steps(Generator[Any, Any, Any]):
    """An iterator whose steps run in `context`."""

    def __init__(self, iterator: Any, context: Context) -> None:
        self._iterator = iterator
        self._context = context

    def __next__(self) -> Any:
        return self._context.run(next, self._iterator)

    def send(self, value: Any) -> Any:
        return self.__next__() if value is None else self._context.run(self._iterator.send, value)

    def throw(self, *error: Any) -> Any:
        if not hasattr(self._iterator, "throw"):
            raise error[1] if len(error) > 1 and error[1] is not None else error[0]
        return self._context.run(self._iterator.throw, *error)

    def close(self) -> None:
        if hasattr(self._iterator, "close"):
            self._context.run(self._iterator.close)


class _AsyncSteps(AsyncGenerator[Any, Any]):
    """An asynchronous iterator whose steps run in `context`."""

    def __init__(self, iterator: Any, context: Context) -> None:
        self._iterator = iterator
        self._context = context

    async def __anext__(self) -> Any:
        return await _InContext(self._iterator.__anext__(), self._context)

    async def asend(self, value: Any) -> Any:
        step = self._iterator.__anext__() if value is None else self._iterator.asend(value)
        return await _InContext(step, self._context)

    async def athrow(self, *error: Any) -> Any:
        if not hasattr(self._iterator, "athrow"):
            raise error[1] if len(error) > 1 and error[1] is not None else error[0]
        return await _InContext(self._iterator.athrow(*error), self._context)

    async def aclose(self) -> None:
        if hasattr(self._iterator, "aclose"):
            await _InContext(self._iterator.aclose(), self._context)


class _InContext:
    """An awaitable that the running task awaits, in `context`: a task of its own would be cancelled apart from it."""

    def __init__(self, awaitable: Awaitable[Any], context: Context) -> None:
        self._awaitable = awaitable
        self._context = context

    def __await__(self) -> Generator[Any, Any, Any]:
        return _Steps(self._awaitable.__await__(), self._context)


_LOST = (
    "; a budget_context was entered elsewhere in this process: budget_context.carry takes it into threads, executors and "
    "tasks, budget_context.iterate into generators"
)
_ADVICE = "; ON_MISSING_USER=reject refuses such calls"
_warned: set[tuple[str, str]] = set()


def paying_user(settings: BudgetSettings, params: Mapping[str, Any]) -> str:
    """The id of the user who pays for a call with these keyword arguments.

    For a request of the LiteLLM proxy that is the user, else the key, that the proxy has authenticated, whatever USER_FROM
    says; what its client wrote into the request names nobody.

    Raises BudgetInputError for an id that cannot be one, BudgetUserMissing where the settings ask for a user; in shadow
    mode neither, but logs what it would have raised and names the default user.
    """
    try:
        return _found_user(settings, params)
    except (BudgetInputError, BudgetUserMissing) as error:
        if settings.mode != "shadow":
            raise
        _logger.warning("shadow mode: this call would be refused: %s", error)
        return settings.default_user


def _found_user(settings: BudgetSettings, params: Mapping[str, Any]) -> str:
    sources = settings.user_sources if caller_of(params) is None else _PROXY_SOURCES
    for source in sources:
        found = _FINDERS[source](params) if source != "default" else None
        if found is not None and found != "":
            return checked_id(found, f"the user of this call (from {source})")
    lost = _LOST if budget_context._used and "context" in sources else ""
    if settings.on_missing_user == "reject":
        raise BudgetUserMissing(
            "this call names no user; a user is looked for in "
            f"{', '.join(sources)}: pass user=..., metadata={{'budget_user': ...}} or use budget_context{lost}"
        )
    if (settings.project, lost) not in _warned:
        _warned.add((settings.project, lost))
        _logger.warning(
            "a call names no user; such calls are charged to %r%s", settings.default_user, lost and lost + _ADVICE
        )
    return settings.default_user


def _from_metadata(params: Mapping[str, Any]) -> Any:
    for name in ("litellm_metadata", "metadata"):
        metadata = params.get(name)
        if isinstance(metadata, Mapping) and metadata.get("budget_user") not in (None, ""):
            return metadata["budget_user"]
    return None


def _from_proxy(params: Mapping[str, Any]) -> Any:
    caller = caller_of(params)
    return None if caller is None else account_of(caller)


_PROXY_SOURCES = ("proxy", "context")
_FINDERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "context": lambda params: _payer_here(),
    "metadata": _from_metadata,
    "user": lambda params: params.get("user"),
    "proxy": _from_proxy,
}
