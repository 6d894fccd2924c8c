"""From the URL of an endpoint to the store that speaks its protocol: ours where the endpoint does, else LiteLLM's."""

from __future__ import annotations

import logging
import time
from functools import partial

from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores.hosted.store import HostedStore
from litellm_budget_plugin.stores.http.address import parse_address
from litellm_budget_plugin.stores.http.exchange import Exchange
from litellm_budget_plugin.stores.http.store import PROTOCOL, HttpStore
from litellm_budget_plugin.stores.protocol import Store

_HEADER = "litellm-budget-protocol"
_NOT_IMPLEMENTED = 501

_log = logging.getLogger("litellm_budget_plugin")


def _open(scheme: str, rest: str, *, test_clock: bool, timeout: float) -> Store:
    exchange = Exchange(parse_address(scheme, rest))
    try:
        return _store(exchange, test_clock, timeout)
    except BaseException:
        exchange.close()
        raise


def _store(exchange: Exchange, test_clock: bool, timeout: float) -> Store:
    answer = exchange.request("GET", "/v1", None, time.monotonic() + timeout)
    version = answer.headers.get(_HEADER)
    if version is None and (answer.status < 500 or answer.status == _NOT_IMPLEMENTED):
        _log.warning(
            "%s is not litellm-budget serve; it is spoken to in LiteLLM's own budget protocol, which can hold and keep less "
            "(docs/guarantees.md)",
            exchange.name,
        )
        return HostedStore(exchange, exchange.name, test_clock=test_clock, timeout=timeout)
    said = exchange.decoded("/v1", answer)
    if not isinstance(said, dict) or said.get("service") != "litellm-budget":
        raise BudgetStoreError(f"{exchange.name}/v1 did not answer as litellm-budget serve does")
    if version != str(PROTOCOL):
        raise BudgetStoreError(
            f"{exchange.name} speaks version {version} of the protocol, and this installation version {PROTOCOL}; update the older one"
        )
    if test_clock and not said.get("test_clock"):
        raise BudgetInputError(f"{exchange.name} keeps its own time: it was not started with a test clock")
    return HttpStore(exchange, read_only=said.get("access") == "read-only", test_clock=test_clock, timeout=timeout)


open_http = partial(_open, "http")
open_https = partial(_open, "https")
