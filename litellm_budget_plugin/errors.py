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

# The search looks at no more members of a list, because an error can hold a whole conversation.
_MEMBERS = 100
_Error = TypeVar("_Error", bound=BaseException)


class BudgetError(Exception):
    """The base class of every error that litellm_budget_plugin raises on purpose."""


class BudgetInputError(BudgetError, ValueError):
    """An argument that cannot be accepted. The message says what was wrong, where, and what is accepted.

    `status_code` is 422, so that a Router does not retry a call with a bad user id.
    """

    status_code = 422


class BudgetSettingsError(BudgetInputError):
    """A setting that stops the start. The message names the setting and the values that it accepts."""


class BudgetFileError(BudgetError):
    """A `user_cost.json` that cannot be read or written. Nothing was changed."""


class BudgetStoreError(BudgetError):
    """The store cannot serve until a person repairs it. The message names the file or address and the remedy."""


class BudgetStoreUnavailable(BudgetStoreError):
    """The store did not answer in time. It is unknown whether anything changed; the same command may be sent again.

    `status_code` is 503, never 429: an unreachable store must not cool down a Router's deployments.
    """

    status_code = 503


class IncompatibleLiteLLMError(BudgetError):
    """The installed LiteLLM lacks or has changed something that the callback relies on. Nothing was patched."""


class BudgetRefused(BudgetError):
    """A call that was refused before it left the process.

    `status_code` is 422 whatever LiteLLM's configuration is. The codes 402, 403 and 429 make a Router retry the call or cool
    down its deployments, which harms other users.
    """

    status_code = 422
    suggestion: str | None = None
    """One sentence that says what the caller or the operator can do; None if there is no advice."""
    # LiteLLM's Router does not count an exception with this attribute against the deployment.
    _litellm_advisor_orchestration_failure = True

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.suggestion = suggestion


class BudgetPriceUnknown(BudgetRefused):
    """No price is known for the model, and a limit applies. The message says how to give a price."""


class BudgetUserMissing(BudgetRefused):
    """The call names no user, and ON_MISSING_USER is `reject`. The message lists the places where a user can be named."""


def refusal_in(error: BaseException | None) -> BudgetRefused | None:
    """Return the refusal that `error` is or was caused by; None if there is none.

    Frameworks wrap refusals in their own errors. This searches `error` itself, its causes and contexts, the members of
    exception groups, and every exception that one of these keeps as an argument or attribute, nearest first.
    """
    return first_in(error, (BudgetRefused,))


def first_in(error: BaseException | None, kinds: tuple[type[_Error], ...]) -> _Error | None:
    """Return the nearest error of one of these kinds that `error` is or was caused by; it is found like in `refusal_in`."""
    waiting: deque[Any] = deque([error])
    seen: set[int] = set()
    while waiting:
        found = waiting.popleft()
        # The type, not the object: an error can hold a proxy of an object that no longer exists.
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
    # The name in version 0.1.0. The next version removes it.
    if name == "LiteLLMChanged":
        return IncompatibleLiteLLMError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
