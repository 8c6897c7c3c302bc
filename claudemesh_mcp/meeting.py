"""Lets the hooks and the monitor of a client find the peer of its session, and know how it is.

``session.py`` opens one when its mesh is open and closes it at the end. What is told stands in a
record of the client, in the alias of its session, and in facts of the peer's file; all of it is
written by the functions of ``routes/``, which the programs that read it share.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import anyio.to_thread

from claudemesh_mcp.ancestors import client_pid
from claudemesh_mcp.config import Settings
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.project import as_text
from claudemesh_mcp.resuming import forget_unused
from claudemesh_mcp.routes import bells, facts, records, rests, waking
from claudemesh_mcp.routes.facts import Mode
from claudemesh_mcp.routes.processes import Living
from claudemesh_mcp.routes.records import Record

logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Starter:
    """Who started this server.

    Args:
        client: Its process.
        session: The id that its session had then, or nothing.
        is_attended: Whether somebody sits at it.
    """

    client: Living
    session: str
    is_attended: bool

    @classmethod
    def of_this_process(cls, settings: Settings) -> "Starter":
        """Say who started this process: asked before that one can have ended."""
        session = as_text(settings.session_id or "")
        return cls(Living.now(client_pid(session)), session, settings.is_attended)


class Meeting:
    """The place where one client's hooks, monitor and server meet.

    Args:
        peer: The peer of its session.
        starter: The client.
    """

    def __init__(self, peer: Peer, starter: Starter) -> None:
        self._peer = peer
        self._starter = starter
        self._data: Path = peer.home.data
        self._record = Record(
            pid=starter.client.pid,
            start=starter.client.start,
            server=os.getpid(),
            peer=peer.id,
            file=str(peer.file.path),
            session=starter.session,
            handle=peer.handle,
            mesh=peer.identity.mesh_name,
            member=peer.identity.member,
            mesh_id=peer.identity.mesh,
        )
        self._is_open = False

    @property
    def mode(self) -> Mode:
        """What this session's user wants of messages."""
        return Mode(self._peer.setup.settings.messages)

    def living(self, sql: sqlite3.Connection) -> set[str]:
        """Give the routes that could wake the client now."""
        return bells.living(sql, self._data, self._record.pid)

    async def open(self) -> None:
        """Say where the session's peer is; without it hooks show nothing, and tools go on."""
        starter = self._starter
        client, is_attended = str(starter.client), starter.is_attended
        now_ms = self._peer.now_ms()

        def begin(sql: sqlite3.Connection) -> None:
            waking.follow_clock(sql, now_ms)
            facts.begin(sql, client, starter.session, attended=is_attended)

        # Before anybody finds it: what an earlier client left there is not this one's.
        await self._peer.file.write(begin)
        self._is_open = True
        await _attempt(self._appear)

    async def can_ring(self) -> None:
        """Say that this server can send notifications to its client."""
        word = str(Living.now(os.getpid()))
        await self._peer.file.write(partial(facts.put, key=facts.CHANNEL, value=word))

    async def remain(self) -> None:
        """Write the record again if the handle is another now, or if it is not there."""
        path = Path(records.path_of(self._data, self._record))
        # Asked in the thread of the peer's file, which waits for disks anyway.
        is_there = await self._peer.file.read(lambda _: path.exists())
        is_renamed = self._record.handle != self._peer.handle
        if self._is_open and (is_renamed or not is_there):
            self._record = self._record._replace(handle=self._peer.handle)
            await _attempt(partial(records.write, self._data, self._record))

    async def take_rest(self) -> None:
        """Take in the end of a turn that a hook could not note, while the file was locked."""
        data, record = self._data, self._record
        found = await self._peer.file.read(lambda _: rests.left(data, record))
        if found:
            await self._peer.file.write(partial(rests.note, record=record, found=found))
            await _attempt(partial(rests.drop, data, record, found))

    async def close(self) -> None:
        """Take back what was said of this server; the alias stays, for whoever resumes."""
        if not self._is_open:
            return
        self._is_open = False
        record = self._record
        await _attempt(partial(records.remove, self._data, record.pid, record.server))

    def _appear(self) -> None:
        records.sweep(self._data)
        forget_unused(self._data, time.time())
        if not self._is_anothers(self._starter.session):
            mesh = self._record.mesh_id
            records.alias(self._data, self._starter.session, self._peer.id, mesh)
        records.write(self._data, self._record)

    def _is_anothers(self, session: str) -> bool:
        """Tell whether a session is of another client that lives: this one's peer is its fork."""
        owner = records.peer_of(self._data, session, self._record.mesh_id)
        if owner is None or owner == self._peer.id:
            return False
        record = records.of_peer(self._data, owner)
        return record is not None and record.pid != self._starter.client.pid


async def _attempt(act: Callable[[], None]) -> None:
    try:
        await anyio.to_thread.run_sync(act)
    except OSError as error:
        logger.warning("Hooks can't find this session: %s", error)
