"""refusal_in finds a refusal inside the errors that frameworks wrap around it."""

from __future__ import annotations

import builtins
import random
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin import BudgetError, BudgetPriceUnknown, BudgetUserMissing, refusal_in


class FrameworkError(Exception):
    """An error of a framework."""

    def __init__(self, *args: Any, **kept: Any) -> None:
        super().__init__(*args)
        self.__dict__.update(kept)


class FailedAttempt(NamedTuple):
    number: int
    exception: Exception


def caused(refusal: Exception) -> Exception:
    error = FrameworkError()
    error.__cause__ = refusal
    return error


def during(refusal: Exception) -> Exception:
    try:
        try:
            raise refusal
        except BudgetError:
            raise FrameworkError from None
    except FrameworkError as error:
        return error


def grouped(refusal: Exception) -> Exception:
    group: Any = getattr(builtins, "ExceptionGroup", None)
    if group is None:
        pytest.skip("exception groups came with Python 3.11")
    error: Exception = group("tasks", [ValueError(), group("inner", [KeyError(), refusal])])
    return error


# The places where the frameworks in docs/how-to/handle-refusals.md keep a refusal, and other possible places.
SHAPES: dict[str, Callable[[Exception], BaseException]] = {
    "itself: LangChain, OpenAI Agents, CrewAI": lambda refusal: refusal,
    "its cause: instructor": caused,
    "the cause of its cause: DSPy": lambda refusal: caused(caused(refusal)),
    "its context, suppressed": during,
    "a member of a group": grouped,
    "an argument": lambda refusal: FrameworkError("failed", refusal),
    "a list as an argument": lambda refusal: FrameworkError("failed", [ValueError(), refusal]),
    "original_exception": lambda refusal: FrameworkError(original_exception=refusal),
    "the cause of original_exception": lambda refusal: FrameworkError(original_exception=caused(refusal)),
    "failed attempts": lambda refusal: FrameworkError(failed_attempts=[FailedAttempt(1, refusal)]),
    "a dictionary": lambda refusal: FrameworkError(errors={"task": refusal}),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_refusal_is_found(shape: Callable[[Exception], BaseException]) -> None:
    for refusal in (BudgetUserMissing("x"), BudgetPriceUnknown("x")):
        assert refusal_in(shape(refusal)) is refusal
    assert refusal_in(shape(BudgetError("no refusal"))) is None


def test_nothing_is_found_in_nothing() -> None:
    assert refusal_in(None) is None
    assert refusal_in(ValueError("x")) is None


def test_the_nearest_is_found() -> None:
    near, far = BudgetUserMissing("near"), BudgetUserMissing("far")
    error = FrameworkError(caused(caused(far)))
    error.__cause__ = near
    assert refusal_in(error) is near


def test_what_is_kept_and_gone_is_passed_over() -> None:
    gone = FrameworkError()
    error = FrameworkError(kept=weakref.proxy(gone))
    del gone
    assert refusal_in(error) is None


def test_a_long_chain_is_no_recursion() -> None:
    error: BaseException = BudgetUserMissing("x")
    refusal = error
    for _ in range(5000):
        error, inner = FrameworkError(), error
        error.__cause__ = inner
    assert refusal_in(error) is refusal


_LINKS = ("__cause__", "__context__", "original_exception", "args", "failed_attempts")


@given(st.integers(1, 12), st.integers(0, 40), st.randoms(use_true_random=False), st.booleans())
def test_whatever_refers_to_whatever_a_refusal_is_found_where_it_can_be_reached(
    size: int, links: int, chance: random.Random, refused: bool
) -> None:
    errors: list[Any] = [FrameworkError() for _ in range(size)]
    if refused:
        errors.append(BudgetUserMissing("x"))
    reached: dict[int, dict[str, int]] = {}
    for _ in range(links):
        start, end, link = chance.randrange(size), chance.randrange(len(errors)), chance.choice(_LINKS)
        target = errors[end]
        setattr(errors[start], link, (target,) if link == "args" else [target] if link == "failed_attempts" else target)
        reached.setdefault(start, {})[link] = end
    waiting, seen = [0], {0}
    while waiting:
        for end in reached.get(waiting.pop(), {}).values():
            if end not in seen:
                seen.add(end)
                waiting.append(end)
    assert refusal_in(errors[0]) is (errors[-1] if refused and size in seen else None)
