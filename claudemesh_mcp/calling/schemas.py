"""Judges a value by a JSON Schema of a stranger, within bounds: what makes a checker that ends.

``arguments.py`` has one made for each schema and asks it for the mistakes. Only a mistake that is
one for certain is told: what is left out, since it could take for ever, counts as unjudged, and so
does whatever would be wrong only because that passed.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Sized
from contextvars import ContextVar
from functools import lru_cache
from importlib import import_module
from typing import Any, Final, cast

logger: Final = logging.getLogger(__name__)

MOST_STEPS: Final = 50_000
"""So much is looked at for one call, a tenth of a second at most; the rest the server has to."""
MOST_NESTED: Final = 100
"""So deep keywords are followed into each other; Python's own stack ends not far behind."""
MOST_UNIQUE: Final = 200
"""Whether the items of a list differ takes as long as there are pairs of them."""
_MESSAGE_STEP: Final = 100
_PAIRS_STEP: Final = 5
_POINTER_STEP: Final = 8
# Patterns are regular expressions of a stranger: one of them can take longer than anybody waits.
# What asks for the unevaluated evaluates patterns too, and walks the schema by itself.
_LEFT_OUT: Final = (
    "pattern",
    "patternProperties",
    "format",
    "contentSchema",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_COMPARED: Final = frozenset(
    {"const", "enum", "dependencies", "dependentRequired", "dependentSchemas"}
)
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef"})
# Only these make an error out of something that passed.
_REVERSING: Final = frozenset({"not", "disallow"})
_SEEKS: Final = re.compile(r'"\$(?:ref|dynamicRef)":"(?!#[/"])')

Errors = Iterator[Any]


class Spent(Exception):
    """So much was looked at that the rest is left to the server."""


class Effort:
    """What one check has cost, and how often it met what it does not judge.

    Args:
        most: So many steps it may take.
    """

    def __init__(self, most: int = MOST_STEPS) -> None:
        self.left = most
        self.unjudged = 0
        self.depth = 0

    def spend(self, steps: int) -> None:
        """Count steps; raises ``Spent``."""
        self.left -= steps
        if self.left < 0:
            raise Spent


_EFFORT: Final[ContextVar[Effort]] = ContextVar("effort")


def mistakes(checker: Any, value: object, most: int, effort: Effort | None = None) -> list[Any]:
    """Give the first mistakes in a value, as far as it takes no time to find them.

    Args:
        checker: From ``checker_of``.
        value: To be judged.
        most: So many are enough.
        effort: Counts what it takes.

    Raises:
        Exception: the schema makes no sense; the library has no one error for that.
    """
    found: list[Any] = []
    before = _EFFORT.set(effort or Effort())
    try:
        for error in checker.iter_errors(value):
            found.append(error)
            if len(found) == most:
                break
    except Spent:
        logger.info("a schema takes too long: the rest is left to its server")
    finally:
        _EFFORT.reset(before)
    return found


def checker_of(schema: Any) -> Any:
    """Make what judges by a schema; raises whatever the library does of one without sense."""
    validators: Any = import_module("jsonschema.validators")
    referencing: Any = import_module("referencing.jsonschema")
    known: Any = import_module("jsonschema_specifications").REGISTRY
    newest = validators.Draft202012Validator
    named = schema.get("$schema", "")
    # Asked for a kind that it does not know, the library warns of it.
    kind = validators.validator_for(schema) if _bare(named) in _known(validators) else newest
    specification = referencing.specification_with(kind.ID_OF(kind.META_SCHEMA))
    resource = specification.create_resource(schema)
    uri = resource.id() or ""
    registry = known.with_resource(uri, resource)
    if _SEEKS.search(json.dumps(schema, separators=(",", ":"))):
        # Once for all: each look for an anchor or an id would else go through the whole schema.
        registry = registry.crawl()
    resolver = registry.resolver(base_uri=uri)
    return _bounded(kind)(schema, registry=registry, _resolver=resolver)


@lru_cache(maxsize=1)
def _known(validators: Any) -> frozenset[str]:
    kinds = (getattr(validators, name) for name in dir(validators) if name.endswith("Validator"))
    return frozenset(
        _bare(kind.META_SCHEMA.get("$schema", "")) for kind in kinds if hasattr(kind, "META_SCHEMA")
    )


def _bare(named: Any) -> str:
    """Give a draft's name as it is compared: both spellings of the older ones mean them."""
    return named.removesuffix("#")


@lru_cache(maxsize=16)
def _bounded(kind: Any) -> Any:
    validators: Any = import_module("jsonschema.validators")
    keywords = {
        name: _judging(name, judge) for name, judge in kind.VALIDATORS.items()
    } | dict.fromkeys(_LEFT_OUT, _unjudged)
    if "if" in keywords:
        keywords["if"] = _judged_if
    made = validators.extend(kind, keywords)
    made.evolve = _evolved
    return made


def _evolved(self: Any, **changes: Any) -> Any:
    """Go on with a part of the schema, by the same rules.

    The library's own would take those of another draft, unbounded, wherever a part names one; here
    such a part is not judged.
    """
    schema = changes.get("schema", self.schema)
    _EFFORT.get().spend(1 + _breadth(schema))
    if isinstance(schema, dict) and _names_another(self, cast("dict[str, Any]", schema)):
        _EFFORT.get().unjudged += 1
        changes["schema"] = schema = True
    kept: dict[str, Any] = {
        "schema": schema,
        "registry": self._registry,
        "_resolver": self._resolver,
    }
    return type(self)(**(kept | changes))


def _names_another(judge: Any, schema: dict[str, Any]) -> bool:
    named = schema.get("$schema")
    return named is not None and _bare(named) != _bare(judge.META_SCHEMA.get("$schema", ""))


def _unjudged(*_: Any) -> tuple[()]:
    _EFFORT.get().unjudged += 1
    return ()


def _judging(name: str, judge: Callable[..., Any]) -> Callable[..., Errors]:
    """Give the library's judge of one keyword, within bounds."""

    def judged(validator: Any, said: Any, value: Any, schema: Any) -> Errors:
        effort = _EFFORT.get()
        effort.spend(_cost(name, said, value))
        if _is_left_out(name, said, value, schema):
            effort.unjudged += 1
            return
        before = effort.unjudged
        if effort.depth == MOST_NESTED:
            raise Spent
        effort.depth += 1
        try:
            for error in judge(validator, said, value, schema) or ():
                if effort.unjudged == before or not _needs_a_pass(name, error):
                    yield error
                # It has the value in it, and is made whether or not anybody reads it.
                effort.spend(len(error.message) // _MESSAGE_STEP)
        finally:
            effort.depth -= 1

    return judged


def _is_left_out(name: str, said: Any, value: Any, schema: Any) -> bool:
    if value is None and schema.get("nullable") is True:
        return True  # As OpenAPI has it, which servers take their schemas from.
    match name:
        case "additionalProperties":
            return "patternProperties" in schema
        case "uniqueItems":
            return _breadth(value) > MOST_UNIQUE
        case "multipleOf" | "divisibleBy":
            return isinstance(said, float) or isinstance(value, float)  # 0.3 is no 3 times 0.1.
        case "exclusiveMinimum" | "exclusiveMaximum":
            return isinstance(said, bool)  # Of an older draft than the one it is taken for.
        case "required":
            return not isinstance(said, list)
        case _:
            return False


def _needs_a_pass(name: str, error: Any) -> bool:
    """Tell whether it is an error only because something else passed."""
    if name == "oneOf":
        # That none fits has the errors of each with it; that several do has not.
        return not error.context
    return name in _REVERSING or (name == "contains" and error.validator == "maxContains")


def _judged_if(validator: Any, said: Any, value: Any, schema: Any) -> Errors:
    effort = _EFFORT.get()
    before = effort.unjudged
    is_valid = validator.evolve(schema=said).is_valid(value)
    if is_valid and effort.unjudged != before:
        return
    branch = "then" if is_valid else "else"
    if branch in schema:
        yield from validator.descend(value, schema[branch], schema_path=branch)


def _cost(name: str, said: Any, value: Any) -> int:
    steps = 1 + _breadth(said) + _breadth(value)
    if name in _COMPARED:
        return steps + _nodes(said)
    if name in _REFERENCES and isinstance(said, str):
        return steps + len(said) // _POINTER_STEP
    if name == "uniqueItems" and _breadth(value) <= MOST_UNIQUE:
        return steps + _breadth(value) * _nodes(value) // _PAIRS_STEP
    return steps


def _breadth(value: Any) -> int:
    return len(cast("Sized", value)) if isinstance(value, dict | list) else 0


def _nodes(value: Any) -> int:
    """Count the values within a value, as far as it matters."""
    count, within = 0, [value]
    while within and count <= MOST_STEPS:
        one = within.pop()
        count += 1
        if isinstance(one, dict):
            within.extend(cast("dict[str, Any]", one).values())
        elif isinstance(one, list):
            within.extend(cast("list[Any]", one))
    return count
