"""The functions that the registry opens Redis stores by, one for each scheme."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.stores.redis.address import parse_address

if TYPE_CHECKING:
    from litellm_budget_plugin.stores.net.guarded import GuardedStore


def _open(scheme: str, rest: str, *, test_clock: bool, timeout: float) -> GuardedStore:
    address = parse_address(scheme, rest)
    try:
        from litellm_budget_plugin.stores.net.guarded import GuardedStore
        from litellm_budget_plugin.stores.redis.engine import RedisEngine
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "redis":
            raise
        raise BudgetStoreError(
            f"{address.name}: the Redis client is not installed; pip install 'litellm-budget-plugin[redis]'"
        ) from error
    return GuardedStore(RedisEngine(address, timeout=timeout), test_clock=test_clock, timeout=timeout)


open_redis = partial(_open, "redis")
open_rediss = partial(_open, "rediss")
open_unix = partial(_open, "redis+unix")
open_cluster = partial(_open, "redis+cluster")
open_secure_cluster = partial(_open, "rediss+cluster")
open_sentinel = partial(_open, "redis+sentinel")
open_secure_sentinel = partial(_open, "rediss+sentinel")
