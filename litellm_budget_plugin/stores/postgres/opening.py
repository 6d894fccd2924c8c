"""From the URL of a PostgreSQL database to a store; psycopg is imported here, when somebody asks for one."""

from __future__ import annotations

from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.net.guarded import GuardedStore


def open_postgres(rest: str, *, test_clock: bool, timeout: float) -> GuardedStore:
    """The store that `postgresql://` with `rest` behind it names. Raises BudgetInputError if psycopg is not installed."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise BudgetInputError(
            f"postgresql:// needs psycopg ({error}): pip install 'litellm-budget-plugin[postgres]'"
        ) from error
    from litellm_budget_plugin.stores.postgres.address import address_from
    from litellm_budget_plugin.stores.postgres.engine import PostgresEngine

    engine = PostgresEngine(address_from(f"postgresql://{rest}"), timeout)
    return GuardedStore(engine, test_clock=test_clock, timeout=timeout)
