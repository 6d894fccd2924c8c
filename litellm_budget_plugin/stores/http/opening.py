"""The opening of the store at an endpoint: in our protocol if the endpoint speaks it, else in LiteLLM's."""

from __future__ import annotations

import json
import logging
import time

from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.hosted import STATUSES, HostedStore
from litellm_budget_plugin.stores.http.address import parse_address
from litellm_budget_plugin.stores.http.client import HttpClient
from litellm_budget_plugin.stores.http.store import PROTOCOL, HttpStore
from litellm_budget_plugin.stores.protocol import Store

_HEADER = "litellm-budget-protocol"
_SERVER_ERROR, _NOT_IMPLEMENTED = 500, 501
_PROBE = "litellm-budget:probe"

_log = logging.getLogger("litellm_budget_plugin")


def open_http(scheme: str, rest: str, *, test_clock: bool, timeout: float) -> Store:
    """The store at an endpoint. Raises BudgetInputError and BudgetStoreError, and BudgetStoreUnavailable while the
    endpoint is unreachable.
    """
    exchange = HttpClient(parse_address(scheme, rest))
    try:
        return _store(exchange, test_clock, timeout)
    except BaseException:
        exchange.close()
        raise


def _store(exchange: HttpClient, test_clock: bool, timeout: float) -> Store:
    deadline = time.monotonic() + timeout
    answer = exchange.request("GET", "/v1", None, deadline)
    version = answer.headers.get(_HEADER)
    if version is None and (answer.status < 500 or answer.status == _NOT_IMPLEMENTED):
        _check_endpoint(exchange, deadline)
        _log.warning(
            "%s is not litellm-budget serve. LiteLLM's own budget protocol is used, which keeps the users' budgets "
            "only, and where the last writer wins between processes: for several processes, run litellm-budget serve "
            "(docs/guarantees.md)",
            exchange.name,
        )
        return HostedStore(exchange, test_clock=test_clock, timeout=timeout)
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


def _check_endpoint(exchange: HttpClient, deadline: float) -> None:
    """Raise BudgetStoreError unless the endpoint speaks LiteLLM's protocol. A proxy in front of a starting server answers 404 or a page
    of its own, which must not select another protocol for the life of this process. An endpoint answers in the protocol for any project.
    """
    answer = exchange.request("POST", "/get_budget", json.dumps({"project_name": _PROBE}).encode(), deadline)
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        said = None
    if _HEADER in answer.headers:
        raise BudgetStoreUnavailable(f"{exchange.name} has just begun to answer; try again")
    if answer.status >= _SERVER_ERROR or not isinstance(said, dict) or said.get("status") not in STATUSES:
        exchange.decoded("/get_budget", answer)
        raise BudgetStoreError(f"{exchange.name}/get_budget did not answer as an endpoint of LiteLLM's protocol does")
