"""BudgetCallback: the only object that an application registers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from litellm_budget_plugin import pricing
from litellm_budget_plugin.hooks import gate
from litellm_budget_plugin.hooks.call import Call, settlement_of
from litellm_budget_plugin.hooks.call_types import CALL_TYPES, logged_request, request_of
from litellm_budget_plugin.hooks.instrument import instrument, uninstrument
from litellm_budget_plugin.hooks.near_limit.plan import plan_for
from litellm_budget_plugin.hooks.principal import principal_of
from litellm_budget_plugin.hooks.proxy_identity import is_caller
from litellm_budget_plugin.hooks.registration import BudgetHook, deregister, register
from litellm_budget_plugin.hooks.settlement import in_litellm
from litellm_budget_plugin.hooks.versions import litellm_version, untested
from litellm_budget_plugin.manager.alerts.alert import Alert
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.manager import BudgetManager
from litellm_budget_plugin.manager.marks import response_marks
from litellm_budget_plugin.settings import BudgetSettings

_logger = logging.getLogger("litellm_budget_plugin")


class BudgetCallback(BudgetHook):
    """Budgets for every LiteLLM call of this process, from the creation of this object until `close()`:

        litellm.callbacks = [BudgetCallback()]

    Creating one opens the ledger and puts the gate in place. The gate acts until `close()`, even if other code assigns
    or clears `litellm.callbacks` afterwards. If several callbacks are open, it acts for the first one in that list.
    Settings come from the environment, from `settings`, or from keyword arguments with their names
    (`BudgetCallback(default_limit=5)`).

    `on_alert` is called with each `Alert`, once over all processes, on a separate thread; see
    docs/how-to/get-alerts.md.

    `manager` is LiteLLM's BudgetManager interface over the same ledger. Raises BudgetSettingsError for a bad setting,
    BudgetStoreError if the ledger cannot be opened, and IncompatibleLiteLLMError if the installed LiteLLM lacks a patch
    point. Then nothing stays open. A refused call raises BudgetExceeded to its caller.
    """

    def __init__(
        self,
        settings: BudgetSettings | None = None,
        *,
        on_alert: Callable[[Alert], object] | None = None,
        **values: Any,
    ) -> None:
        super().__init__()
        if settings is not None and values:
            settings = BudgetSettings(**{**settings.model_dump(), **values})
        self.settings = settings or BudgetSettings(**values)
        with ExitStack() as opened:
            self._ledger = BudgetLedger(self.settings, charging=True, on_alert=on_alert)
            opened.callback(self._ledger.close)
            # Made at once, because it imports the budgets of an existing user_cost.json.
            self.manager = BudgetManager(self.settings.project, settings=self.settings)
            opened.callback(self.manager.close)
            instrument()
            opened.pop_all()
        self._closed = False
        self.budget_ledger = None if self.settings.mode == "off" else self._ledger
        register(self)
        if said := untested(litellm_version()):
            _logger.warning("%s; `litellm-budget doctor` shows whether budgets hold", said)
        policy = self._ledger.policies.current()
        if not policy.limited and not self._ledger.of_a_test:
            _logger.warning(
                "nothing is limited: no limit is set in the environment or a file; only limits set by hand apply"
            )
        if unknown := pricing.unknown_models(policy.models()):
            _logger.warning("some limits may have no effect: %s", "; ".join(unknown))

    def flush(self) -> None:
        """Return when every charge known to this process is in the ledger and would survive a power cut.

        Raises BudgetStoreError if the store cannot take them now; they stay queued.
        """
        self._ledger.flush()

    def close(self) -> None:
        """Deliver waiting charges, release the ledger, and remove the gate. Calls are no longer limited. May be called
        twice.
        """
        if self._closed:
            return
        self._closed = True
        deregister(self)
        self.budget_ledger = None
        uninstrument()
        self.manager.close()
        self._ledger.close()

    # LiteLLM's documented methods. While the gate is in place, LiteLLM's own calls of them find everything already
    # done. Called directly, they do what their docstrings say.

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Raise BudgetExceeded if a call with the arguments `data` has no room now. Holds nothing. Returns `data`.

        In the LiteLLM proxy the gate holds for each call that it knows. Only pass-through requests are held for here.
        """
        ledger = self.budget_ledger
        if ledger is None:
            return data
        if is_caller(user_api_key_dict):
            await gate.proxied(ledger, user_api_key_dict, data, call_type)
        elif call_type in CALL_TYPES:
            request = request_of(CALL_TYPES[call_type], data)
            call = Call(ledger, principal_of(ledger, data), request, plan=plan_for(self.settings, request, frozenset()))
            call.admit()
            call.release()
        return data

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Release the money of a request that the LiteLLM proxy has given up."""
        gate.request_failed()

    def log_success_event(self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Charge `response_obj` to the user of `kwargs`, once."""
        ledger = self.budget_ledger
        if in_litellm.get() or ledger is None:
            return
        principal = principal_of(ledger, {**(kwargs.get("litellm_params") or {}), **kwargs})
        request = logged_request(CALL_TYPES.get(str(kwargs.get("call_type")), "completion"), kwargs)
        cost = pricing.cost_of_response(request, response_obj, kwargs.get("response_cost"))
        marks = response_marks(principal.subjects[0].id, response_obj)
        command = settlement_of(
            ledger,
            principal,
            pricing.model_names(request),
            cost,
            cost.usd or 0,
            new_id(),
            marks,
            unless=marks[0] if marks else None,
        )
        ledger.worker.deliver(command, self.settings.store_timeout)

    async def async_log_success_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """`log_success_event` for asynchronous calls."""
        self.log_success_event(kwargs, response_obj, start_time, end_time)

    def log_failure_event(self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Do nothing: the gate settled a failed call when it failed."""

    async def async_log_failure_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """`log_failure_event` for asynchronous calls."""
