"""A description of the API for programs, from the types of the records themselves."""

from typing import Any

from .. import Change, Checkpoint, DeadLetter, Event, Execution, Instance, Lease, Policy, Result, Snapshot, Timer
from .actions import ACTIONS
from .families import FAMILIES, Listed, moment, number
from .house import VIEWS

_RECORDS = {"instances": Instance, "executions": Execution, "machines": Snapshot, "results": Result}
_TYPES = (*_RECORDS.values(), Change, Checkpoint, DeadLetter, Event, Lease, Policy, Timer)


def _schema(type: type[Any]) -> dict[str, Any]:
    """The shape of a record in JSON: its fields; values may be of any kind."""
    properties: dict[str, Any] = {}
    for name in type.__struct_fields__:
        if name in ("place", "nonce"):
            continue
        known: dict[str, Any] = {}
        if name.endswith("_at") or name == "at":
            known = {"type": ["string", "null"], "format": "date-time"}
        elif name in ("revision", "workflow_version", "partition_index", "seq", "token", "attempts"):
            known = {"type": "integer"}
        properties[name] = known
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _parameter(name: str, read: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if read is number:
        schema = {"type": "integer"}
    elif read is moment:
        schema = {"type": "string", "format": "date-time"}
    return {"name": name, "in": "query", "schema": schema}


def _paging() -> list[dict[str, Any]]:
    limit = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}}
    return [limit, {"name": "cursor", "in": "query", "schema": {"type": "string"}}]


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    error = {
        "description": "why not",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    codes = ("401", "403", "404", "409", "410", "413", "414", "422", "429", "500", "503")
    return {
        "200": {"description": "as asked", "content": {"application/json": {"schema": schema}}},
        **dict.fromkeys(codes, error),
    }


def _page(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": item},
            "cursor": {"type": ["string", "null"]},
            "undecodable": {"type": "integer"},
        },
        "required": ["items"],
    }


def _key(family: Listed) -> tuple[str, list[dict[str, Any]]]:
    path = "/".join(f"{{{name}}}" for name in family.key)
    return path, [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in family.key
    ]


def _family_paths(family: Listed) -> dict[str, Any]:
    kind = _RECORDS.get(family.name)
    item: dict[str, Any] = {"type": "object"} if kind is None else {"$ref": f"#/components/schemas/{kind.__name__}"}
    path, names = _key(family)
    base = f"/api/v1/{family.name}"
    filters = [_parameter(name, read) for name, read in family.filters.items()]
    page = _answer(_page(item))
    paths: dict[str, Any] = {
        base: {
            "get": {
                "summary": f"List {family.name}",
                "parameters": filters + _paging(),
                "responses": page,
            }
        },
        f"{base}/{path}": {"get": {"summary": "One by its key", "parameters": names, "responses": _answer(item)}},
    }
    if family.name in ("instances", "executions", "machines"):
        paths[f"{base}/{path}/history"] = {
            "get": {
                "summary": "Revisions, newest first",
                "parameters": names + _paging(),
                "responses": page,
            }
        }
    if family.name == "executions":
        paths[f"{base}/{path}/events"] = {
            "get": {
                "summary": "Events in the order they were written",
                "parameters": [*names, _parameter("after", number), _parameter("last", number), _paging()[0]],
                "responses": _answer(_page({"$ref": "#/components/schemas/Event"})),
            }
        }
    return paths


def document(version: str, prefix: str) -> dict[str, Any]:
    """The document of OpenAPI 3.1."""
    paths: dict[str, Any] = {}
    for family in FAMILIES.values():
        paths |= _family_paths(family)
    for name, view in VIEWS.items():
        summary = (view.__doc__ or name).partition("\n")[0]
        paths[f"/api/v1/{name}"] = {"get": {"summary": summary, "responses": _answer({"type": "object"})}}
    paths["/api/v1/feed"] = {
        "get": {
            "summary": "Changes after a position, as a page or as server-sent events",
            "parameters": [_parameter(name, None) for name in ("after", "families", "ops", "ids")]
            + [_paging()[0], _parameter("wait", number)],
            "responses": _answer(_page({"$ref": "#/components/schemas/Change"})),
        }
    }
    body = {"content": {"application/json": {"schema": {"type": "object", "properties": {"why": {"type": "string"}}}}}}
    for (name, action), (names, _) in ACTIONS.items():
        keys = ("watcher", "id") if name == "dead_letters" else FAMILIES[name].key if names == 2 else ("id",)
        path, parameters = _key(Listed(name, keys, {}))
        paths[f"/api/v1/{name}/{path}/{action}"] = {
            "post": {
                "summary": f"{action.capitalize()} it; needs a token that may write",
                "parameters": parameters,
                "requestBody": body,
                "responses": _answer({"type": "object"}),
            }
        }
    schemas: dict[str, Any] = {type.__name__: _schema(type) for type in _TYPES}
    schemas["Error"] = {
        "type": "object",
        "properties": {"code": {"type": "string"}, "message": {"type": "string"}, "fields": {"type": "object"}},
        "required": ["code", "fields", "message"],
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Stateroom", "version": version},
        "servers": [{"url": prefix or "/"}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }
