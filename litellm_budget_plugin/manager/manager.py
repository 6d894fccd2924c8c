"""BudgetManager: LiteLLM's class, on the shared ledger."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin.core.litellm_record import micros, opening
from litellm_budget_plugin.core.money import charge_nanos, usd_float
from litellm_budget_plugin.errors import BudgetInputError, BudgetSettingsError
from litellm_budget_plugin.manager.budgets import Budgets
from litellm_budget_plugin.manager.charging import charge_for_response, charge_for_texts, settle
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.records import Record, UserDict
from litellm_budget_plugin.manager.snapshot import Snapshot
from litellm_budget_plugin.manager.unregistered import warn_if_unregistered
from litellm_budget_plugin.manager.users import Users
from litellm_budget_plugin.settings import BudgetSettings

_logger = logging.getLogger("litellm_budget_plugin")

_WINDOWS = {None: "none", "daily": "1d", "weekly": "7d", "monthly": "28d", "yearly": "365d"}


class BudgetManager(Budgets):
    """Budgets by user, with LiteLLM's methods, on the ledger that it shares with `BudgetCallback`.

    It differs from `litellm.BudgetManager` only as docs/migrate-from-litellm.md describes. Every method asks the ledger, so that all
    managers, threads and processes see the same state. Money is in US dollars, times are in seconds since 1970.

    To check before a call and update after it loses no charge, but can overspend, because calls run in parallel. Only the callback
    prevents that. Methods raise KeyError for users without a budget, BudgetInputError (a ValueError) for invalid arguments, and
    BudgetStoreError if the ledger cannot answer.
    """

    _ledger: BudgetLedger

    def __init__(
        self,
        project_name: str,
        client_type: str = "local",
        api_base: str | None = None,
        headers: dict[str, str] | None = None,
        type: str | None = None,
        *,
        settings: BudgetSettings | None = None,
    ) -> None:
        """Open the ledger. If it is local, import user_cost.json from the working directory, unless the project has imported it before.

        `client_type` "hosted" and "client" keep budgets at an endpoint, `api_base`, which gets `headers` (a key as
        {"Authorization": "Bearer lbk_..."}). `type` is the other spelling of `client_type` in LiteLLM's documentation. Values that are
        not given here come from `settings`, else from the environment. Raises BudgetSettingsError, BudgetFileError or BudgetStoreError.
        """
        if type is not None and client_type not in ("local", type):
            raise BudgetSettingsError(
                f"client_type={client_type!r} and type={type!r} are one argument: give one of them"
            )
        values = dict(settings.model_dump()) if settings is not None else {}
        if (type or client_type) != "local":
            values["client_type"] = type or client_type
            # LiteLLM's manager reads both only for these types.
            values.update({"api_base": api_base} if api_base else {}, **({"headers": headers} if headers else {}))
        checked = BudgetSettings(**{**values, "project": project_name})
        self.client_type: str = checked.client_type
        self.project_name = project_name
        self.api_base = (
            api_base or (checked.api_base and checked.api_base.get_secret_value()) or "https://api.litellm.ai"
        )
        self.headers = headers or {"Content-Type": "application/json"}
        super().__init__(BudgetLedger(checked))
        self._users = Users(self._ledger)
        self._user_dict = UserDict(self._users)
        self._warned = False
        try:
            self.load_data()
        except BaseException:
            self._ledger.close()
            raise

    @property
    def user_dict(self) -> UserDict:
        """Every user's record, live; see `UserDict`. An assigned dictionary replaces all users."""
        return self._user_dict

    @user_dict.setter
    def user_dict(self, records: Mapping[str, Any]) -> None:
        self._user_dict.replace(records)

    def create_budget(
        self, total_budget: float, user: str, duration: str | None = None, created_at: float | None = None
    ) -> Record:
        """Give `user` a budget, once or per `duration` ("daily", "weekly", "monthly", "yearly"). Returns the record.

        An existing user keeps the spend and, with the same duration, the current window. A new window begins at `created_at`, by
        default now.
        """
        if duration not in _WINDOWS:
            raise BudgetInputError("""duration needs to be one of ["daily", "weekly", "monthly", "yearly"]""")
        limit = charge_nanos(total_budget, "total_budget")
        created = None if created_at is None else micros(created_at, "created_at")
        window, budget = _WINDOWS[duration], self._users.get_any(user)
        opened = opening(budget.state, window, created, budget.now)
        self._users.put(budget.user, {"limit": limit, "window": window, **opened})
        return self._record(budget.user)

    def projected_cost(self, model: str, messages: list[Any], user: str) -> float:
        """Return the spend of `user` plus the input cost of sending `messages` to `model`."""
        import litellm

        text = "".join(message["content"] for message in messages)
        prompt_tokens = litellm.token_counter(model=model, text=text)
        prompt_cost, _ = litellm.cost_per_token(model=model, prompt_tokens=prompt_tokens, completion_tokens=0)
        projected: float = prompt_cost + self.get_current_cost(user)
        return projected

    def get_total_budget(self, user: str) -> float:
        """Return the limit of `user`: the user's own or the default."""
        total: float = self._users.get(user).record()["total_budget"]
        return total

    def update_cost(
        self,
        user: str,
        completion_obj: Any = None,
        model: str | None = None,
        input_text: str | None = None,
        output_text: str | None = None,
    ) -> dict[str, Any]:
        """Charge `user` for a response, or for the answer `output_text` of `model` to `input_text`.

        A response that the callback has already charged to this user changes nothing; the first one is logged as a WARNING. Returns
        {"user": record}. Raises ValueError without a response and texts, and LiteLLM's errors for unknown prices.
        """
        warn_if_unregistered("BudgetManager.update_cost")
        if model and input_text and output_text:
            charge = charge_for_texts(model, input_text, output_text)
        elif completion_obj:
            charge = charge_for_response(completion_obj)
        else:
            raise BudgetInputError(
                "Either a chat completion object or the text response needs to be passed in. "
                "Learn more - https://docs.litellm.ai/docs/budget_manager"
            )
        # `get` settles waiting charges, so that a call that has just ended has left its mark.
        user = self._users.get(user).user
        if not settle(self._ledger, user, charge):
            self._warn_once(user)
        return {"user": self._record(user)}

    def get_current_cost(self, user: str) -> float:
        """Return the spend of `user` in the current window, or in total if the budget has no window."""
        state = self._users.get(user).state
        return usd_float(state.spent) if state is not None else 0

    def get_model_cost(self, user: str) -> Any:
        """Return the spend of `user` by model. Before the first spend it is 0, not an empty dictionary, as in LiteLLM."""
        return self._users.get(user).record().get("model_cost", 0)

    def is_valid_user(self, user: str) -> bool:
        """Return whether `user` has a limit of their own or by default."""
        return user in self._user_dict

    def get_users(self) -> list[str]:
        """Return the users with their own budget and those with spend under the default limit, sorted."""
        return list(self._user_dict)

    def reset_cost(self, user: str) -> dict[str, Any]:
        """Set the spend of `user` to zero. Returns {"user": record}."""
        self._users.reset(self._users.get(user).user)
        return {"user": self._record(user)}

    def reset_on_duration(self, user: str) -> None:
        """Open the present window, with no spend in it, if the recorded one has ended.

        Calling this is never necessary, because windows roll by themselves. Raises KeyError if the budget has no duration.
        """
        budget = self._users.get(user)
        for key in ("last_updated_at", "duration"):
            budget.record()[key]
        self._users.roll(budget)

    def update_budget_all_users(self) -> None:
        """Do what `reset_on_duration` does, for every user whose budget has a duration."""
        for budget in self._users.each():
            self._users.roll(budget)

    def load_data(self) -> None:
        """Import user_cost.json from the working directory, once for each file and project; see `Snapshot.load`. With an endpoint this
        does nothing, because every method reads the endpoint.
        """
        if self.client_type == "local" and not self._ledger.of_a_test:
            Snapshot(self._users).load()

    def save_data(self) -> dict[str, str]:
        """Write user_cost.json in the working directory, in LiteLLM's format and atomically. With an endpoint, return when the endpoint has
        every change.
        """
        if self.client_type == "local":
            Snapshot(self._users).save()
        else:
            self._ledger.flush()
        return {"status": "success"}

    def close(self) -> None:
        """Settle waiting charges and close the ledger. May be called twice."""
        self._ledger.close()

    def _record(self, user: str) -> Record:
        return Record(self._users, self._users.get(user))

    def _warn_once(self, user: str) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(
                "update_cost changed nothing: the callback has already charged this response to user %r. The call of "
                "update_cost can be removed; this is logged once",
                user,
            )
