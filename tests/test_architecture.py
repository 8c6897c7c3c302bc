"""Guards the shape of the code: small files, layers, one name per feature on each side.

It reads the checkout through ``support/checkout.py`` and ``support/refusals.py``, and the
catalogue, the handler table and the tool registry as they are after import; ``test_documents.py``
does the same for the documents.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import claudemesh_mcp.tools
from claudemesh_broker import service
from claudemesh_wire import VERSION
from claudemesh_wire.message import CATALOGUE, Request, Rule
from claudemesh_wire.remedies import REMEDIES
from tests.support.checkout import (
    BROKER,
    ROOT,
    SESSION,
    TESTS,
    WIRE,
    files,
    import_all,
    name_of,
    python_files,
    strings,
    tree,
)
from tests.support.refusals import errors_made, has_hint

MOST_LINES = 400
NO_NAMES = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}
UNFINISHED = re.compile(
    r"\b(TODO|FIXME|XXX|HACK|WIP|TBD|raise NotImplementedError|lorem ipsum|coming soon"
    r"|not (yet )?implemented|(?<!stands )for now|placeholder)\b",
    re.IGNORECASE,
)
# Hooks, monitor and status line can import no `config.py`: it needs installed packages.
ENVIRONMENT_READERS = {
    SESSION / "config.py",
    SESSION / "routes" / "places.py",
    SESSION / "statusline.py",
    BROKER / "config.py",
}
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def requests() -> list[type[Request[Any]]]:
    """Every request that a member may send; what is open to all is the handshake before that."""
    import_all()
    ours = [kind for kind in CATALOGUE.values() if kind.__module__.startswith("claudemesh_wire.")]
    return [kind for kind in ours if issubclass(kind, Request) and kind.rule is not Rule.OPEN]


def test_no_file_is_longer_than_400_lines() -> None:
    texts = [path for path in files() if path.name not in {"requirements.lock", "LICENSE"}]
    code = [path for path in texts if path.suffix in {"", ".py", ".sh", ".sql", ".toml"}]
    long = {
        name_of(path): lines
        for path in code
        if (lines := len(path.read_text("utf-8").splitlines())) > MOST_LINES
    }
    assert long == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [name_of(path) for path in python_files() if not ast.get_docstring(tree(path))]
    assert silent == []


def test_no_file_is_named_after_nothing() -> None:
    named = [path for path in python_files() if NO_NAMES & {path.stem, *path.parent.parts}]
    assert [name_of(path) for path in named] == []


def test_nothing_is_left_for_later() -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in files()
        if path != Path(__file__) and path.suffix not in {".lock", ".json"}
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert found == []


def test_imports_go_down_only() -> None:
    # In a process of its own: the linter silences every logger of the process it runs in.
    lint = "import sys, importlinter.cli as cli; sys.exit(cli.lint_imports(no_cache=True))"
    command = [sys.executable, "-c", lint]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def environment_reads(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        attribute = isinstance(node, ast.Attribute) and node.attr in {"environ", "environb"}
        function = isinstance(node, ast.Attribute) and node.attr in {"getenv", "putenv"}
        imported = isinstance(node, ast.ImportFrom) and node.module == "os"
        names = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
        if attribute or function or (imported and names & {"environ", "environb", "getenv"}):
            yield f"{name_of(path)}:{getattr(node, 'lineno', 0)}"


def test_the_environment_is_read_by_one_module_of_each_side() -> None:
    others = set(python_files(SESSION, BROKER, WIRE)) - ENVIRONMENT_READERS
    assert [place for path in sorted(others) for place in environment_reads(path)] == []


def test_every_rule_that_is_ignored_has_its_reason_beside_it() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    rules = re.compile(r'^ +"[A-Z]{1,4}[0-9]*",')
    assert [line for line in text.splitlines() if rules.match(line) and "#" not in line] == []


def test_every_request_is_served() -> None:
    asked = {kind.kind for kind in requests()}
    assert asked
    assert asked - {kind.kind for kind in service.HANDLERS} == set()


def test_a_feature_is_one_name_on_each_side() -> None:
    wire = {path.stem for path in python_files(WIRE)}
    served = {path.stem for path in python_files(BROKER / "features")} - {"__init__"}
    tests = {path.stem.removeprefix("test_") for path in python_files(TESTS / "features")}
    asked = {kind.__module__.rpartition(".")[2] for kind in requests()}
    assert served <= wire
    assert (served | asked) - tests == set()


def test_every_tool_has_a_test_that_names_it() -> None:
    import_all()
    tools = set(claudemesh_mcp.tools.REGISTRY)
    tests = [path for path in python_files(TESTS) if path.name.startswith("test_")]
    named = {text for path in tests for text in strings(path)}
    assert tools
    assert tools - named == set()


def test_what_must_be_fully_covered_is_there() -> None:
    script = (ROOT / "install.sh").read_text("utf-8")
    listed = re.findall(r"\*/(claudemesh_\w+/\w+\.py)", script)
    assert len(listed) >= 5
    assert [name for name in listed if not (ROOT / "broker" / name).exists()] == []


def test_there_is_one_version() -> None:
    assert PROJECT["project"]["version"] == VERSION


def locked() -> dict[str, str]:
    """The versions in the lock file."""
    text = (ROOT / "requirements.lock").read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==([^\s;]+)", text, re.MULTILINE))


def test_the_lock_pins_everything_that_is_asked_for() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    asked = [*PROJECT["project"]["dependencies"], *extras["test"]]
    pinned = locked()
    wrong = [
        text
        for text in asked
        if (need := Requirement(text)).name not in pinned
        or not need.specifier.contains(pinned[need.name])
    ]
    assert wrong == []


def test_the_lock_names_no_place_to_fetch_from() -> None:
    text = (ROOT / "requirements.lock").read_text("utf-8")
    assert re.findall(r"\w+://|--(?:extra-)?index|--find-links|@ ", text) == []
    blocks = re.split(r"\n(?=[a-z])", re.sub(r"(?m)^ *#.*\n", "", text))
    assert [block for block in blocks if "==" in block and "--hash=sha256:" not in block] == []


def test_every_error_says_what_can_be_done_about_it() -> None:
    made = [one for path in python_files(SESSION, BROKER, WIRE) for one in errors_made(path)]
    silent = [
        one.place
        for one in made
        if not one.has_hint and one.code not in REMEDIES and one.category not in REMEDIES
    ]
    assert len(made) > 400
    assert silent == []


@pytest.mark.parametrize(
    "hint",
    [
        '""',
        'hint=""',
        '" "',
        'f""',
        "f'{\"\"}'",
        '"Do that." if others else ""',
        'others or ""',
        'others and "Do that."',
        '"" + ""',
        "_NOTHING",
        "nothing",
        "perhaps",
        "code=CODE",
    ],
)
def test_an_empty_text_is_no_hint(hint: str) -> None:
    file = ast.parse(
        f"""
_NOTHING: Final = ""

def refuse(others, nothing="", *, perhaps="Do that.") -> MeshError:
    perhaps = ""
    return Conflict("So it is.", {hint})
"""
    )
    (call,) = (one for one in ast.walk(file) if isinstance(one, ast.Call))
    assert not has_hint(call, file)
