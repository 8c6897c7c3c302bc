"""Guards what documents, scripts and hints promise: tables as the code has them, names that exist.

It reads the texts through ``support/documents.py`` and asks the command line and the tools'
definitions whether what they name is there.
"""

import pytest
import typer.main
from claudemesh_mcp.cli import app

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
from tests.support.documents import README, TABLES, between_marks, commands

CODE = python_files(SESSION, BROKER, WIRE)
DOCUMENTS = [path for path in files() if path.suffix == ".md"]
SCRIPTS = [ROOT / "install.sh", ROOT / ".ci" / "run"]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_readme_is_what_the_code_says(name: str) -> None:
    assert between_marks(name, README.read_text("utf-8")) == TABLES[name]()


def exists(words: list[str]) -> bool:
    """Whether the command line knows these words, up to the first that is an argument."""
    command: object = typer.main.get_command(app)
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
