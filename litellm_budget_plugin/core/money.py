"""Money is an integer number of nano-dollars (1e-9 USD) everywhere inside the package.

Floats appear only at the boundary to LiteLLM and pass through the functions of this module, one for each direction.
Every amount is below 2**53 nano-dollars, so it is also exact in a double, on every engine and on the wire.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, DecimalException

from litellm_budget_plugin.errors import BudgetInputError

NANOS_PER_USD = 1_000_000_000
MAX_NANOS = 2**53 - 1
"""The largest amount accepted, in nano-dollars: $9,007,199.25."""

# The application may have changed the precision or the traps of the thread's own decimal context.
_EXACT = Context(prec=100)
_MAX_USD = _EXACT.divide(Decimal(MAX_NANOS), Decimal(NANOS_PER_USD))


def charge_nanos(usd: float | Decimal | str, what: str = "cost") -> int:
    """An amount in USD as nano-dollars, rounded half to even.

    Raises BudgetInputError, naming `what`, for anything but a finite number from 0 to $9,007,199.25.
    """
    if isinstance(usd, (bool, tuple, list)):
        raise BudgetInputError(f"{what} must be a number of US dollars, got {usd!r}")
    try:
        # The shortest decimal that reads back as the same float: 0.1 means a tenth, not 0.1000000000000000055.
        amount = _EXACT.create_decimal(float.__repr__(usd) if isinstance(usd, float) else usd)
    except (DecimalException, TypeError, ValueError):
        raise BudgetInputError(f"{what} must be a number of US dollars, got {usd!r:.80}") from None
    if not amount.is_finite():
        raise BudgetInputError(f"{what} must be a finite number of US dollars, got {usd!r:.80}")
    if amount < 0:
        raise BudgetInputError(f"{what} must not be negative, got {amount:.6g}")
    if amount > _MAX_USD:
        raise BudgetInputError(f"{what} must be at most ${usd_text(MAX_NANOS)}, got {amount:.6g}")
    return int(_EXACT.multiply(amount, NANOS_PER_USD).to_integral_value(ROUND_HALF_EVEN, _EXACT))


def usd_float(nanos: int) -> float:
    """Nano-dollars as a float of USD, for LiteLLM's return shapes."""
    return nanos / NANOS_PER_USD


def usd_text(nanos: int) -> str:
    """Nano-dollars as text for people: at least two decimals, never rounded ("0.05", "0.000015")."""
    whole, rest = divmod(abs(nanos), NANOS_PER_USD)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nanos < 0 else ''}{whole:,}.{decimals}"
