"""The session behind the front: how it opens the mesh, says what is wrong, and leaves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from claudemesh_mcp.calls import CallContext
from claudemesh_mcp.config import Settings
from claudemesh_mcp.sdk import Mesh
from claudemesh_mcp.session import MeshSession
from claudemesh_wire.errors import Forbidden, MeshError, Unavailable

LIMIT_S = 10


class Door:
    """A mesh that does not open, in the way that a test wants."""

    def __init__(self, refusal: MeshError | None = None) -> None:
        self.refusal = refusal
        self.tried = 0
        self.left = False

    @asynccontextmanager
    async def open(self, _settings: Settings) -> AsyncIterator[Mesh]:
        self.tried += 1
        if self.refusal:
            raise self.refusal
        try:
            await anyio.sleep_forever()
            yield  # type: ignore[misc]
        finally:
            self.left = True


@asynccontextmanager
async def started(door: Door, opened_within_s: float = LIMIT_S) -> AsyncIterator[MeshSession]:
    """Give a session that has begun to open the mesh; close it at the end."""
    session = MeshSession(Settings(), door.open, opened_within_s)
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.start)
            while not door.tried:
                await anyio.lowlevel.checkpoint()
            yield session
            await session.close()


async def refused(session: MeshSession) -> MeshError:
    with pytest.raises(MeshError) as caught:
        await session.call("mesh_info", {}, CallContext())
    return caught.value


async def test_a_call_that_comes_before_the_mesh_is_open_says_so() -> None:
    async with started(Door(), opened_within_s=0.01) as session:
        error = await refused(session)
        assert isinstance(error, Unavailable)
        assert (error.code, error.retry_after_s) == ("starting", 5)
        assert error.hint


async def test_what_keeps_the_mesh_from_opening_is_what_a_call_says() -> None:
    door = Door(Forbidden("The home is open to others.", "Close it.", code="wrong_mode"))
    async with started(door) as session:
        assert (await refused(session)).code == "wrong_mode"


async def test_a_call_is_answered_by_a_fresh_attempt_and_not_by_an_old_refusal() -> None:
    door = Door(Forbidden("The home is open to others.", "Close it.", code="wrong_mode"))
    async with started(door) as session:
        await refused(session)
        door.refusal = Unavailable("The disk is full.", "Free some space.", code="storage_full")
        assert (await refused(session)).code == "storage_full"
        assert door.tried >= 2


async def test_a_session_that_is_closed_while_it_opens_the_mesh_leaves_at_once() -> None:
    door = Door()
    async with started(door):
        pass
    assert door.left


async def test_a_session_that_is_closed_between_two_attempts_leaves_at_once() -> None:
    door = Door(Forbidden("The home is open to others.", "Close it.", code="wrong_mode"))
    async with started(door) as session:
        await refused(session)


async def test_a_session_that_never_started_can_be_closed() -> None:
    with anyio.fail_after(LIMIT_S):
        await MeshSession(Settings(), Door().open).close()
