"""BudgetManager's `user_dict` and the records in it: dictionaries whose changes go to the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from litellm_budget_plugin.core.litellm_record import assigned, whole_record
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.users import Budget, Users


class _Written(dict[str, Any]):
    """A dictionary that is changed through `_write` and `_erase` only. Copies of it, deep ones too, are plain."""

    def _write(self, given: Mapping[Any, Any]) -> None:
        raise NotImplementedError

    def _erase(self, key: Any) -> None:
        raise NotImplementedError

    def plain(self) -> dict[str, Any]:
        """A plain copy."""
        return {key: value.plain() if isinstance(value, _Written) else value for key, value in self.items()}

    def __setitem__(self, key: Any, value: Any) -> None:
        self._write({key: value})

    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        self._erase(key)

    def update(self, *given: Any, **more: Any) -> None:
        self._write(dict(*given, **more))

    def __ior__(self, given: Any) -> Any:  # type: ignore[misc]  # what `|` gives is plain
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
    """One user's record as the ledger had it when it was asked for; writing a key changes the ledger and reads it again.

    Only the keys that are written change, so that a record kept for long does not take anybody's spend back.
    """

    def __init__(self, users: Users, budget: Budget) -> None:
        super().__init__()
        self._users = users
        self._user = budget.user
        self._show(budget.record())

    def models(self) -> dict[str, float]:
        """The breakdown as the ledger has it now."""
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
            # The ledger does not return every key (a created_at without a window, an empty model_cost); show it here nevertheless.
            if key not in self and key not in ("duration", "window"):
                self._show_one(key, value)

    def _erase(self, key: Any) -> None:
        if key not in ("duration", "window"):
            raise BudgetInputError(f"{key!r} cannot be taken out of a user's record; delete the user, or assign to it")
        self._write({"duration": None})

    def clear(self) -> None:
        """Refused: a budget cannot be empty."""
        raise BudgetInputError("a user's record cannot be emptied; delete the user, or assign another record")


class ModelCost(_Written):
    """What one user spent by model. The sum is the user's current cost: writing here changes both."""

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
    """Every user's record, by user: LiteLLM's `user_dict`, live. Nothing is cached; each access asks the ledger.

    Iteration, `len`, `==` and JSON know the users with a budget of their own and those who spent something under the default
    limit. With a default limit every user has a budget, so `in`, `[]` and `get` find everybody, like `is_valid_user`.
    `keys`, `values` and `items` are taken at that moment. Unknown users raise KeyError, bad values BudgetInputError.
    """

    def __init__(self, users: Users) -> None:
        super().__init__()
        self._users = users
        # json's C encoder asks a dictionary's own storage whether it is empty before it asks for items(). A key that is
        # no text also makes encoders that read only the storage fail loudly, rather than write nothing.
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
        """The record of a user who has a budget, else `default`."""
        try:
            return self[user]
        except KeyError:
            return default

    def keys(self) -> Any:
        """The listed users."""
        return dict.fromkeys(self).keys()

    def values(self) -> Any:
        """Their records."""
        return self._views().values()

    def items(self) -> Any:
        """Both, in pairs."""
        return self._views().items()

    def _views(self) -> dict[str, Record]:
        return {budget.user: Record(self._users, budget) for budget in self._users.each()}

    def plain(self) -> dict[str, Any]:
        """A plain copy."""
        return self._users.records()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and self.plain() == (other.plain() if isinstance(other, UserDict) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]  # as every dictionary

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
        """Make these the only users. Bad records raise BudgetInputError before anything is changed."""
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
