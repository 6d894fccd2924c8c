"""The schemas of /v1 for the OpenAPI document, derived from the commands and replies themselves."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from litellm_budget_plugin.core.commands import Command, Reply, RollNeeded
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.rows import Rows

Schema = dict[str, Any]
Responses = dict[int | str, dict[str, Any]]

_REFS = "#/components/schemas/{model}"


def _ref(name: str) -> Schema:
    return {"$ref": _REFS.format(model=name)}


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def body(schema: Schema) -> Schema:
    """Return a request's body for `openapi_extra`."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _answers(status: int, description: str, schema: Schema | None, *problems: int) -> Responses:
    said = {401: "No valid key.", 403: "The key does not open this.", 429: "Too many requests; see Retry-After."}
    said |= {400: "The body is not JSON.", 408: "The body took too long.", 413: "The body is too large."}
    said |= {
        415: "The body is not application/json.",
        422: "The request can never be applied.",
        503: "The store does not answer.",
    }
    content = {} if schema is None else {"content": {"application/json": {"schema": schema}}}
    found: Responses = {status: {"description": description, **content}}
    for problem in (401, 403, 429, 503, *problems):
        found[problem] = {"description": said[problem], "content": {"application/json": {"schema": _ref("Problem")}}}
    return found


_OF_BODIES = (400, 408, 413, 415, 422)
COMMAND = _ref("Command")
COMMANDS: Schema = {
    "type": "object",
    "properties": {"commands": {"type": "array", "items": COMMAND, "maxItems": 1000}},
    "required": ["commands"],
    "additionalProperties": False,
}
EXPORT: Schema = {
    "type": "object",
    "properties": {
        "project": {"type": "string"},
        "after": {"type": "string", "default": ""},
        "most": {"type": "integer", "minimum": 1, "default": 1000},
    },
    "required": ["project"],
    "additionalProperties": False,
}
LOAD: Schema = {
    "type": "object",
    "properties": {"project": {"type": "string"}, "rows": _ref("Rows")},
    "required": ["project", "rows"],
    "additionalProperties": False,
}
GET_BUDGET: Schema = {
    "type": "object",
    "properties": {"project_name": {"type": "string", "minLength": 1, "maxLength": 256}},
    "required": ["project_name"],
    "additionalProperties": False,
}
SET_BUDGET: Schema = {
    "type": "object",
    "properties": {**GET_BUDGET["properties"], "user_dict": {"type": "object", "additionalProperties": _ref("Record")}},
    "required": ["project_name", "user_dict"],
    "additionalProperties": False,
}
_SENTENCE: Schema = {"type": "string", "examples": ["$10 per month"]}
_ID: Schema = {"type": "string", "minLength": 1, "maxLength": 256}


def _change(**properties: Schema) -> Schema:
    """Return the schema of a body that may also have an id."""
    return {**_object(**properties, id=_ID), "required": list(properties)}


CHANGE: Schema = _change()
SET_LIMITS: Schema = _change(limits={"type": "array", "items": _SENTENCE, "minItems": 1, "maxItems": 100})
RAISE: Schema = _change(amount=_SENTENCE, until={"type": "string", "format": "date-time"})
TOP_UP: Schema = _object(amount=_SENTENCE, id=_ID)
REFUND: Schema = _object(id=_ID)
SUBJECT = _answers(200, "The budgets of the subject.", _ref("SubjectBudgets"), *_OF_BODIES)
SUBJECTS = _answers(200, "A page of subjects.", _ref("SubjectsPage"), 422)
REFUNDED = _answers(200, "The top-up is refunded.", _ref("Refunded"), *_OF_BODIES)
USAGE = _answers(200, "The totals.", _ref("UsageTotals"), 422)
HELLO = _answers(200, "The server and the rights of the key.", _ref("Hello"))
REPLY = _answers(200, "The reply.", _ref("Reply"), *_OF_BODIES)
OUTCOMES = _answers(200, "The result of each command.", _ref("Outcomes"), *_OF_BODIES)
DONE = _answers(204, "Done.", None, *_OF_BODIES)
PROJECTS = _answers(200, "The names of the projects.", _ref("Projects"))
PAGE = _answers(200, "A page of rows.", _ref("Page"), *_OF_BODIES)
METRICS: Responses = {
    200: {
        "description": "In the text format of Prometheus or OpenMetrics.",
        "content": {"text/plain": {}, "application/openmetrics-text": {}},
    },
    **{status: said for status, said in HELLO.items() if status != 200},
    404: {"description": "prometheus-client is not installed.", "content": HELLO[401]["content"]},
}
READY: Responses = {503: {"description": "The store does not answer."}}
BUDGETS = _answers(200, "LiteLLM's answer.", _ref("Budgets"), *_OF_BODIES)


_SECONDS: Schema = {"type": "number", "minimum": 0, "maximum": 9_000_000_000, "description": "Seconds since 1970."}
_USD: Schema = {"type": "number", "minimum": 0, "description": "US dollars."}
_RECORD: Schema = {
    "type": "object",
    "properties": {
        "total_budget": _USD,
        "duration": {"type": ["number", "null"], "description": "Days."},
        "window": {"type": ["string", "null"], "description": "The window, where it is not a number of whole days."},
        "created_at": _SECONDS,
        "last_updated_at": _SECONDS,
        "current_cost": _USD,
        "model_cost": {"type": "object", "additionalProperties": _USD},
        "default": {"type": "boolean", "description": "Follows a default limit."},
        "ledger": {"description": "Exchanged between stores that use this protocol; not stored."},
    },
    "required": ["total_budget"],
    "additionalProperties": False,
}


def export_request(data: Schema) -> tuple[str, str, int]:
    """Return the project, the place and the number of rows in a body that `EXPORT` describes. Raises BudgetInputError."""
    unknown = data.keys() - EXPORT["properties"].keys()
    project, after, most = data.get("project"), data.get("after", ""), data.get("most", 1000)
    good = isinstance(project, str) and isinstance(after, str) and isinstance(most, int) and not isinstance(most, bool)
    if unknown or not good or most < 1:
        raise BudgetInputError('the body must be {"project": "...", "after": "...", "most": 1 or more}')
    return data["project"], after, most


def document(app: FastAPI) -> Schema:
    """Return the OpenAPI document of a server."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = found.setdefault("components", {})
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}}
        components["schemas"] = {**components.get("schemas", {}), **_components()}
        found["security"] = [{"key": []}, {}]
        app.openapi_schema = found
    return app.openapi_schema


@cache
def _components() -> Schema:
    schemas: Schema = {}
    commands = list(get_args(Command))
    replies = [cls for cls in get_args(Reply) if cls is not RollNeeded]
    for cls in (*commands, *replies):
        schemas[cls.__name__] = _message(cls, schemas)
    for name, classes in (("Command", commands), ("Reply", replies)):
        mapping = {cls.__name__: _REFS.format(model=cls.__name__) for cls in classes}
        schemas[name] = {"oneOf": [_ref(cls.__name__) for cls in classes]}
        schemas[name]["discriminator"] = {"propertyName": "type", "mapping": mapping}
    refused = _object(type={"const": "BudgetInputError"}, message={"type": "string"})
    outcome = {"anyOf": [_ref("Reply"), refused]}
    accounts, holds, usage = _plain(TypeAdapter(Rows).json_schema(ref_template=_REFS), schemas)["prefixItems"]
    text: Schema = {"type": "string"}
    maybe: Schema = {"type": ["string", "null"]}
    whole: Schema = {"type": "integer"}
    of_limit = dict.fromkeys(("remaining", "resets_at", "raised_by", "raised_until"), maybe)
    of_subject = {
        "subject": text,
        "blocked": {"type": "boolean"},
        "set_by_hand": {"type": "boolean"},
        "balance": maybe,
        "limits": {"type": "array", "items": _object(limit=text, unit=text, spent=text, held=text, **of_limit)},
    }
    payment = _object(id=text, amount=text, at=text, refunded={"type": "boolean"})
    forecast: Schema = {"oneOf": [_object(budget=text, runs_out_at=text, sentence=text), {"type": "null"}]}
    counts = dict.fromkeys(("calls", "input_tokens", "output_tokens", "refusals", "unsettled"), whole)
    return schemas | {
        "SubjectBudgets": _object(**of_subject, payments={"type": "array", "items": payment}, forecast=forecast),
        "SubjectsPage": _object(subjects={"type": "array", "items": _object(**of_subject)}, after=maybe),
        "Refunded": _object(id=text, refunded={"const": True}),
        "UsageTotals": _object(by=text, rows={"type": "array", "items": _object(key=text, spent=text, **counts)}),
        "Problem": _object(error=text, message=text),
        "Outcomes": _object(outcomes={"type": "array", "items": outcome}),
        "Hello": _object(
            service={"const": "litellm-budget"},
            protocol={"type": "integer"},
            project={"type": ["string", "null"]},
            access={"enum": ["read-only", "read-write"]},
        ),
        "Projects": _object(projects={"type": "array", "items": text}),
        "Rows": _object(accounts=accounts, holds=holds, usage=usage),
        "Page": _object(rows=_ref("Rows"), after={"type": ["string", "null"]}),
        "Record": _RECORD,
        "Budgets": {
            "type": "object",
            "properties": {
                "status": {"enum": ["success", "error"]},
                "data": {"type": "object", "additionalProperties": _RECORD},
                "message": text,
            },
            "required": ["status"],
        },
    }


def _message(cls: type, schemas: Schema) -> Schema:
    schema = _plain(TypeAdapter(cls).json_schema(ref_template=_REFS), schemas)
    schema["properties"] = {"type": {"const": cls.__name__}, **schema["properties"]}
    schema["required"] = ["type", *schema.get("required", [])]
    schema["additionalProperties"] = False
    return schema


def _plain(schema: Schema, schemas: Schema) -> Schema:
    """Return a schema without its own definitions, which go into `schemas`, and without KEEP, which is sent by leaving a field
    out.
    """
    for name, definition in schema.pop("$defs", {}).items():
        if name != "Keep":
            schemas[name] = _plain(definition, schemas)
    cleaned: Schema = _without_keep(schema)
    return cleaned


def _without_keep(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_keep(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {name: _without_keep(each) for name, each in node.items() if not (name == "default" and each == "keep")}
    if "anyOf" in found:
        found["anyOf"] = [each for each in found["anyOf"] if each != _ref("Keep")]
        if len(found["anyOf"]) == 1:
            found |= found.pop("anyOf")[0]
    return found
