"""A home with one peer, whose client is the process of the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.routing import Beside, beside


@pytest.fixture
def bob(tmp_path: Path) -> Iterator[Beside]:
    """The peer's file, with the programs that a client runs beside its session."""
    with beside(tmp_path / "home") as opened:
        yield opened
