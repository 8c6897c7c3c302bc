"""A session's watch as tests run it: begun, and then beside what the test does."""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from claudemesh_mcp import openrows
from claudemesh_mcp.calls import Notify
from claudemesh_mcp.meeting import Meeting, Starter
from claudemesh_mcp.routes.processes import Living
from claudemesh_mcp.sdk import Mesh
from claudemesh_mcp.watching import Watch
from tests.support.twopeople import LIMIT_S


def nobody() -> Notify | None:
    return None


async def begun(mesh: Mesh, notifier: Callable[[], Notify | None] = nobody) -> Watch:
    """Begin to watch a mesh as the session of this test's process."""
    starter = Starter(Living.now(os.getpid()), "a session", is_attended=True)
    watch = Watch(mesh, Meeting(mesh.peer, starter), notifier)
    await watch.begin()
    return watch


@asynccontextmanager
async def watched(
    mesh: Mesh, notifier: Callable[[], Notify | None] = nobody
) -> AsyncIterator[Watch]:
    """Watch a mesh as the session of this test's process."""
    watch = await begun(mesh, notifier)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.run)
        yield watch
        tasks.cancel_scope.cancel()


async def comes(mesh: Mesh, what: Callable[[sqlite3.Connection], object]) -> None:
    """Wait until something is so in a peer's file."""
    with anyio.fail_after(LIMIT_S):
        while not await mesh.peer.file.read(what):
            await anyio.lowlevel.checkpoint()


def showable(now_ms: int) -> Callable[[sqlite3.Connection], int]:
    """Count what a hook could show, by what it looks at."""
    return lambda sql: sum(openrows.count_open(sql, now_ms).values())
