"""BudgetManager's `user_dict` and the records in it: dictionaries that write their changes to the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from litellm_budget_plugin.core.litellm_record import assigned, whole_record
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.users import Budget, Users


class _Written(dict[str, Any]):
    """A dictionary that changes only through `_write` and `_erase`. Copies of it, also deep ones, are plain dictionaries."""

    def _write(self, given: Mapping[Any, Any]) -> None:
        raise NotImplementedError

    def _erase(self, key: Any) -> None:
        raise NotImplementedError

    def plain(self) -> dict[str, Any]:
        """Return a copy as a plain dictionary."""
        return {key: value.plain() if isinstance(value, _Written) else value for key, value in self.items()}

    def __setitem__(self, key: Any, value: Any) -> None:
        self._write({key: value})

    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        self._erase(key)

    def update(self, *given: Any, **more: Any) -> None:
        self._write(dict(*given, **more))

    def __ior__(self, given: Any) -> Any:  # type: ignore[misc]  # `|` returns a plain dictionary
        self.update(given)
        return self

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: Any, *default: Any) -> Any:
        if key not in self:
            if default:
                return default[0]
            raise KeyError(key)
        value = self[key]
        value = value.plain() if isinstance(value, _Written) else value
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        for key in reversed(list(self)):
            return key, self.pop(key)
        raise KeyError("popitem(): dictionary is empty")

    def clear(self) -> None:
        for key in list(self):
            del self[key]

    def copy(self) -> dict[str, Any]:
        return self.plain()

    def __reduce__(self) -> Any:
        return dict, (self.plain(),)


class Record(_Written):
    """One user's record as the ledger had it when it was read. Writing a key changes the ledger and reads the record again.

    Only the written keys change in the ledger, so that an old record does not undo anybody's spend.
    """

    def __init__(self, users: Users, budget: Budget) -> None:
        super().__init__()
        self._users = users
        self._user = budget.user
        self._show(budget.record())

    def models(self) -> dict[str, float]:
        """Return the spend by model as the ledger has it now."""
        models: dict[str, float] = self._users.get(self._user).record().get("model_cost", {})
        return models

    def _show(self, record: Mapping[str, Any]) -> None:
        dict.clear(self)
        for key, value in record.items():
            self._show_one(key, value)

    def _show_one(self, key: str, value: Any) -> None:
        dict.__setitem__(self, key, ModelCost(self, value) if key == "model_cost" else value)

    def _write(self, given: Mapping[Any, Any]) -> None:
        self._show(self._users.change(self._user, given).record())
        for key, value in given.items():
            # The ledger does not return every key, such as a created_at without a window or an empty model_cost; show it nevertheless.
            if key not in self and key not in ("duration", "window"):
                self._show_one(key, value)

    def _erase(self, key: Any) -> None:
        if key not in ("duration", "window"):
            raise BudgetInputError(f"{key!r} cannot be taken out of a user's record; delete the user, or assign to it")
        self._write({"duration": None})

    def clear(self) -> None:
        """Raise BudgetInputError, because a budget cannot be empty."""
        raise BudgetInputError("a user's record cannot be emptied; delete the user, or assign another record")


class ModelCost(_Written):
    """One user's spend by model. The sum is the user's current cost, so a change here changes both."""

    def __init__(self, record: Record, models: Mapping[str, float]) -> None:
        super().__init__()
        dict.update(self, models)
        self._record = record

    def _write(self, given: Mapping[Any, Any]) -> None:
        models = self._record.models()
        for model, spent in given.items():
            models = assigned(model, spent, models)
        self._replace(models)

    def _erase(self, key: Any) -> None:
        self._replace({model: spent for model, spent in self._record.models().items() if model != key})

    def _replace(self, models: Mapping[Any, Any]) -> None:
        self._record["model_cost"] = models
        dict.clear(self)
        dict.update(self, self._record["model_cost"])


class UserDict(_Written):
    """LiteLLM's `user_dict`: every user's record, by user. Nothing is cached; each access asks the ledger.

    Iteration, `len`, `==` and JSON show the users with their own budget and those with spend under the default limit. With a
    default limit every user has a budget, so `in`, `[]` and `get` accept every user, like `is_valid_user`. `keys`, `values` and
    `items` are snapshots. Unknown users raise KeyError, bad values raise BudgetInputError.
    """

    def __init__(self, users: Users) -> None:
        super().__init__()
        self._users = users
        # json's C encoder checks whether the dictionary's own storage is empty before it calls items(). A key that is no
        # string also makes encoders that read only the storage raise an error instead of writing nothing.
        storage: dict[Any, Any] = self
        dict.__setitem__(storage, _ELSEWHERE, None)

    def __getitem__(self, user: Any) -> Record:
        return Record(self._users, self._users.get(user))

    def __contains__(self, user: Any) -> bool:
        try:
            self._users.get(user)
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return (budget.user for budget in self._users.each())

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self))

    def __len__(self) -> int:
        return sum(1 for _ in self._users.each())

    def get(self, user: Any, default: Any = None) -> Any:
        """Return the record of a user who has a budget, else `default`."""
        try:
            return self[user]
        except KeyError:
            return default

    def keys(self) -> Any:
        """Return the listed users."""
        return dict.fromkeys(self).keys()

    def values(self) -> Any:
        """Return the records of the listed users."""
        return self._views().values()

    def items(self) -> Any:
        """Return pairs of each listed user and the user's record."""
        return self._views().items()

    def _views(self) -> dict[str, Record]:
        return {budget.user: Record(self._users, budget) for budget in self._users.each()}

    def plain(self) -> dict[str, Any]:
        """Return a copy as a plain dictionary."""
        return self._users.records()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and self.plain() == (other.plain() if isinstance(other, UserDict) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]  # like every dictionary

    def __repr__(self) -> str:
        return repr(self.plain())

    def __or__(self, other: Any) -> Any:
        return self.plain() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.plain()

    def _write(self, given: Mapping[Any, Any]) -> None:
        self._users.assign(given)

    def _erase(self, key: Any) -> None:
        self._users.drop([self._users.get_any(key).user])

    def clear(self) -> None:
        """Forget every listed user."""
        self._users.drop(self)

    def replace(self, records: Any) -> None:
        """Replace all users by these. Raises BudgetInputError for a bad record, before anything is changed."""
        if records is self:
            return
        if not isinstance(records, Mapping):
            raise BudgetInputError(f"user_dict must be a dictionary of records by user, got {records!r:.80}")
        gone = self._others(records)
        self._users.assign({user: whole_record(record) for user, record in records.items()})
        self._users.drop(gone)

    def _others(self, records: Mapping[Any, Any]) -> Iterable[str]:
        kept = {str(user) for user in records}
        return [user for user in self if user not in kept]


_ELSEWHERE = object()
