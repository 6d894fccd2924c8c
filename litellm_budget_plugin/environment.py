"""Changes to this process's environment, which a program that `litellm-budget run` starts inherits."""

from __future__ import annotations

import os

from dotenv import dotenv_values

from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.sharing import journal_directory, store_key
from litellm_budget_plugin.settings import PREFIX, BudgetSettings

STARTUP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "startup")
"""The directory with our sitecustomize."""


def hook_into_python() -> None:
    """Make every Python process that inherits this environment import our sitecustomize first. Raises BudgetInputError if PYTHONPATH
    cannot name the package's directory.
    """
    if os.pathsep in STARTUP:
        raise BudgetInputError(
            f"PYTHONPATH cannot name {STARTUP}: install the package in a directory without {os.pathsep!r}"
        )
    given = os.environ.get("PYTHONPATH")
    # An empty entry means the working directory; an empty PYTHONPATH means no entry.
    others = [entry for entry in given.split(os.pathsep) if entry != STARTUP] if given else []
    os.environ["PYTHONPATH"] = os.pathsep.join([STARTUP, *others])


def put_settings(**values: str) -> None:
    """Set settings, by their names in lower case, in place of those in the environment. An empty value counts as not set."""
    names = {PREFIX + name.upper(): value for name, value in values.items()}
    for given in [given for given in os.environ if given.upper() in names]:
        del os.environ[given]
    os.environ.update(names)


def put_dotenv() -> None:
    """Copy the settings of this directory's .env file into the environment, because the program may change its directory."""
    given = {name.upper() for name, value in os.environ.items() if value}
    for name, value in dotenv_values(".env").items():
        if name.upper().startswith(PREFIX) and name.upper() not in given and value:
            put_settings(**{name.upper().removeprefix(PREFIX).lower(): value})


def put_absolute_paths(settings: BudgetSettings) -> None:
    """Make the paths in settings absolute, because the program may change its directory."""
    key = store_key(settings.url)
    if key.startswith("sqlite:"):
        put_settings(store_url=key)
    if settings.file is not None:
        put_settings(file=os.path.abspath(settings.file))
    directory = journal_directory(key, settings.journal)
    if directory is not None:
        put_settings(journal=directory)
