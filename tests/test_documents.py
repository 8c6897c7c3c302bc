"""Guards what documents, scripts and hints promise: tables as the code has them, names that exist.

It reads the texts through ``support/documents.py`` and asks the command line and the tools'
definitions whether what they name is there.
"""

import json
import re

import pytest
import typer.main

from claudemesh_mcp.cli import app
from claudemesh_mcp.offer import INSTRUCTIONS
from tests.support.checkout import (
    BROKER,
    ROOT,
    SESSION,
    WIRE,
    files,
    name_of,
    python_files,
    strings,
)
from tests.support.documents import README, TABLES, between_marks, commands, definitions

CODE = python_files(SESSION, BROKER, WIRE)
QUOTED = re.compile(r"(?<!`)`([a-z]+(?:_[a-z]+)*)(?:\(|`)(?!`)")
REFUSAL = {"error", "code", "message", "hint"}
EXAMPLES = {"ada", "bob"}
DOCUMENTS = [path for path in files() if path.suffix == ".md"]
SCRIPTS = [ROOT / "install.sh", ROOT / ".ci" / "run"]
COMMANDS = typer.main.get_command(app)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_readme_is_what_the_code_says(name: str) -> None:
    assert between_marks(name, README.read_text("utf-8")) == TABLES[name]()


def exists(words: list[str]) -> bool:
    """Whether the command line knows these words, up to the first that is an argument."""
    command: object = COMMANDS
    for word in words:
        known: dict[str, object] | None = getattr(command, "commands", None)
        if known is None:
            return True
        if word not in known:
            return False
        command = known[word]
    return True


def named_commands() -> list[tuple[str, list[str]]]:
    """Every command that a document, a script, a docstring or a hint names, with its place."""
    named = [(path, path.read_text("utf-8")) for path in (*DOCUMENTS, *SCRIPTS)]
    named += [(path, text) for path in CODE for text in strings(path)]
    return [(name_of(path), words) for path, text in named for words in commands(path, text)]


def test_every_command_that_is_named_exists() -> None:
    named = named_commands()
    assert named
    assert [(place, " ".join(words)) for place, words in named if not exists(words)] == []


def words_of_the_tools() -> set[str]:
    """Names of tools, arguments, results and closed sets of values, without what is prose."""
    schemas = json.loads(json.dumps(definitions()), object_hook=without_prose)
    return REFUSAL | EXAMPLES | set(re.findall(r"[a-z]+(?:_[a-z]+)*", json.dumps(schemas)))


def without_prose(schema: dict[str, object]) -> dict[str, object]:
    """The schema without its descriptions."""
    return {
        key: value
        for key, value in schema.items()
        if not (key in {"description", "title"} and isinstance(value, str))
    }


def test_what_a_model_reads_names_only_what_the_tools_have() -> None:
    texts = [INSTRUCTIONS, *(tool["description"] for tool in definitions())]
    quoted = {word for text in texts for word in QUOTED.findall(text)}
    assert quoted >= {tool["name"] for tool in definitions()}
    assert quoted - words_of_the_tools() == set()


def test_a_hint_names_only_tools_that_exist() -> None:
    # A name of one word may be anything; one of several is a tool's, an argument's or a result's.
    quoted = {
        (name_of(path), word)
        for path in CODE
        for text in strings(path)
        for word in QUOTED.findall(text)
        if "_" in word
    }
    known = words_of_the_tools()
    assert {(place, word) for place, word in quoted if word not in known} == set()
