"""user_cost.json: LiteLLM's file, imported into the ledger once and written as a snapshot of it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import PutBudget, Read
from litellm_budget_plugin.core.litellm_record import changes, running, whole_record
from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.errors import BudgetFileError, BudgetInputError
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.users import SCOPE, Budget, Users
from litellm_budget_plugin.stores.disk import flush, sync_directory

FILE = "user_cost.json"
_WAY_OUT = "Nothing was imported. Correct the file, or move it away to start without it"

_logger = logging.getLogger("litellm_budget_plugin")


class Snapshot:
    """The file of one project: by default the one in the current working directory."""

    def __init__(self, users: Users, path: str = FILE) -> None:
        self._users = users
        self._ledger: BudgetLedger = users.ledger
        self.path = os.path.realpath(path)
        # An account, not a command's id: ids are forgotten after RETENTION, but this mark must stay.
        self._mark = Subject(FILE, _digest(self.path))

    def load(self) -> int:
        """Import the file into the ledger, unless this project has done so before. Without a file, do nothing.

        Users who already have their own budget keep it unchanged. Two processes may do this at once. Returns the number of imported
        budgets. Raises BudgetFileError, and imports nothing, if the file is not in LiteLLM's format.
        """
        if not os.path.isfile(self.path) or self.known():
            return 0
        records = self.records()
        imported = 0
        for user, record in records.items():
            budget = self._users.get_any(user)
            if not budget.own:
                fields = _imported(budget, record, self._ledger.settings.timezone)
                # Every process that imports the file uses this id, so that only the first import counts.
                try:
                    self._users.put(user, fields, f"import:{_digest(self.path, user)}")
                except BudgetInputError:
                    # Another process was first, and had found a different spend to add.
                    if not self._users.get_any(user).own:
                        raise
                    continue
                imported += 1
        self._remember()
        _logger.info("imported %d of %d budgets from %s", imported, len(records), self.path)
        return imported

    def save(self) -> None:
        """Write every user's record, atomically. Raises BudgetFileError if that fails."""
        self.load()
        self._ledger.flush()
        replace_file(self.path, self.text())
        if not self.known():
            self._remember()

    def text(self) -> str:
        """Return the text that `save` writes."""
        return json.dumps(self._users.records(), indent=4)

    def known(self) -> bool:
        """Return whether this project has imported or written the file before."""
        return bool(self._ledger.ask(Read(self._ledger.project, *self._mark)).accounts)

    def _remember(self) -> None:
        self._ledger.ask(PutBudget(new_id(), self._ledger.project, self._mark, limit=None))

    def records(self) -> dict[str, dict[str, Any]]:
        """Return the file's records, by user. Raises BudgetFileError if the file is not in LiteLLM's format."""
        return self._parse(self._read())

    def _read(self) -> Any:
        try:
            with open(self.path, encoding="utf-8") as file:
                return json.load(file)
        except OSError as error:
            raise BudgetFileError(f"{self.path} could not be read: {error}. {_WAY_OUT}") from error
        except (ValueError, RecursionError) as error:
            raise BudgetFileError(f"{self.path} is not valid JSON: {error}. {_WAY_OUT}") from error

    def _parse(self, content: Any) -> dict[str, dict[str, Any]]:
        if not isinstance(content, Mapping):
            raise BudgetFileError(f"{self.path} must hold an object with a record for each user. {_WAY_OUT}")
        records = {}
        for user, record in content.items():
            try:
                records[checked_id(user, SCOPE)] = whole_record(record)
                changes(records[user], None, "none", 0, "UTC")
            except BudgetInputError as error:
                raise BudgetFileError(f"{self.path}: user {user!r:.80}: {error}. {_WAY_OUT}") from error
        return records


def _imported(budget: Budget, record: dict[str, Any], zone: str) -> dict[str, Any]:
    """Return the fields of a `PutBudget` that imports a record. The user's spend in the ledger is added to that in the file."""
    fields = changes(record, None, "none", budget.now, zone)
    state = budget.state
    if state is None or not state.spent:
        return fields
    start, end = fields["bounds"]
    spent = dict(state.models)
    if end is None or end > budget.now:
        for model, amount in fields.get("spent", ()):
            spent[model] = min(spent.get(model, 0) + amount, MAX_NANOS)
    now_open = running(fields["window"], start, budget.now)
    return {**fields, "bounds": now_open, "spent": tuple(sorted(spent.items()))}


def replace_file(path: str, text: str) -> None:
    """Replace a file atomically, so that it survives a power cut. Raises BudgetFileError, also for a path that is no file, such as a device."""
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise BudgetFileError(f"{path} is not a file; '-' is standard output")
    try:
        _replace(path, text)
    except OSError as error:
        raise BudgetFileError(f"{path} could not be written, and is unchanged: {error}") from error


def _replace(path: str, text: str) -> None:
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)[:100]}.{new_id()}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "w", encoding="utf-8") as file:
            with suppress(FileNotFoundError):
                os.chmod(temporary, os.stat(path).st_mode & 0o7777)
            file.write(text)
            file.flush()
            flush(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    # Some file systems cannot sync directories. The rename is atomic nevertheless.
    with suppress(OSError):
        sync_directory(os.path.dirname(path))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:40]
