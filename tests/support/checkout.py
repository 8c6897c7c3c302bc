"""What the checkout holds: its files, their syntax trees, and the strings in them.

``test_architecture.py`` and ``test_install.py`` read the project through here.
"""

import ast
import importlib
import pkgutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SESSION: Final = ROOT / "claudemesh_mcp"
BROKER: Final = ROOT / "broker" / "claudemesh_broker"
WIRE: Final = ROOT / "broker" / "claudemesh_wire"
TESTS: Final = ROOT / "tests"
PACKAGES: Final = ("claudemesh_wire", "claudemesh_broker", "claudemesh_mcp")


@cache
def files() -> tuple[Path, ...]:
    """Every file that is committed or about to be, without what .gitignore names."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def python_files(*folders: Path) -> list[Path]:
    """The Python files below these folders; all of them without a folder."""
    below = folders or (ROOT,)
    return [
        path
        for path in files()
        if path.suffix == ".py" and any(path.is_relative_to(folder) for folder in below)
    ]


def import_all() -> None:
    """Import every module of the product."""
    for package in map(importlib.import_module, PACKAGES):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def name_of(path: Path) -> str:
    """A path as the reader of a failure wants it."""
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def strings(path: Path) -> Iterator[str]:
    """The texts in a Python file: literals, also the fixed parts of f-strings, and docstrings."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
