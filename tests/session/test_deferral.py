"""A module that is put off: not read while nobody uses it, and whole as soon as somebody does."""

import subprocess
import sys
from typing import Final

import pytest

from claudemesh_mcp.config import broker_environment

# Forgotten first, because what measures the coverage of tests may have used it.
_DEFERRED: Final = """
import sys
sys.modules.pop("importlib.metadata", None)
from claudemesh_mcp.deferral import defer_metadata
defer_metadata()
import importlib.metadata
from importlib.metadata import entry_points
read = lambda: type(sys.modules["importlib.metadata"]).__name__ == "module"
assert not read()
"""


def runs(code: str) -> str:
    """Run a program of its own and give what it printed."""
    environ = broker_environment() | {"PYDANTIC_DISABLE_PLUGINS": "__all__"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    return ended.stdout.strip()


@pytest.mark.parametrize(
    "use",
    [
        "assert importlib.metadata.version('pytest')",
        "assert entry_points(group='pytest11')",
        "from importlib.metadata import PackageNotFoundError as Missing; assert Missing.__mro__",
        "import importlib.metadata as again; assert again.distribution('pytest').files",
        "from importlib import metadata; assert metadata.version('pytest')",
        "import importlib.metadata._meta; assert importlib.metadata.files('pytest')",
    ],
)
def test_who_uses_it_finds_all_of_it(use: str) -> None:
    assert runs(f"{_DEFERRED}{use}\nprint(read())") == "True"


def test_the_libraries_of_a_session_do_not_use_it() -> None:
    uses = (
        "import websockets.client, cryptography, sqlite3, anyio._backends._asyncio\n"
        "from claudemesh_wire.membership import EntryFields\n"
        "EntryFields.model_rebuild()\n"
    )
    assert runs(f"{_DEFERRED}{uses}print(read())") == "False"


def test_it_is_left_alone_where_it_was_imported_before() -> None:
    code = (
        "import importlib.metadata as before\n"
        "from claudemesh_mcp.deferral import defer_metadata\n"
        "defer_metadata()\n"
        "import importlib.metadata as after\n"
        "print(before is after)"
    )
    assert runs(code) == "True"
