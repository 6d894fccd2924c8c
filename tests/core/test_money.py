"""Amounts of money at the boundary: floats, texts and decimals come in, nano-dollars are used inside, floats and texts go out."""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from litellm_budget_plugin.core.money import MAX_NANOS, charge_nanos, usd_float, usd_text
from litellm_budget_plugin.errors import BudgetInputError

MAX_USD = Decimal(MAX_NANOS).scaleb(-9)
NANOS = st.integers(0, MAX_NANOS)
FLOATS = st.floats(0, 9_000_000, allow_nan=False)
DECIMALS = st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places, decimal.Context(prec=60)),
    st.integers(0, 10**40),
    st.integers(34, 60),
)


def half_even(usd: Fraction) -> int:
    return round(usd * 10**9)


@given(FLOATS)
def test_a_float_means_its_shortest_decimal_and_is_charged_half_to_even(usd: float) -> None:
    assert charge_nanos(usd) == half_even(Fraction(repr(usd)))


@given(DECIMALS)
@example(Decimal("0.00000000100000000000000000000000000000001"))
@example(Decimal("0.00000000050000000000000000000000000000001"))
def test_decimals_of_any_length_are_rounded_once(usd: Decimal) -> None:
    assert charge_nanos(usd) == half_even(Fraction(usd))
    assert charge_nanos(str(usd)) == half_even(Fraction(usd))


@pytest.mark.parametrize(
    ("usd", "charge"),
    [
        ("0.0000000005", 0),
        ("0.0000000015", 2),
        ("0.0000000025", 2),
        ("0.00000000250000001", 3),
        (0.1, 100_000_000),
        (0.1 + 0.2, 300_000_000),
        (5e-324, 0),
        ("1e-999999", 0),
        (0, 0),
        (-0.0, 0),
        (7, 7_000_000_000),
    ],
)
def test_charges_round_half_to_even(usd: Any, charge: int) -> None:
    assert charge_nanos(usd) == charge


@given(st.integers(0, 2**23 * 10**9))
def test_an_amount_survives_the_way_out_as_a_float_and_back(nanos: int) -> None:
    assert charge_nanos(usd_float(nanos)) == nanos


@given(NANOS)
def test_beyond_eight_million_dollars_the_way_through_a_float_is_off_by_a_nano_dollar_at_most(nanos: int) -> None:
    assert abs(charge_nanos(usd_float(nanos)) - nanos) <= 1


@given(NANOS)
def test_an_amount_survives_the_way_out_as_text_and_back(nanos: int) -> None:
    text = usd_text(nanos)
    assert charge_nanos(text.replace(",", "")) == nanos
    assert len(text.partition(".")[2]) >= 2


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0.00"),
        (50_000_000, "0.05"),
        (15_000, "0.000015"),
        (1, "0.000000001"),
        (1_500_000_000, "1.50"),
        (1_234_567_000_000_000, "1,234,567.00"),
        (-50_000_000, "-0.05"),
        (MAX_NANOS, "9,007,199.254740991"),
    ],
)
def test_text_for_people_has_two_decimals_or_all_that_it_needs(nanos: int, text: str) -> None:
    assert usd_text(nanos) == text


@pytest.mark.parametrize(
    "bad",
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        "nan",
        "inf",
        -1,
        -1e-12,
        "-0.01",
        Decimal("-1e-30"),
        MAX_USD + Decimal("1e-9"),
        9_007_199.26,
        10**30,
        10**5_000,
        1e300,
        "1e30",
        "1e999999",
        Decimal("1e999999"),
        True,
        False,
        "",
        "five",
        "1,5",
        "$5",
        b"5",
        None,
        [],
        (0, (1,), 0),
        {},
        1j,
        object(),
    ],
    ids=lambda bad: type(bad).__name__,
)
def test_what_is_no_amount_is_refused_by_the_name_of_what_it_is_for(bad: Any) -> None:
    with pytest.raises(BudgetInputError, match="the limit of alice must"):
        charge_nanos(bad, "the limit of alice")


@given(st.text(max_size=12))
def test_any_text_is_an_amount_or_an_input_error(text: str) -> None:
    try:
        nanos = charge_nanos(text)
    except BudgetInputError:
        return
    assert 0 <= nanos <= MAX_NANOS
    assert nanos == half_even(Fraction(Decimal(text)))


def test_the_largest_amount_is_accepted() -> None:
    assert charge_nanos(MAX_USD) == charge_nanos(str(MAX_USD)) == MAX_NANOS


@pytest.mark.parametrize("precision", [3, 6, 28])
def test_the_decimal_context_of_the_application_changes_nothing(precision: int) -> None:
    with decimal.localcontext() as context:
        context.prec = precision
        context.traps[decimal.Inexact] = True
        assert charge_nanos("1234.56789012349") == 1_234_567_890_123
        assert charge_nanos(1234.5678901231) == 1_234_567_890_123


def test_a_subclass_of_float_counts_by_its_value() -> None:
    class Float64(float):
        def __repr__(self) -> str:
            return f"np.float64({float(self)!r})"

    assert charge_nanos(Float64(0.25)) == 250_000_000
