"""Arguments of a call against the schema of its tool."""

from typing import Any

import pytest

from claudemesh_mcp.calling.arguments import check_arguments
from claudemesh_wire.errors import MeshError

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("arguments", [{"a": 1}, {"a": 1, "b": "x"}])
def test_what_fits_passes(arguments: dict[str, Any]) -> None:
    check_arguments(SCHEMA, arguments, "add")


@pytest.mark.parametrize(
    ("arguments", "at"),
    [
        ({}, "$"),
        ({"a": "1"}, "$.a"),
        ({"a": 1, "b": "z"}, "$.b"),
        ({"a": 1, "c": 2}, "$"),
        ([], ""),
        (None, ""),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(arguments: Any, at: str) -> None:
    with pytest.raises(MeshError) as caught:
        check_arguments(SCHEMA, arguments, "add")
    assert caught.value.code == "bad_arguments"
    assert caught.value.details["mistakes"][0]["at"] == at


@pytest.mark.parametrize(
    "schema",
    [
        None,
        True,
        {"type": "no such type"},
        {"type": 7},
        {"$ref": "http://192.0.2.1/schema.json"},
        {"$ref": "#/nowhere"},
        {"$schema": "http://192.0.2.1/kind", "type": "object"},
        {"$ref": "#"},
        {"properties": {"a": {"pattern": "(a+)+$"}}},
    ],
)
def test_a_schema_that_makes_no_sense_or_trouble_checks_nothing(schema: Any) -> None:
    check_arguments(schema, {"a": "a" * 60 + "!"}, "add")
