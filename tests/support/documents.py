"""The tables that README.md takes from the code, and the commands that texts name.

``PYTHONPATH=.:broker python -m tests.support.documents`` writes the tables into README.md between
their marks; ``test_documents.py`` compares.
"""

import ast
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from claudemesh_mcp.rights import in_words
from claudemesh_mcp.tools import DEFINITIONS_FILE
from claudemesh_wire.grants import DEFAULTS, Capability
from tests.support.checkout import ROOT, tree

README: Final = ROOT / "README.md"

# The way of one message: each file is one hop, and none leads back.
PATH_OF_A_MESSAGE: Final = (
    "claudemesh_mcp/server.py",
    "claudemesh_mcp/session.py",
    "claudemesh_mcp/tools/messages.py",
    "claudemesh_mcp/sdk.py",
    "claudemesh_mcp/sending.py",
    "claudemesh_mcp/client.py",
    "claudemesh_mcp/connection.py",
    "broker/claudemesh_broker/websocket.py",
    "broker/claudemesh_broker/session.py",
    "broker/claudemesh_broker/service.py",
    "broker/claudemesh_broker/features/messages.py",
    "broker/claudemesh_broker/delivery.py",
    "broker/claudemesh_broker/outgoing.py",
    "claudemesh_mcp/receiving.py",
    "claudemesh_mcp/inbox.py",
)

_WORDS: Final = r"(?P<words>[a-z][a-z-]*(?: [a-z][a-z-]*)*)"
_IN_TEXT: Final = re.compile(rf"(?:`|\b[Rr]un |\b[Tt]ry )(?:\$ )?claudemesh {_WORDS}")
_IN_BLOCK: Final = re.compile(rf"^ *(?:\$ )?claudemesh {_WORDS}", re.MULTILINE)
_IN_SCRIPT: Final = re.compile(rf"(?:(?:\$command|bin/claudemesh)\"|: claudemesh|%q.*\)) {_WORDS}")
_FENCED: Final = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def definitions() -> list[dict[str, Any]]:
    """The tools as a client lists them."""
    return json.loads(DEFINITIONS_FILE.read_bytes())["tools"]


def first_sentence(text: str) -> str:
    """What a description says before it goes into detail."""
    return re.split(r"(?<=[.?!])\s", " ".join(text.split()), maxsplit=1)[0]


def tools_table() -> str:
    """One row per tool: its name, its arguments, and what it is for."""
    rows = ["| tool | what it does |", "|---|---|"]
    for tool in definitions():
        needed = tool["inputSchema"].get("required", [])
        given = [
            name if name in needed else f"{name}?" for name in tool["inputSchema"]["properties"]
        ]
        call = f"{tool['name']}({', '.join(given)})"
        rows.append(f"| `{call}` | {first_sentence(tool['description'])} |")
    return "\n".join(rows)


def path_table() -> str:
    """One row per hop of a message: the file, and how it introduces itself."""
    rows = ["| hop | file | what it is |", "|---|---|---|"]
    for number, name in enumerate(PATH_OF_A_MESSAGE, 1):
        introduced = first_sentence(ast.get_docstring(tree(ROOT / name)) or "")
        rows.append(f"| {number} | [`{name}`]({name}) | {introduced.replace('``', '`')} |")
    return "\n".join(rows)


def defaults_table() -> str:
    """One row per standing of a member, one column per capability."""
    rows = [f"| | {' | '.join(Capability)} |", f"|---|{'---|' * len(Capability)}"]
    for standing, rights in DEFAULTS.items():
        cells = [in_words(rights[one]) for one in Capability]
        rows.append(f"| {standing} | {' | '.join(cells)} |")
    return "\n".join(rows)


TABLES: Final[dict[str, Callable[[], str]]] = {
    "tools": tools_table,
    "path": path_table,
    "defaults": defaults_table,
}


def between_marks(name: str, text: str) -> str | None:
    """What stands between ``<!-- name -->`` and ``<!-- /name -->``; None without the marks."""
    found = re.search(rf"(?<=<!-- {name} -->\n).*?(?=\n<!-- /{name} -->)", text, re.DOTALL)
    return found[0] if found else None


def with_tables(text: str) -> str:
    """The text with each marked table as the code has it now."""
    for name, table in TABLES.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        text = f"{before}{mark}{table()}\n{end}{after}" if end else text
    return text


def commands(path: Path, text: str) -> list[list[str]]:
    """The words after ``claudemesh`` wherever a text tells its reader to run it."""
    found = list(_IN_TEXT.finditer(text))
    if path.suffix == ".md":
        found += [one for block in _FENCED.findall(text) for one in _IN_BLOCK.finditer(block)]
    if path.suffix in {"", ".sh"}:
        found += list(_IN_SCRIPT.finditer(text))
    return [one["words"].split() for one in found]


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text("utf-8")), "utf-8")
    sys.stdout.write(f"{README.name}: {', '.join(TABLES)}\n")
