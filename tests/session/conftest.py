"""The peer file that tests here ask for, as its own thread has it open."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from claudemesh_mcp import peerfile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where it is."""
    return tmp_path / "peer.db"


@pytest.fixture
def sql(path: Path) -> Iterator[sqlite3.Connection]:
    """It, open, with its tables."""
    with closing(peerfile._connect(path)) as connection:
        yield connection
