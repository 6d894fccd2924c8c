"""BudgetManager: LiteLLM's class over the shared ledger."""

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
    """Budgets by user, with LiteLLM's methods, over the ledger that `BudgetCallback` shares.

    Differs from `litellm.BudgetManager` only where docs/migrate-from-litellm.md says so. Every method asks the ledger, so
    that several managers, threads and processes see one truth. Money is in US dollars, times in seconds since 1970.

    Checking before a call and updating after it loses nothing but can overspend, for calls run side by side; the
    callback is what prevents that. Methods raise KeyError for users without a budget, BudgetInputError (a ValueError) for
    what cannot be accepted, and BudgetStoreError if the ledger cannot answer.
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
        """Open the ledger and, for a local one, import user_cost.json if the working directory has one that is new to the project.

        `client_type` "hosted" and "client" keep budgets at an endpoint, `api_base`, to which `headers` are sent (a key as
        {"Authorization": "Bearer lbk_..."}). `type` is the other spelling of `client_type` in LiteLLM's documentation. What is not given here comes from
        `settings`, else from the environment. Raises BudgetSettingsError, BudgetFileError or BudgetStoreError.
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
        """Every user's record, live; see `UserDict`. Assigning a dictionary makes its users the only ones."""
        return self._user_dict

    @user_dict.setter
    def user_dict(self, records: Mapping[str, Any]) -> None:
        self._user_dict.replace(records)

    def create_budget(
        self, total_budget: float, user: str, duration: str | None = None, created_at: float | None = None
    ) -> Record:
        """Give `user` a budget, once or per `duration` ("daily", "weekly", "monthly", "yearly"). Returns the record.

        An existing user keeps what was spent, and with the same duration the window that runs. A new window begins at
        `created_at`, by default now.
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
        """What `user` has spent plus the input cost of sending `messages` to `model`."""
        import litellm

        text = "".join(message["content"] for message in messages)
        prompt_tokens = litellm.token_counter(model=model, text=text)
        prompt_cost, _ = litellm.cost_per_token(model=model, prompt_tokens=prompt_tokens, completion_tokens=0)
        projected: float = prompt_cost + self.get_current_cost(user)
        return projected

    def get_total_budget(self, user: str) -> float:
        """The limit of `user`, created or by default."""
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
        """Charge `user` for a response, or for `output_text` that `model` answered to `input_text`.

        A response that the callback has charged to this user already changes nothing, and is warned of once. Returns
        {"user": record}. Raises ValueError without a response and texts, and what LiteLLM raises for unknown prices.
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
        # `get` settles what waits, so that a call that has just ended has left its mark.
        user = self._users.get(user).user
        if not settle(self._ledger, user, charge):
            self._warn_once(user)
        return {"user": self._record(user)}

    def get_current_cost(self, user: str) -> float:
        """What `user` spent in the window that runs, or altogether if the budget has none."""
        state = self._users.get(user).state
        return usd_float(state.spent) if state is not None else 0

    def get_model_cost(self, user: str) -> Any:
        """What `user` spent by model; 0, not an empty dictionary, before the first spend, as in LiteLLM."""
        return self._users.get(user).record().get("model_cost", 0)

    def is_valid_user(self, user: str) -> bool:
        """Whether `user` has a limit, created or by default."""
        return user in self._user_dict

    def get_users(self) -> list[str]:
        """Users with a budget of their own, and those who spent something under the default limit, in order."""
        return list(self._user_dict)

    def reset_cost(self, user: str) -> dict[str, Any]:
        """Set what `user` spent to zero. Returns {"user": record}."""
        self._users.reset(self._users.get(user).user)
        return {"user": self._record(user)}

    def reset_on_duration(self, user: str) -> None:
        """Open the window that runs now, if the recorded one is over: nothing is spent in it.

        Calling this is never necessary: windows roll by themselves. KeyError if the budget has no duration.
        """
        budget = self._users.get(user)
        for key in ("last_updated_at", "duration"):
            budget.record()[key]
        self._users.roll(budget)

    def update_budget_all_users(self) -> None:
        """`reset_on_duration` for every user whose budget has a duration."""
        for budget in self._users.each():
            self._users.roll(budget)

    def load_data(self) -> None:
        """Import user_cost.json from the working directory, once for each file and project; see `Snapshot.load`. With an
        endpoint there is nothing to import: every method reads it.
        """
        if self.client_type == "local" and not self._ledger.of_a_test:
            Snapshot(self._users).load()

    def save_data(self) -> dict[str, str]:
        """Write user_cost.json in the working directory, in LiteLLM's format, whole or not at all. With an endpoint, return
        when it has every change.
        """
        if self.client_type == "local":
            Snapshot(self._users).save()
        else:
            self._ledger.flush()
        return {"status": "success"}

    def close(self) -> None:
        """Settle what waits and close the ledger. May be called twice."""
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
