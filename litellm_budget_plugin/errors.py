"""Every error that this package raises on purpose.

    BudgetError
    ├── BudgetInputError (ValueError)         an argument, id, amount or window that cannot be accepted
    │   └── BudgetSettingsError               a setting that stops the start
    ├── BudgetFileError                       a user_cost.json that cannot be read or written
    ├── BudgetStoreError                      the store answered, but cannot serve: corrupt, read-only, newer schema
    │   └── BudgetStoreUnavailable            the store did not answer in time; asking again later can help
    ├── IncompatibleLiteLLMError              the installed LiteLLM lacks what the callback relies on
    └── BudgetRefused                         a call was refused before it left the process
        ├── BudgetExceeded                    by a budget (also a litellm.BudgetExceededError)
        ├── BudgetPriceUnknown                its model has no known price, and a limit applies
        └── BudgetUserMissing                 it names no user, and the settings ask for one

`BudgetExceeded` lives in `litellm_budget_plugin.hooks.exceptions`, because its second parent needs LiteLLM; this
module, like core, stores and settings, does not import LiteLLM.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

# How many members of a list are looked at: an error can keep a whole conversation.
_MEMBERS = 100
_Error = TypeVar("_Error", bound=BaseException)


class BudgetError(Exception):
    """The root of every error raised on purpose by litellm_budget_plugin."""


class BudgetInputError(BudgetError, ValueError):
    """An argument that cannot be accepted. The message says what was wrong, where, and what is accepted.

    `status_code` is 422, so that a Router does not try a call with a bad user id again.
    """

    status_code = 422


class BudgetSettingsError(BudgetInputError):
    """A setting that stops the start. The message names the setting and what it may be."""


class BudgetFileError(BudgetError):
    """A `user_cost.json` that cannot be read or written. Nothing was changed."""


class BudgetStoreError(BudgetError):
    """The store cannot serve until a person mends it. The message names the file or address and the way out."""


class BudgetStoreUnavailable(BudgetStoreError):
    """The store did not answer in time. Nothing is known to have changed; the same command may be sent again.

    `status_code` is 503, never 429: a store that is away must not cool down a Router's deployments.
    """

    status_code = 503


class IncompatibleLiteLLMError(BudgetError):
    """The installed LiteLLM lacks something that the callback relies on, or has changed it. Nothing was patched."""


class BudgetRefused(BudgetError):
    """A call that was refused before it left the process.

    `status_code` is 422 whatever LiteLLM is configured to: the codes 402, 403 and 429 make a Router retry the call or
    cool down its deployments, and so harm other users.
    """

    status_code = 422
    suggestion: str | None = None
    """What the caller or the operator can do about it, as one sentence; None where there is nothing to say."""
    # LiteLLM's Router does not count an exception with this mark against the deployment.
    _litellm_advisor_orchestration_failure = True

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.suggestion = suggestion


class BudgetPriceUnknown(BudgetRefused):
    """No price is known for the model, and a limit applies. The message says how to give a price."""


class BudgetUserMissing(BudgetRefused):
    """The call names no user, and ON_MISSING_USER is `reject`. The message says where a user is looked for."""


def refusal_in(error: BaseException | None) -> BudgetRefused | None:
    """The refusal that `error` is or was made of, None if there is none.

    Frameworks put errors of their own around a refusal. It is looked for in `error` itself, its causes and contexts, the
    members of exception groups, and every exception that one of these keeps as an argument or attribute, nearest first.
    """
    return first_in(error, (BudgetRefused,))


def first_in(error: BaseException | None, kinds: tuple[type[_Error], ...]) -> _Error | None:
    """The nearest error of one of these kinds that `error` is or was made of, by the search of `refusal_in`."""
    waiting: deque[Any] = deque([error])
    seen: set[int] = set()
    while waiting:
        found = waiting.popleft()
        # Asked of the type: what an error keeps can be a proxy of something that is gone.
        kind = type(found)
        if issubclass(kind, kinds):
            wanted: _Error = found
            return wanted
        if id(found) in seen:
            continue
        seen.add(id(found))
        if issubclass(kind, BaseException):
            waiting += (found.__cause__, found.__context__, getattr(found, "exceptions", None), found.args)
            waiting += getattr(found, "__dict__", {}).values()
        elif issubclass(kind, (list, tuple)):
            waiting += found[:_MEMBERS]
        elif issubclass(kind, dict):
            waiting += list(found.values())[:_MEMBERS]
    return None


def __getattr__(name: str) -> Any:
    # The name of version 0.1.0, which goes with the next one.
    if name == "LiteLLMChanged":
        return IncompatibleLiteLLMError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
