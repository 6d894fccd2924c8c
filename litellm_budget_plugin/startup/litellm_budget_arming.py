"""Arm budgets after LiteLLM has been executed, or end the process if that fails.

Like sitecustomize.py beside it, this also runs in interpreters that do not have this package.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

EXIT_CODE = 3
"""The exit code of a process that cannot enforce budgets. gunicorn does not restart a worker that ends with it before
it serves.
"""


class BudgetStartError(SystemExit):
    """Budgets cannot be enforced, and ON_START_ERROR is `stop`. `except ImportError` and `except Exception` do not
    catch it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = EXIT_CODE


class ArmingLoader:
    """LiteLLM's own loader, which also arms budgets."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what LiteLLM's loader creates."""
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        """Execute LiteLLM, then arm budgets."""
        # LiteLLM reads its own files through its loader, and must find its original one.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        arm()


_failed = False
_told = False


def arm() -> None:
    """Open a BudgetCallback from the environment, unless one was opened here before.

    If that fails, raises BudgetStartError in the main thread and ends the process in any other thread. With
    ON_START_ERROR=warn it logs one ERROR instead.
    """
    global _failed
    try:
        from litellm_budget_plugin.hooks.automatic import arm_automatic

        arm_automatic()
    except Exception as error:  # noqa: BLE001  # whatever the error is, calls must not go out
        _fail(error)
    else:
        _failed = False


def _fail(error: Exception) -> None:
    global _failed, _told
    told, _told = _told, True
    reason = _reason(error)
    if _may_go_on():
        if not told:
            import logging

            logging.getLogger("litellm_budget_plugin").error(
                "budgets are not enforced in this process, all calls go out (LITELLM_BUDGET_ON_START_ERROR=warn): %s",
                reason,
            )
        return
    if not _failed:
        # Registered before LiteLLM's own handler, which imports it again.
        atexit.register(_exit_as_failed)
    _failed = True
    message = f"litellm-budget: budgets cannot be enforced, so this process ends (LITELLM_BUDGET_ON_START_ERROR=stop): {reason}"
    if sys.stderr is not None and not told:
        sys.stderr.write(message + "\n")
    if threading.current_thread() is threading.main_thread():
        raise BudgetStartError(message)
    # In another thread the exception would end only that thread.
    _exit_as_failed()


def _reason(error: Exception) -> str:
    if type(error).__module__ == "litellm_budget_plugin.errors":
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("litellm_budget_plugin"):
        return f"{sys.executable} has no litellm-budget-plugin, or an older one"
    if isinstance(error, ImportError):
        place = getattr(sys.modules.get("litellm"), "__file__", None)
        return f"the LiteLLM at {place} lacks what budgets rely on: {error}"
    return f"{type(error).__name__}: {error}"


def _may_go_on() -> bool:
    try:
        from litellm_budget_plugin.settings import on_start_error
    except ImportError:
        return os.environ.get("LITELLM_BUDGET_ON_START_ERROR") == "warn"
    return on_start_error() == "warn"


def _exit_as_failed() -> None:
    """End the process with its exit code even if other code has caught its BudgetStartError."""
    if not _failed:
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(EXIT_CODE)
