"""The tools as clients see them, and what a declaration may not be."""

import json
import re
from typing import Annotated, Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

import claudemesh_mcp.tools
from claudemesh_mcp.answers import Raw
from claudemesh_mcp.calls import CallContext
from claudemesh_mcp.tools import (
    ALWAYS_LOAD,
    DEFINITIONS_FILE,
    REGISTRY,
    DeclarationError,
    find,
    read_arguments,
    run,
    tool,
)
from claudemesh_mcp.tools.__main__ import changelog_line, define, generate, schema_of
from claudemesh_wire.errors import Invalid, NotFound
from tests.support.checkout import ROOT

CORE = {"send", "inbox", "search_peers"}
MAX_NAME = 64 - len("mcp__plugin_claudemesh_claudemesh__")


class Sum(BaseModel):
    """What a tool of this test gives."""

    total: int
    note: str | None = None


Number = Annotated[int, Field(ge=0, description="A number.")]


@pytest.fixture
def adding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool of this test."""
    monkeypatch.setattr(claudemesh_mcp.tools, "REGISTRY", dict(REGISTRY))

    @tool(title="Add")
    async def add_up(
        mesh: int,
        call: CallContext,
        *,
        first: Number,
        others: Annotated[list[Number] | None, Field(description="More numbers.")] = None,
    ) -> Sum:
        """Add numbers.

        Raises:
            Nothing: this is not for the reader.
        """
        call.hands_out(["row"])
        return Sum(total=mesh + first + sum(others or []))

    _ = add_up


def definitions() -> list[dict[str, Any]]:
    return json.loads(DEFINITIONS_FILE.read_bytes())["tools"]


def test_the_definitions_are_what_the_code_says() -> None:
    assert generate() == DEFINITIONS_FILE.read_bytes()


def test_a_change_of_the_definitions_is_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"Tool schema: sha256 [0-9a-f]{12}", changelog)
    assert newest
    assert newest[0] == changelog_line(DEFINITIONS_FILE.read_bytes())


def test_what_a_client_needs_at_once_is_always_loaded_and_nothing_else() -> None:
    loaded = {one["name"] for one in definitions() if one.get("_meta", {}).get(ALWAYS_LOAD)}
    assert loaded == CORE


@pytest.mark.parametrize("definition", definitions(), ids=lambda one: one["name"])
def test_a_definition_is_whole_and_within_what_clients_take(definition: dict[str, Any]) -> None:
    # Without one it is another server that says what its results look like.
    promised = [definition["outputSchema"]] if "outputSchema" in definition else []
    for schema in (definition["inputSchema"], *promised):
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert "$ref" not in json.dumps(schema)
    assert all(schema["properties"] for schema in promised)
    assert definition["inputSchema"]["additionalProperties"] is False
    assert len(definition["name"]) <= MAX_NAME
    assert len(definition["description"].encode()) <= 2048
    assert all("description" in one for one in definition["inputSchema"]["properties"].values())


def test_a_refusal_fits_no_schema_so_that_no_client_takes_it_for_a_result() -> None:
    error = {"error": {"code": "invalid", "message": "", "hint": ""}}
    fitting = [
        one["name"]
        for one in definitions()
        if "outputSchema" in one and Draft202012Validator(one["outputSchema"]).is_valid(error)
    ]
    assert fitting == []


@pytest.mark.usefixtures("adding")
async def test_a_signature_is_a_registration() -> None:
    call = CallContext()
    result = await run(10, "add_up", {"first": 1, "others": [2, 3]}, call)
    added = find("add_up")
    assert result == {"total": 16, "note": None}
    assert call.tokens == ("row",)
    assert added.description == "Add numbers."
    assert schema_of(added.arguments, "validation") == {
        "type": "object",
        "additionalProperties": False,
        "required": ["first"],
        "properties": {
            "first": {"type": "integer", "minimum": 0, "description": "A number."},
            "others": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0, "description": "A number."},
                "description": "More numbers.",
            },
        },
    }


@pytest.mark.usefixtures("adding")
@pytest.mark.parametrize(
    ("arguments", "parameter", "hint"),
    [
        ({}, "first", "A number."),
        ({"first": -1}, "first", "A number."),
        ({"first": "many"}, "first", "A number."),
        ({"first": 1, "others": [2, "x"]}, "others", "More numbers."),
        ({"first": 1, "other": [2]}, "other", "Did you mean others?"),
        ({"first": 1, "call": {}}, "call", "There are: first, others."),
    ],
)
def test_a_wrong_argument_is_named_with_what_it_should_be(
    arguments: dict[str, Any], parameter: str, hint: str
) -> None:
    with pytest.raises(Invalid) as refused:
        read_arguments(find("add_up"), arguments)
    assert parameter in refused.value.reason
    assert hint in refused.value.hint


@pytest.mark.usefixtures("adding")
def test_what_was_not_given_is_left_to_the_function() -> None:
    assert read_arguments(find("add_up"), {"first": 1}) == {"first": 1}


@pytest.mark.usefixtures("adding")
def test_a_word_of_python_s_own_is_an_argument_too() -> None:
    async def look(mesh: int, with_: Number) -> Sum:
        """Look."""
        return Sum(total=mesh + with_)

    declared(look)
    assert set(schema_of(find("look").arguments, "validation")["properties"]) == {"with"}
    assert read_arguments(find("look"), {"with": 1}) == {"with_": 1}
    with pytest.raises(Invalid) as refused:
        read_arguments(find("look"), {"with_": 1})
    assert "with" in refused.value.hint


@pytest.mark.usefixtures("adding")
async def test_a_tool_may_give_what_another_server_gave_and_then_promises_no_shape() -> None:
    async def fetch(mesh: int, first: Number) -> Raw:
        """Fetch."""
        return Raw({"content": [mesh, first]})

    declared(fetch)
    result = await run(10, "fetch", {"first": 1}, CallContext())
    assert result == Raw({"content": [10, 1]})
    assert "outputSchema" not in define(find("fetch"))


def test_a_tool_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(NotFound) as refused:
        find("snd")
    assert "send" in refused.value.hint


class Tree(BaseModel):
    """A result that a client could not be told of."""

    inner: "list[Tree]"


def declared(function: Any) -> None:
    tool(title="A tool")(function)


async def _no_mesh(first: Number) -> Sum:
    """Do."""
    return Sum(total=first)


async def _no_description(mesh: int, first: int) -> Sum:
    """Do."""
    return Sum(total=mesh + first)


async def _no_type(mesh: int, first) -> Sum:  # noqa: ANN001 - that is what is refused
    """Do."""
    return Sum(total=mesh + first)


async def _no_model(mesh: int, first: Number) -> int:
    """Do."""
    return mesh + first


async def _no_docstring(mesh: int, first: Number) -> Sum:
    return Sum(total=mesh + first)


async def _any_number(mesh: int, *first: Number) -> Sum:
    """Do."""
    return Sum(total=mesh + sum(first))


def _not_async(mesh: int, first: Number) -> Sum:
    """Do."""
    return Sum(total=mesh + first)


@pytest.mark.parametrize(
    "function",
    [_no_mesh, _no_description, _no_type, _no_model, _no_docstring, _any_number, _not_async],
    ids=lambda one: one.__name__,
)
def test_a_wrong_declaration_fails_at_import(function: Any) -> None:
    function.__name__ = function.__name__.removeprefix("_")
    with pytest.raises(DeclarationError):
        declared(function)


@pytest.mark.usefixtures("adding")
def test_two_tools_of_one_name_fail_at_import() -> None:
    async def add_up(mesh: int, first: Number) -> Sum:
        """Do."""
        return Sum(total=mesh + first)

    with pytest.raises(DeclarationError):
        declared(add_up)


def test_a_result_that_contains_itself_can_not_be_described() -> None:
    with pytest.raises(DeclarationError):
        schema_of(Tree, "serialization")


@pytest.mark.parametrize("name", ["register_mcp", "call_tool", "import_tools"])
def test_what_runs_the_programs_of_others_is_marked_as_destructive_and_open(name: str) -> None:
    [shown] = [one for one in definitions() if one["name"] == name]
    hints = shown["annotations"]
    assert hints["destructiveHint"] is True
    assert hints["openWorldHint"] is True
    assert not hints.get("readOnlyHint")
