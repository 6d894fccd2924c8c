"""budget_context: the payer for the calls of a part of a program, also in its threads, tasks and generators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from contextvars import Context, ContextVar, copy_context
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast, overload

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.principal import Given
from litellm_budget_plugin.manager.unregistered import warn_if_unregistered

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Y = TypeVar("_Y")
_S = TypeVar("_S")


class Payer(NamedTuple):
    """The payer that a place in the program names. Fields that it does not name are None or empty."""

    user: str | None = None
    given: Given = Given()

    def inside(self, outer: Payer) -> Payer:
        """Return what counts in a block inside `outer`: an inner user and team replace outer ones; tags, runs and
        limits add up.
        """
        mine, theirs = self.given, outer.given
        return Payer(
            outer.user if self.user is None else self.user,
            Given(
                theirs.team if mine.team is None else mine.team,
                _added(theirs.tags, mine.tags),
                _added(theirs.runs, mine.runs),
                theirs.user_class if self.user is None and mine.user_class is None else mine.user_class,
                (*theirs.limits, *mine.limits),
            ),
        )


NOBODY = Payer()


def _added(outer: tuple[str, ...], inner: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*outer, *inner)))


class _Entry:
    """A `with` block that names a payer. Can be entered once. Without `within`, payers named outside of the block do
    not count.
    """

    def __init__(self, payer: Payer, *, within: bool = False) -> None:
        self.payer = payer
        self.ended = False
        self._within = within
        self._entered = False
        self._parent: _Entry | None = None

    def __enter__(self) -> Any:
        if self._entered:
            raise RuntimeError("a budget_context can be entered once; make a new one for each block")
        self._entered = True
        warn_if_unregistered("budget_context")
        self._parent = parent = _innermost()
        if parent is not None:
            # Overlapping blocks must not form an endless chain.
            parent._parent = _first_open(parent._parent)
            if self._within:
                self.payer = self.payer.inside(parent.payer)
        _current.set(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A generator may leave its block in another context than the one that it entered it in, or after a block that
        # it entered later. So a token cannot be reset. `ended` is seen in every context that has a copy.
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


def payer_here() -> Payer:
    """Return the payer that is named at this place."""
    entry = _innermost()
    return NOBODY if entry is None else entry.payer


class budget_context(_Entry):  # noqa: N801  # used like a function
    """Have `user` pay for LiteLLM calls within this context. They also count against the budgets of `team`, `tags` and
    `run`.

    Ids are 1 to 256 printable characters. Integers become text. Inside of another context, its user and team replace
    the outer ones, while tags, runs and limits add up. `limits` is one sentence such as "$1/day" or a list of them.
    They apply to the run if one is named here, else to the user, else to the team. They apply in addition to the limits
    of the environment and the file; of two for the same, the smaller one counts. Limits that were set by hand count
    alone. `user_class` names a class of that file.

    It holds in the same thread or task and, while the block lasts, in tasks started from it and in `asyncio.to_thread`.
    Threads, executors and tasks that outlive the block need `carry`. Generators that are read in turns, or by a web
    framework, need `iterate`. Leaving the block never raises. Can also decorate a function or a coroutine function.
    Raises BudgetInputError for a bad id or a sentence that cannot be read.
    """

    # Whether a block was ever entered in this process. If so, a call without a payer may have lost it.
    _used = False

    def __init__(
        self,
        *,
        user: str | int | None = None,
        team: str | int | None = None,
        tags: Iterable[str | int] | str = (),
        run: str | int | None = None,
        limits: Iterable[str] | str = (),
        user_class: str | None = None,
    ) -> None:
        given = Given(
            _id(team, "team"),
            checked_ids(tags, "budget_context(tags=...)"),
            () if run is None else (checked_id(run, "budget_context(run=...)"),),
            _id(user_class, "user_class"),
        )
        payer = Payer(_id(user, "user"), given)
        if limits:
            subject = _limited_here(payer)
            parse_limits(limits)
            texts = (limits,) if isinstance(limits, str) else tuple(limits)
            payer = Payer(payer.user, given._replace(limits=((subject, texts),)))
        if payer == NOBODY:
            raise BudgetInputError("budget_context names nobody: give user=, team=, tags= or run=")
        super().__init__(payer, within=True)

    def __enter__(self) -> Any:
        super().__enter__()
        budget_context._used = True
        return None

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorate a function: each call of it runs in its own context for this user."""
        return _paid_by(self.payer, function, within=True)

    @staticmethod
    def carry(function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Return `function` bound to the payer at this place, also if there is none. It can then be called anywhere.

        For threads, executors and tasks that outlive the block: `executor.submit(budget_context.carry(work), item)`. A
        coroutine function stays one. A coroutine or generator that `function` returns has the same payer.
        """
        return _paid_by(payer_here(), function)

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
        """Return `generator`, sync or async, with all of its steps run in one context of its own.

        Its first payer is that of the place where `iterate` is called. A `budget_context` that the generator enters
        applies to all of its later steps, whichever thread or task asks for them, and nowhere else. `send`, `throw` and
        `close`, or `asend`, `athrow` and `aclose`, reach the generator. Raises TypeError for anything that is not an
        iterator.
        """
        return _iterated(payer_here(), generator)


def ever_entered() -> bool:
    """Return whether a block was ever entered in this process. If so, a call that names no payer may have lost it."""
    return budget_context._used


def _limited_here(payer: Payer) -> Subject:
    if payer.given.runs:
        return Subject("run", payer.given.runs[-1])
    if payer.user is not None:
        return Subject("user", payer.user)
    if payer.given.team is not None:
        return Subject("team", payer.given.team)
    raise BudgetInputError("budget_context(limits=...) is for a run, a user or a team: give one of them, too")


def _id(value: Any, what: str) -> str | None:
    return None if value is None else checked_id(value, f"budget_context({what}=...)")


def checked_ids(values: Any, what: str) -> tuple[str, ...]:
    """Return one id or several as a tuple without duplicates. Raises BudgetInputError, which names `what`."""
    if isinstance(values, (str, int)):
        values = (values,)
    if not isinstance(values, Iterable):
        raise BudgetInputError(f"{what} must be a list of tags, got {type(values).__name__}")
    return tuple(dict.fromkeys(checked_id(value, what) for value in values))


def _paid_by(payer: Payer, function: Callable[_P, _R], *, within: bool = False) -> Callable[_P, _R]:
    if inspect.iscoroutinefunction(function):

        async def awaited(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            with _Entry(payer, within=within):
                return await function(*args, **kwargs)

        paid: Any = awaited
    else:

        def called(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            with (entry := _Entry(payer, within=within)):
                result = function(*args, **kwargs)
            if inspect.iscoroutine(result):
                return _awaited(entry.payer, result)
            if inspect.isgenerator(result) or inspect.isasyncgen(result):
                return _iterated(entry.payer, result)
            return result

        paid = called
    return cast(Callable[_P, _R], functools.wraps(function)(paid))


async def _awaited(payer: Payer, coroutine: Coroutine[Any, Any, Any]) -> Any:
    with _Entry(payer):
        return await coroutine


def _iterated(payer: Payer, generator: Any) -> Any:
    context = copy_context()
    # The block in which `iterate` was called may end before the generator does.
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
    """An awaitable that the running task awaits in `context`. A task of its own would be cancelled separately."""

    def __init__(self, awaitable: Awaitable[Any], context: Context) -> None:
        self._awaitable = awaitable
        self._context = context

    def __await__(self) -> Generator[Any, Any, Any]:
        return _Steps(self._awaitable.__await__(), self._context)
