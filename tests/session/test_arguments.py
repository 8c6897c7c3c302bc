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
        {"$schema": [], "required": ["b"]},
        {"$ref": "#"},
        {"$ref": 5},
        {"$ref": "http://json-schema.org/draft-07/nothing"},
        {"$id": 5, "required": ["b"]},
        {"$id": "http://[::1", "properties": {"a": {"$ref": "b"}}},
        {"properties": []},
        {"properties": {"a": {"minLength": "b"}}},
        {"allOf": {"b": 1}},
        {"if": "b"},
        {"not": 7},
        {"required": 7},
        {"dependentRequired": ["a"]},
        {"propertyNames": "b"},
        {"$defs": {"a": {"$anchor": 5}}, "$ref": "#a"},
        {"properties": {"a": {"pattern": "(a+)+$"}}},
    ],
)
def test_a_schema_that_makes_no_sense_or_trouble_checks_nothing(schema: Any) -> None:
    check_arguments(schema, {"a": "a" * 60 + "!"}, "add")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"multipleOf": 0}, 1),
        ({"multipleOf": 0.1}, 10**400),
        ({"items": "a"}, [1]),
        ({"prefixItems": 5}, [1]),
        ({"contains": {"const": 1}, "minContains": "a"}, [1]),
    ],
)
def test_a_value_whose_schema_makes_no_sense_is_left_to_the_server(schema: Any, value: Any) -> None:
    check_arguments({"properties": {"a": schema}}, {"a": value}, "add")


MAIL = {"type": "string", "format": "email"}
ADDRESS = {"type": "string", "format": "uri"}
PATTERN = {"pattern": "^b"}
# A place of what is not judged, and arguments that are right as far as can be told.
PLACES: list[tuple[Any, Any]] = [
    (PATTERN, "x"),
    ({"oneOf": [{"type": "integer"}, MAIL]}, "x"),
    ({"oneOf": [MAIL, ADDRESS]}, "x"),
    ({"anyOf": [PATTERN, {"type": "integer"}]}, "x"),
    ({"allOf": [PATTERN]}, "x"),
    ({"not": PATTERN}, "x"),
    ({"not": {"not": {"not": PATTERN}}}, "x"),
    ({"contains": PATTERN}, ["x"]),
    ({"contains": PATTERN, "maxContains": 1}, ["x", "y"]),
    ({"if": PATTERN, "then": {"maxLength": 0}}, "x"),
    ({"if": PATTERN, "else": {"maxLength": 9}}, "x"),
    ({"items": PATTERN}, ["x"]),
    ({"propertyNames": PATTERN}, {"x": 1}),
    ({"dependentSchemas": {"x": {"properties": {"x": PATTERN}}}}, {"x": "y"}),
    ({"$ref": "#/$defs/pattern"}, "x"),
    ({"patternProperties": {"(": {}}, "additionalProperties": False}, {"x": 1}),
    ({"patternProperties": {"^b": {}}, "unevaluatedProperties": False}, {"x": 1}),
    ({"contentSchema": {"type": "integer"}}, "x"),
]


@pytest.mark.parametrize(("place", "value"), PLACES)
def test_what_is_not_judged_takes_nothing_else_off_the_check(place: Any, value: Any) -> None:
    schema = {**SCHEMA, "properties": {"to": place, "n": {"type": "integer"}}, "required": ["n"]}
    schema["$defs"] = {"pattern": PATTERN}
    check_arguments(schema, {"to": value, "n": 1}, "add")
    with pytest.raises(MeshError) as caught:
        check_arguments(schema, {"to": value, "n": "no", "zz": 1}, "add")
    found = [(one["at"], one["what"].partition("(")[0]) for one in caught.value.details["mistakes"]]
    assert sorted(found) == [
        ("$", "Additional properties are not allowed "),
        ("$.n", "'no' is not of type 'integer'"),
    ]


# In each of these an expression that takes for ever is asked about a text it is slow for.
SLOW = "^(a+)+$"
SLOW_PLACES: list[Any] = [
    {"pattern": SLOW},
    {"$schema": "https://json-schema.org/draft/2020-12/schema", "pattern": SLOW},
    {"not": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": SLOW}},
    {"propertyNames": {"pattern": SLOW}},
    {"patternProperties": {SLOW: {}}},
    {"patternProperties": {SLOW: {}}, "additionalProperties": False},
    {"patternProperties": {SLOW: {}}, "unevaluatedProperties": False},
    {"allOf": [{"patternProperties": {SLOW: {}}}], "unevaluatedProperties": False},
]


@pytest.mark.parametrize("place", SLOW_PLACES)
def test_no_expression_of_a_stranger_is_evaluated(place: Any) -> None:
    slow = "a" * 60 + "!"
    schema = {"properties": {"a": place, "b": place, "n": {"type": "integer"}}}
    with pytest.raises(MeshError) as caught:
        check_arguments(schema, {"a": slow, "b": {slow: 1}, "n": "no"}, "add")
    assert [one["at"] for one in caught.value.details["mistakes"]] == ["$.n"]


def outcome(schema: Any, arguments: Any) -> str:
    """Give the code of the refusal, if it is one."""
    try:
        check_arguments(schema, arguments, "add")
    except MeshError as error:
        return error.code
    return ""


class Asked(dict[str, Any]):
    """Counts how often somebody looks into it."""

    times = 0

    def __contains__(self, key: object) -> bool:
        """Look for a key."""
        self.times += 1
        return super().__contains__(key)

    def __len__(self) -> int:
        """Count the keys."""
        self.times += 1
        return super().__len__()


def test_a_schema_that_doubles_with_each_line_is_given_up() -> None:
    twice = {
        f"a{number}": {"allOf": [{"$ref": f"#/$defs/a{number + 1}"}] * 2} for number in range(18)
    }
    schema = {"$defs": {**twice, "a18": {"required": ["to"]}}, "$ref": "#/$defs/a0"}
    asked = Asked({"to": 1})
    check_arguments(schema, asked, "add")
    # It would be looked at 262144 times; every look counts once at least.
    assert asked.times <= 50_000


def test_a_list_of_five_hundred_rows_is_checked_to_its_end() -> None:
    row = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    schema = {"properties": {"rows": {"type": "array", "items": row}}}
    with pytest.raises(MeshError) as caught:
        check_arguments(schema, {"rows": [{"a": 1}] * 500 + [{"a": "no"}]}, "add")
    assert [one["at"] for one in caught.value.details["mistakes"]] == ["$.rows[500].a"]


def test_what_was_found_before_a_schema_is_given_up_counts() -> None:
    rows = {"type": "array", "items": {"type": "integer"}}
    schema = {"properties": {"n": {"type": "integer"}, "rows": rows}}
    with pytest.raises(MeshError) as caught:
        check_arguments(schema, {"n": "no", "rows": [1] * 60_000}, "add")
    assert [one["at"] for one in caught.value.details["mistakes"]] == ["$.n"]
    check_arguments(schema, {"rows": ["no"] * 60_000}, "add")


@pytest.mark.parametrize(("count", "expected"), [(100, "bad_arguments"), (300, "")])
def test_whether_items_differ_is_asked_of_short_lists_alone(count: int, expected: str) -> None:
    items = [Asked({"a": number}) for number in range(count - 1)]
    schema = {"properties": {"rows": {"uniqueItems": True}}}
    rows = [*items, Asked(items[0])]
    assert outcome(schema, {"rows": rows}) == expected
    # Of 100 there are 4950 pairs, and three looks at each.
    assert sum(one.times for one in items) <= 15_000


def test_a_list_whose_items_are_not_compared_makes_nothing_else_wrong() -> None:
    schema = {"properties": {"rows": {"not": {"uniqueItems": True}}}}
    check_arguments(schema, {"rows": [0] * 300}, "add")


def test_a_long_value_is_not_written_into_a_thousand_mistakes() -> None:
    schema = {"properties": {"a": {"anyOf": [{"type": "integer"}] * 1000}}}
    written = 0

    class Long(str):
        __slots__ = ()

        def __repr__(self) -> str:
            nonlocal written
            written += 1
            return "x" * 100_000

    check_arguments(schema, {"a": Long("a")}, "add")
    assert written <= 60


@pytest.mark.parametrize("reference", ["#here", "other", "#/$defs/a"])
def test_references_within_a_schema_are_followed(reference: str) -> None:
    schema = {
        "$id": "http://192.0.2.1/",
        "$defs": {
            "a": {"type": "integer"},
            "b": {"$anchor": "here", "type": "integer"},
            "c": {"$id": "other", "type": "integer"},
        },
        "properties": {"n": {"$ref": reference}},
    }
    check_arguments(schema, {"n": 1}, "add")
    with pytest.raises(MeshError) as caught:
        check_arguments(schema, {"n": "no"}, "add")
    assert caught.value.details["mistakes"][0]["at"] == "$.n"


FITTING: list[tuple[dict[str, Any], object]] = [
    ({"type": "number", "multipleOf": 0.01}, 19.99),
    ({"type": "number", "multipleOf": 0.1}, 0.3),
    ({"minimum": 0, "exclusiveMinimum": True}, 0.5),
    ({"maximum": 100, "exclusiveMaximum": True}, 50),
    ({"type": "object", "required": "n"}, {}),
    ({"type": "string", "nullable": True}, None),
    ({"enum": ["x"], "nullable": True}, None),
    (
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "maximum": 9,
            "exclusiveMaximum": True,
        },
        5,
    ),
]


@pytest.mark.parametrize(("schema", "value"), FITTING)
def test_what_servers_mean_by_their_schemas_is_not_refused(schema: Any, value: object) -> None:
    check_arguments({"properties": {"a": schema}}, {"a": value}, "add")


@pytest.mark.parametrize("end", ["", "#"])
def test_an_older_draft_is_known_by_both_spellings_of_its_name(end: str) -> None:
    older = {
        "$schema": f"http://json-schema.org/draft-07/schema{end}",
        "definitions": {"x": {"type": "integer"}},
        # Beside a reference nothing counted in that draft.
        "properties": {"a": {"$ref": "#/definitions/x", "type": "string"}},
    }
    check_arguments(older, {"a": 3}, "add")
    with pytest.raises(MeshError):
        check_arguments(older, {"a": "x"}, "add")


@pytest.mark.parametrize("loop", ["oneOf", "anyOf", "not", "if"])
@pytest.mark.parametrize("deep", range(0, 60, 3))
def test_a_reference_that_leads_back_to_itself_ends_nothing(loop: str, deep: int) -> None:
    back: Any = {"$ref": "#/$defs/q"}
    looped = {loop: [False, back] if loop.endswith("Of") else back}
    schema: Any = {"properties": {"a": back}, "$defs": {"q": looped}}

    def check(more: int) -> None:
        # The end of the stack is met at another place each time.
        if more:
            check(more - 1)
        else:
            check_arguments(schema, {"a": 1}, "add")

    check(deep)
