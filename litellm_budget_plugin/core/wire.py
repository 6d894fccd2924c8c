"""Commands and replies as JSON: how they are stored, sent and compared.

A message is an object with its class's name under "type" and its fields; a field that holds KEEP is left out.
"""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import Any, cast, get_args

from pydantic import TypeAdapter, ValidationError

from litellm_budget_plugin.core.commands import KEEP, Command, Reply
from litellm_budget_plugin.errors import BudgetInputError

_CLASSES: dict[str, type] = {cls.__name__: cls for cls in (*get_args(Command), *get_args(Reply))}


@cache
def _fields(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_CLASSES[name])


def encode(message: Command | Reply) -> dict[str, Any]:
    """The message as an object that JSON can hold."""
    cls: type = type(message)
    encoded: dict[str, Any] = {"type": cls.__name__}
    for name in _fields(cls):
        value = getattr(message, name)
        if value is not KEEP:
            encoded[name] = _plain(value)
    return encoded


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in _fields(type(value))}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def decode(data: Any) -> Command | Reply:
    """The message that `encode` made. Raises BudgetInputError, naming the field, for anything else."""
    if not isinstance(data, dict) or not isinstance(data.get("type"), str) or data["type"] not in _CLASSES:
        raise BudgetInputError(f"a message must be an object whose type is one of {', '.join(sorted(_CLASSES))}")
    fields = {name: value for name, value in data.items() if name != "type"}
    if data["type"] == "Reserve" and fields.get("parent", "") is None:
        # Earlier clients send the field, which holds inside a hold had, and leave it empty.
        del fields["parent"]
    unknown = fields.keys() - set(_fields(_CLASSES[data["type"]]))
    if unknown:
        raise BudgetInputError(f"{data['type']} has no field {', '.join(sorted(unknown))}")
    try:
        return cast("Command | Reply", _adapter(data["type"]).validate_python(fields))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise BudgetInputError(f"{data['type']}.{where}: {problem['msg']}") from None


def dumps(message: Command | Reply) -> str:
    """The message as JSON text."""
    return json.dumps(encode(message), separators=(",", ":"))


def loads(text: str) -> Command | Reply:
    """The message that `dumps` made. Raises BudgetInputError for anything else."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BudgetInputError(f"not a message: {error}") from None
    return decode(data)
