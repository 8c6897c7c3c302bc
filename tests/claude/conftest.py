"""Opens a room for real Claude Code clients, or says why there can be none."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.claude.client import need_client
from tests.support.claude.room import Room, a_room
from tests.support.claude.summary import note
from tests.support.twohomes import ada, bob, host

__all__ = ["ada", "bob", "host", "room"]


@pytest.fixture
async def room(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Room]:
    need_client()
    async with a_room(tmp_path) as room:
        yield room
        note(request.node, room.requests)
