"""Ids of projects, scopes and subjects."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.core.names import MAX_ID_LENGTH, checked_id
from litellm_budget_plugin.errors import BudgetInputError


@pytest.mark.parametrize("good", ["a", "alice@example.com", "Ünïcode-名前", "two words", "x" * 256, "a/b:c", "0"])
def test_printable_text_is_an_id_as_it_is(good: str) -> None:
    assert checked_id(good, "user") == good


@pytest.mark.parametrize(("number", "text"), [(7, "7"), (0, "0"), (-3, "-3"), (10**30, "1" + "0" * 30)])
def test_an_integer_becomes_its_text(number: int, text: str) -> None:
    assert checked_id(number, "user") == text


@pytest.mark.parametrize(
    "bad",
    ["", " ", " a", "a ", "a\n", "\ta", "a\x00b", "a\u200bb", "a\u2028b", "\u00a0", "x" * 257, "\ud800"]
    + [None, True, False, 1.5, b"a", ["a"], {"a": 1}, object()],
)
def test_everything_else_is_refused_by_the_name_of_what_it_is_for(bad: Any) -> None:
    with pytest.raises(BudgetInputError, match="budget_user must"):
        checked_id(bad, "budget_user")


def test_an_integer_too_long_for_an_id_is_an_input_error() -> None:
    for number in (10**256, 10**5_000):
        with pytest.raises(BudgetInputError, match="budget_user must"):
            checked_id(number, "budget_user")


@given(st.text(max_size=300) | st.integers() | st.none() | st.floats() | st.binary())
def test_an_accepted_id_is_printable_and_is_accepted_again_unchanged(value: Any) -> None:
    try:
        accepted = checked_id(value, "user")
    except BudgetInputError:
        return
    assert 1 <= len(accepted) <= MAX_ID_LENGTH
    assert accepted.isprintable()
    assert checked_id(accepted, "user") == accepted == str(value)
