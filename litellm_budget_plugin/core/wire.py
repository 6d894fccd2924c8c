"""Commands and replies as JSON: how they are stored, sent and compared.

A message is an object with its class's name under "type" and its fields; a field that holds KEEP is left out.
Types are strict: `true`, "12" and 12.0 are no integers, 1 and "true" are no booleans, 12 is no text.
"""

from __future__ import annotations

import dataclasses
import json
from functools import cache, lru_cache
from typing import Any, cast, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

from litellm_budget_plugin.core.accounts import Default
from litellm_budget_plugin.core.commands import KEEP, Command, Refused, Reply, Roll
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.core.windows import parse_window
from litellm_budget_plugin.errors import BudgetInputError

_COMMANDS = get_args(Command)
_LATER: dict[type, tuple[str, ...]] = {Refused: ("raised", "carried")}
"""Fields that earlier clients do not know: they are left out when empty."""
_EARLIER = {"Settle": "thresholds", "Settled": "crossings"}
"""Fields of earlier clients, servers, journals and ledgers. Their content is ignored: no charge may be lost because of it."""
_CLASSES: dict[str, type] = {cls.__name__: cls for cls in (*_COMMANDS, *get_args(Reply))}


@cache
def _fields(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


@cache
def strict_validator(cls: Any) -> SchemaValidator:
    """A validator of JSON data as a `cls`: lists become tuples, nothing else is converted. It raises pydantic's ValidationError."""
    return SchemaValidator(_strict(TypeAdapter(cls).core_schema))


def _strict(schema: Any) -> Any:
    # Only the leaves: pydantic's own strict mode would refuse a list in the place of a tuple, and JSON has no tuples.
    if isinstance(schema, dict):
        walked = {key: _strict(part) for key, part in schema.items()}
        return {**walked, "strict": True} if schema.get("type") in _LEAVES else walked
    return [_strict(part) for part in schema] if isinstance(schema, list) else schema


_LEAVES = ("bool", "float", "int", "str")


def encode(message: Command | Reply) -> dict[str, Any]:
    """The message as an object that JSON can hold."""
    cls: type = type(message)
    encoded: dict[str, Any] = {"type": cls.__name__}
    for name in _fields(cls):
        value = getattr(message, name)
        if value is not KEEP and (value or name not in _LATER.get(cls, ())):
            encoded[name] = _plain(value)
    return encoded


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in _fields(type(value))}
    if isinstance(value, (Default, Roll)) and not value[-1]:
        value = value[:-1]  # earlier servers do not know their last field
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def decode(data: Any) -> Command | Reply:
    """The message that `encode` made. Raises BudgetInputError, naming the field, for anything else.

    The windows of a command become canonical, so that "day" and "day@UTC" name one account.
    """
    if not isinstance(data, dict) or not isinstance(data.get("type"), str) or data["type"] not in _CLASSES:
        raise BudgetInputError(f"a message must be an object whose type is one of {', '.join(sorted(_CLASSES))}")
    ignored = ("type", _EARLIER.get(data["type"]))
    fields = {name: value for name, value in data.items() if name not in ignored}
    if data["type"] == "Reserve" and fields.get("parent", "") is None:
        # Earlier clients send this field of nested holds, and leave it empty.
        del fields["parent"]
    unknown = fields.keys() - set(_fields(_CLASSES[data["type"]]))
    if unknown:
        raise BudgetInputError(f"{data['type']} has no field {', '.join(sorted(unknown))}")
    try:
        message = cast("Command | Reply", strict_validator(_CLASSES[data["type"]]).validate_python(fields))
    except ValidationError as error:
        raise BudgetInputError(f"{data['type']}.{first_problem(error)}") from None
    return _with_canonical_windows(message) if isinstance(message, _COMMANDS) else message


def first_problem(error: ValidationError) -> str:
    """The place and the text of an error's first problem."""
    problem = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"


def _with_canonical_windows(command: Any) -> Any:
    changed = {}
    for name, canonical in (("window", _canonical), ("defaults", _canonical_windows), ("limits", _canonical_windows)):
        given = getattr(command, name, None)
        if not given or given is KEEP:
            continue
        try:
            found = canonical(given)
        except BudgetInputError as error:
            raise BudgetInputError(f"{type(command).__name__}.{name}: {error}") from None
        if found != given:
            changed[name] = found
    return dataclasses.replace(command, **changed) if changed else command


def _canonical(window: str) -> str:
    return parse_window(window).text


@lru_cache(maxsize=4096)
def _canonical_windows(those: tuple[Default | Limit, ...]) -> tuple[Default | Limit, ...]:
    return tuple(each._replace(window=_canonical(each.window)) for each in those)


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
