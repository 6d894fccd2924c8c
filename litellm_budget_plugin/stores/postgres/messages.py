"""Commands as the server-side functions take them, and their replies. The fields are described in the SQL files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

# Five times as fast as the standard library's on these few bytes, and here with pydantic anyway.
from pydantic_core import from_json, to_json

from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.accounts import (
    Amounts,
    Default,
    Ref,
    Subject,
    Usage,
    UsageKey,
    alias_mark,
    command_mark,
)
from litellm_budget_plugin.core.commands import (
    KEEP,
    Accounts,
    AccountState,
    Command,
    DropBudget,
    Granted,
    PutBudget,
    Read,
    ReadUsage,
    Release,
    Renew,
    Reply,
    Reserve,
    Reset,
    Roll,
    Settle,
    Settled,
    Sweep,
    Swept,
    UsageRows,
)
from litellm_budget_plugin.core.names import clean_label

_LONGEST_ID = 375
"""Characters: 1,500 bytes at most, so that an id and a project's name fit on a page of an index (2,704 bytes)."""

Fields = dict[str, Any]


def stored_id(text: str) -> str:
    """The id under which a hold or a mark is kept: `text`, or for one that no index takes, its digest."""
    return text if len(text) <= _LONGEST_ID else f"sha256:{sha256(text.encode()).hexdigest()}"


def _subjects(
    subjects: tuple[Subject, ...], models: tuple[str, ...], defaults: tuple[Default, ...]
) -> list[tuple[str, str, Fields, int]]:
    """The subjects in order, each with the defaults that can apply to it, under the keys of their accounts."""
    found = []
    for scope, name in sorted(set(subjects)) if len(subjects) > 1 else subjects:
        applying = {
            f"{unit} {window} {model}": (model, window, unit, limit, carry_over)
            for its_scope, window, limit, model, unit, carry_over in defaults
            if its_scope == scope and (not model or model in models)
        }
        found.append((scope, name, applying, len(applying)))
    return found


def _rolls(rolls: tuple[Roll, ...]) -> list[Roll]:
    """Those of accounts that can be there: PostgreSQL keeps no text with a NUL in it."""
    return [roll for roll in rolls if "\0" not in "".join(roll.ref)]


def _reserve(command: Reserve) -> Fields:
    models = command.models
    message: Fields = {
        "hold": stored_id(command.hold),
        "project": command.project,
        "subjects": _subjects(command.subjects, models, command.defaults),
        "payers": tuple(dict.fromkeys(command.subjects)),
        "models": models,
        "label": clean_label(models[0]) if models else "",
        "want": command.want,
        "floor": command.floor,
        "expires_after": command.expires_after,
    }
    if command.at_least is not None:
        message["at_least"] = command.at_least
    if command.replaces is not None:
        message["replaces"] = stored_id(command.replaces)
    if command.cheap:
        message["cheap"] = True
    if command.patient:
        message["patient"] = True
    if command.rolls:
        message["rolls"] = _rolls(command.rolls)
    return message


def _settle(command: Settle) -> Fields:
    message: Fields = {
        "hold": stored_id(command.hold),
        "project": command.project,
        "subjects": _subjects(command.subjects, command.models, command.defaults),
        "payers": tuple(dict.fromkeys(command.subjects)),
        "models": command.models,
        "label": clean_label(command.model),
        "cost": command.cost,
        "calls": command.calls,
        "input_tokens": command.input_tokens,
        "output_tokens": command.output_tokens,
    }
    if command.parent:
        message["parent"] = stored_id(command.parent)
    if command.aliases:
        message["aliases"] = sorted({stored_id(alias_mark(alias)) for alias in command.aliases})
    if command.unless:
        message["unless"] = stored_id(alias_mark(command.unless))
    if command.thresholds:
        message["thresholds"] = sorted(command.thresholds)
    if command.at is not None:
        message["at"] = command.at
    if command.rolls:
        message["rolls"] = _rolls(command.rolls)
    return message


def _renew(command: Renew) -> Fields:
    holds = [stored_id(hold) for hold in command.holds]
    return {"holds": holds, "project": command.project, "expires_after": command.expires_after}


def _given(command: Any) -> Fields:
    """The fields that are to change something, by their own names."""
    message = {field.name: getattr(command, field.name) for field in dataclasses.fields(command) if field.name != "now"}
    return {name: value for name, value in message.items() if value is not KEEP}


def _put_budget(command: PutBudget) -> Fields:
    return {
        **_given(command),
        "id": stored_id(command_mark(command.id)),
        "name": command.id,
        "rolls": _rolls(command.rolls),
    }


def _on_budgets(command: DropBudget | Reset) -> Fields:
    message = {**_given(command), "id": stored_id(command_mark(command.id)), "name": command.id}
    return {name: value for name, value in message.items() if value is not None}


def _reading(command: Read | ReadUsage | Sweep) -> Fields:
    return {name: value for name, value in _given(command).items() if value is not None}


_MESSAGES: dict[type, tuple[tuple[str, ...], Callable[[Any], Fields]]] = {
    Reserve: (("reserve_v1",), _reserve),
    Settle: (("settle_v1",), _settle),
    Release: (("release_v1",), lambda command: {"hold": stored_id(command.hold), "project": command.project}),
    Renew: (("renew_v1",), _renew),
    PutBudget: (("put_budget_v1",), _put_budget),
    DropBudget: (("drop_budget_v1",), _on_budgets),
    Reset: (("reset_v1",), _on_budgets),
    Read: (("read_v1",), _reading),
    ReadUsage: (("read_usage_v1",), _reading),
    Sweep: (("sweep_v1", "forget_v1"), _reading),
}


def message_of(command: Command, test_clock: bool) -> tuple[tuple[str, ...], str]:
    """The names of the functions that together apply a command, and what each of them takes. Raises one of
    failures.UNSTORABLE for text that has no UTF-8.
    """
    functions, build = _MESSAGES[type(command)]
    message = build(command)
    if test_clock and command.now is not None:
        message["now"] = command.now
    return functions, to_json(message).decode()


def reply_of(command: Command, texts: Sequence[str]) -> Reply:
    """The reply to a command, from its functions' words."""
    data = from_json(texts[0])
    kind = data.get("type")
    if kind == "Granted":
        return Granted(command.hold, Amounts(*data["amounts"]))  # type: ignore[union-attr]  # only a Reserve is granted
    if kind == "Settled" and not data["crossings"]:
        return Settled(command.hold)  # type: ignore[union-attr]  # only a Settle is settled
    if kind == "Accounts":
        return Accounts(data["now"], tuple(_state(row) for row in data["rows"]), data["after"])
    if kind == "UsageRows":
        return UsageRows(tuple((UsageKey(*row[:4]), Usage(*row[4:])) for row in data["rows"]))
    if kind is None:
        return Swept(data["expired"], from_json(texts[1])["forgotten"], data["folded"])
    if "hold" in data:
        data["hold"] = command.hold  # type: ignore[union-attr]  # a long one is kept under its digest
    if kind == "Renewed":
        missing = set(data["missing"])
        data["missing"] = [hold for hold in command.holds if stored_id(hold) in missing]  # type: ignore[union-attr]
    return wire.decode(data)  # type: ignore[return-value]  # the server's functions reply, they do not command


def _state(row: list[Any]) -> AccountState:
    fields: list[Any] = [Ref(*row[0]), *row[1:-1], tuple(sorted(row[-1].items()))]
    return AccountState(*fields)
