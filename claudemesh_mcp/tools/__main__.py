"""Write ``definitions.json`` from the tools' signatures: ``python -m claudemesh_mcp.tools``.

It imports every feature module; the file it writes is what ``server.py`` lists and what says in
which module each tool is found. A change of the file is a change for users: CHANGELOG.md names its
hash, and a test compares the two.
"""

import hashlib
import json
import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

import claudemesh_mcp.tools as package
from claudemesh_mcp.tools import ALWAYS_LOAD, DEFINITIONS_FILE, REGISTRY, DeclarationError, Tool

Schema = dict[str, Any]

# Every word of a schema is paid for in each session. How long a text may be is checked when a tool
# is called, and the refusal says it to the few who need to know.
_UNSAID = frozenset({"title", "minLength", "maxLength", "pattern"})


def generate() -> bytes:
    """Give the bytes of ``definitions.json`` as the code says them now.

    Raises:
        DeclarationError: a result can't be described without recursion.
    """
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            import_module(f"{package.__name__}.{module.name}")
    # Core tools first; a stable order keeps the client's prompt cache.
    tools = sorted(REGISTRY.values(), key=lambda one: (ALWAYS_LOAD not in one.meta, one.name))
    content = {
        "tools": [define(one) for one in tools],
        "features": {one.name: one.feature for one in tools},
    }
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def changelog_line(definitions: bytes) -> str:
    """Give the line by which CHANGELOG.md acknowledges these definitions."""
    return f"Tool schema: sha256 {hashlib.sha256(definitions).hexdigest()[:12]}"


def define(tool: Tool) -> Schema:
    """Describe one tool in the shape of MCP's `tools/list`."""
    output = {"outputSchema": schema_of(tool.result, "serialization")} if tool.result else {}
    definition: Schema = {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": schema_of(tool.arguments, "validation"),
        **output,
        "annotations": {
            "title": tool.title,
            "readOnlyHint": tool.hints.read_only,
            "destructiveHint": tool.hints.destructive,
            "idempotentHint": tool.hints.idempotent,
            "openWorldHint": tool.hints.open_world,
        },
    }
    if tool.meta:
        definition["_meta"] = dict(tool.meta)
    return definition


def schema_of(model: type[BaseModel], mode: JsonSchemaMode) -> Schema:
    """Write a model's JSON schema small and flat: no titles, references, lengths, few nulls.

    What may be left out is left out instead of null, so that a null in its schema would only cost
    the reader tokens; a key that is always there says when it may be null.
    """
    full = model.model_json_schema(mode=mode, by_alias=True)
    definitions = full.pop("$defs", {})
    tidy = _tidy(full, definitions, ())
    tidy.pop("description", None)
    return tidy


def _tidy(schema: Schema, definitions: Schema, inside: tuple[str, ...]) -> Schema:
    name = schema.get("$ref", "").rpartition("/")[2]
    if name in inside:
        raise DeclarationError(f"{name} contains itself; a client may not follow references.")
    if name:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _tidy({**definitions[name], **beside}, definitions, (*inside, name))
    small = {
        key: value
        for key, value in _with_null_where_due(schema).items()
        if key not in _UNSAID and not (key == "default" and not value)
    }
    return _each_inside(small, lambda one: _without_refusal(_tidy(one, definitions, inside)))


def _without_refusal(schema: Schema) -> Schema:
    """Leave unsaid of an inner object what is true of all: that it takes no other keys."""
    taken = schema.get("additionalProperties", True)
    return schema if taken else {k: v for k, v in schema.items() if k != "additionalProperties"}


def _each_inside(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """Apply a change to the schemas inside a schema, and to nothing that only looks like one."""
    changed = dict(schema)
    for key, value in schema.items():
        if key in {"properties", "patternProperties"}:
            changed[key] = {name: change(one) for name, one in value.items()}
        elif key in {"anyOf", "oneOf", "allOf", "prefixItems"}:
            changed[key] = [change(one) for one in value]
        elif key in {"items", "additionalProperties"} and isinstance(value, dict):
            changed[key] = change(cast("Schema", value))
    return changed


def _with_null_where_due(schema: Schema) -> Schema:
    """Take the null out of the properties of an object that may be left out instead."""
    properties = cast("dict[str, Schema]", schema.get("properties", {}))
    if not properties:
        return schema
    always = schema.get("required", ())
    kept = {key: one if key in always else _without_null(one) for key, one in properties.items()}
    return {**schema, "properties": kept}


def _without_null(schema: Schema) -> Schema:
    """Take the null out of a union; a union of one becomes that one."""
    if "anyOf" not in schema:
        return schema
    rest = [one for one in schema["anyOf"] if one.get("type") != "null"]
    outer = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**rest[0], **outer} if len(rest) == 1 else {"anyOf": rest, **outer}


def main() -> None:
    """Write the file and say what CHANGELOG.md has to say."""
    definitions = generate()
    DEFINITIONS_FILE.write_bytes(definitions)
    sys.stdout.write(f"{DEFINITIONS_FILE.name} written; in CHANGELOG.md, under Unreleased:\n")
    sys.stdout.write(f"{changelog_line(definitions)}\n")


if __name__ == "__main__":
    main()
