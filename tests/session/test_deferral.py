"""Modules that are put off: not read while nobody uses them, and whole as soon as somebody does."""

import subprocess
import sys
from typing import Final

import pytest

from claudemesh_mcp.config import broker_environment

METADATA: Final = "importlib.metadata"
BACKEND: Final = "cryptography.hazmat.backends.openssl.backend"
# Forgotten first, because what measures the coverage of tests may have used one of them.
_DEFERRED: Final = f"""
import sys
sys.modules.pop("{METADATA}", None)
from claudemesh_mcp.deferral import defer
defer()
read = lambda name: type(sys.modules[name]).__name__ == "module"
"""
_KEYS: Final = """
from claudemesh_wire.keys import KemPrivateKey, SigningKey
key, kem = SigningKey(bytes(32)), KemPrivateKey(bytes(32))
assert key.public.accepts(key.sign("purpose"), "purpose")
assert kem.open(kem.public.seal(b"secret", b"info"), b"info") == b"secret"
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
        "import importlib.metadata; assert importlib.metadata.version('pytest')",
        "from importlib.metadata import entry_points; assert entry_points(group='pytest11')",
        "from importlib.metadata import PackageNotFoundError as Missing; assert Missing.__mro__",
        "import importlib.metadata as again; assert again.distribution('pytest').files",
        "from importlib import metadata; assert metadata.version('pytest')",
        "import importlib.metadata._meta; assert importlib.metadata.files('pytest')",
    ],
)
def test_who_uses_the_metadata_finds_all_of_it(use: str) -> None:
    assert runs(f"{_DEFERRED}{use}\nprint(read('{METADATA}'))") == "True"


@pytest.mark.parametrize(
    "use",
    [
        "import cryptography.hazmat.backends as all; assert all.default_backend().name",
        f"from {BACKEND} import Backend; assert Backend.name == 'openssl'",
    ],
)
def test_who_uses_the_backend_finds_all_of_it(use: str) -> None:
    assert runs(f"{_DEFERRED}{_KEYS}{use}\n{_KEYS}print(read('{BACKEND}'))") == "True"


def test_the_libraries_of_a_session_use_neither() -> None:
    uses = (
        "import websockets.client, sqlite3, anyio._backends._asyncio\n"
        "from claudemesh_wire.membership import EntryFields\n"
        "EntryFields.model_rebuild()\n"
    )
    read = f"print(read('{METADATA}'), read('{BACKEND}'))"
    assert runs(f"{_DEFERRED}{_KEYS}{uses}{read}") == "False False"


@pytest.mark.parametrize("name", [METADATA, BACKEND])
def test_what_was_imported_before_is_left_alone(name: str) -> None:
    code = (
        f"import {name} as before\n"
        "from claudemesh_mcp.deferral import defer\n"
        "defer()\n"
        f"import {name} as after\n"
        "print(before is after)"
    )
    assert runs(code) == "True"
