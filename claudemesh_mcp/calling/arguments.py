"""Checks the arguments of a call against the tool's schema, on both sides of it.

``approving.py`` asks it before a call leaves, ``hosting/serving.py`` before one reaches the server.
A schema is another's: nothing is fetched for it, and what could keep the checker busy for ever is
left to the server.
"""

from functools import lru_cache
from importlib import import_module
from itertools import islice
from typing import Any, Final

from claudemesh_wire.errors import Invalid

_MOST_TOLD: Final = 5
# Patterns are regular expressions of a stranger: one of them can take longer than anybody waits.
_LEFT_OUT: Final = ("pattern", "patternProperties", "format", "contentSchema")
_MOST_MADE: Final = 256
_made: Final[dict[int, tuple[Any, Any]]] = {}


def check_arguments(schema: object, arguments: object, name: str) -> None:
    """Refuse arguments that the tool can't take.

    Args:
        schema: Its ``inputSchema``; one that makes no sense checks nothing.
        arguments: Of the call.
        name: The tool's, for the refusal.

    Raises:
        Invalid: ``bad_arguments``; the details name the first mistakes with their places.
    """
    if not isinstance(arguments, dict):
        raise _bad(name, [{"at": "", "what": "The arguments are no object."}])
    if not isinstance(schema, dict):
        return
    # Imported with the first call: it takes as long as all else of a session's start.
    from jsonschema.exceptions import SchemaError, UnknownType
    from referencing.exceptions import Unresolvable

    try:
        errors: Any = _validator(schema).iter_errors(arguments)
        found = [
            {"at": str(error.json_path), "what": str(error.message)[:300]}
            for error in islice(errors, _MOST_TOLD)
        ]
    except (SchemaError, UnknownType, Unresolvable, RecursionError, TypeError, ValueError):
        return
    if found:
        raise _bad(name, found)


def _validator(schema: Any) -> Any:
    """Give what checks by a schema, made once for each that is in use."""
    made = _made.get(id(schema))
    # The schema is kept beside: no other one gets its id meanwhile.
    if made is None or made[0] is not schema:
        while len(_made) >= _MOST_MADE:
            del _made[next(iter(_made))]
        made = _made[id(schema)] = (schema, _new_validator(schema))
    return made[1]


def _new_validator(schema: Any) -> Any:
    validators: Any = import_module("jsonschema.validators")
    registry: Any = import_module("referencing").Registry()
    newest = validators.Draft202012Validator
    named = schema.get("$schema", "")
    # Asked for a kind that it does not know, the library warns of it.
    kind = validators.validator_for(schema) if named in _known(validators) else newest
    return _without_patterns(kind)(schema, registry=registry)


@lru_cache(maxsize=1)
def _known(validators: Any) -> frozenset[str]:
    kinds = (getattr(validators, name) for name in dir(validators) if name.endswith("Validator"))
    return frozenset(
        kind.META_SCHEMA.get("$schema", "") for kind in kinds if hasattr(kind, "META_SCHEMA")
    )


@lru_cache(maxsize=16)
def _without_patterns(kind: Any) -> Any:
    validators: Any = import_module("jsonschema.validators")
    return validators.extend(kind, dict.fromkeys(_LEFT_OUT))


def _bad(name: str, mistakes: list[dict[str, str]]) -> Invalid:
    first = mistakes[0]
    return Invalid(
        f"{name} can't be called with these arguments: {first['what']}",
        f"Look at its schema: mesh_tools(query={name!r}, schemas=true).",
        code="bad_arguments",
        details={"mistakes": mistakes},
    )
