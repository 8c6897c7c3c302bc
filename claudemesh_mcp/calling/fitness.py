"""Says whether a tool's definition is one that clients, and the models behind them, take.

``imports.py`` asks before it lists a tool of another: by one that is otherwise a client may lose
the whole list, or its model refuse every request.

Source: MCP 2025-11-25, Tool; the Messages API's rules for input schemas.
"""

from importlib import import_module
from typing import Any, Final

from claudemesh_wire.errors import Invalid

_TEXT: Final = {"type": "string"}
_SWITCH: Final = {"type": "boolean"}
_OBJECT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"const": "object"},
        "required": {"type": "array", "items": _TEXT},
        "properties": {"type": "object", "additionalProperties": {"type": "object"}},
    },
}
_ARGUMENTS: Final[dict[str, Any]] = {
    "properties": {
        "properties": {"propertyNames": {"pattern": "^[a-zA-Z0-9_.-]{1,64}$"}},
        "oneOf": False,
        "anyOf": False,
        "allOf": False,
    }
}
_HINTS: Final = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
_ICON: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["src"],
    "properties": {
        "src": _TEXT,
        "mimeType": _TEXT,
        "sizes": {"type": "array", "items": _TEXT},
        "theme": {"enum": ["light", "dark"]},
    },
}
_TOOL: Final[dict[str, Any]] = {
    "required": ["inputSchema"],
    "properties": {
        "title": _TEXT,
        "description": _TEXT,
        "inputSchema": {"allOf": [_OBJECT, _ARGUMENTS]},
        "outputSchema": _OBJECT,
        "annotations": {
            "type": "object",
            "properties": {"title": _TEXT, **dict.fromkeys(_HINTS, _SWITCH)},
        },
        "icons": {"type": "array", "items": _ICON},
        "execution": {
            "type": "object",
            "properties": {"taskSupport": {"enum": ["forbidden", "optional", "required"]}},
        },
        "_meta": {"type": "object"},
    },
}


def check_definition(tool: dict[str, Any]) -> None:
    """Refuse a definition that can't be listed.

    Raises:
        Invalid: ``unfit_definition``: it says what is wrong with it.
    """
    validators: Any = import_module("jsonschema.validators")
    exceptions: Any = import_module("jsonschema.exceptions")
    newest = validators.Draft202012Validator
    try:
        newest(_TOOL).validate(tool)
        newest.check_schema(tool["inputSchema"])
    except (exceptions.ValidationError, exceptions.SchemaError, RecursionError) as error:
        why = str(getattr(error, "message", "it is nested too deeply"))
        raise Invalid(
            f"The tool {tool['name'][:80]!a} is defined as no client takes it: {why[:300]}",
            "Call it without importing it: call_tool.",
            code="unfit_definition",
        ) from error
