"""The opening of stores on database servers. Their clients are extras, imported when such a store is opened."""

from __future__ import annotations

from litellm_budget_plugin.stores.net.guarded import GuardedStore


def open_redis(scheme: str, rest: str, *, test_clock: bool, timeout: float) -> GuardedStore:
    """The store at an address of Redis. Raises ImportError without redis-py."""
    from litellm_budget_plugin.stores.redis.address import parse_address
    from litellm_budget_plugin.stores.redis.engine import RedisEngine

    return GuardedStore(
        RedisEngine(parse_address(scheme, rest), timeout=timeout), test_clock=test_clock, timeout=timeout
    )


def open_postgres(_: str, rest: str, *, test_clock: bool, timeout: float) -> GuardedStore:
    """The store in a PostgreSQL database. Raises ImportError without psycopg or libpq."""
    from litellm_budget_plugin.stores.postgres.address import address_from
    from litellm_budget_plugin.stores.postgres.engine import PostgresEngine

    engine = PostgresEngine(address_from(f"postgresql://{rest}"), timeout)
    return GuardedStore(engine, test_clock=test_clock, timeout=timeout)
