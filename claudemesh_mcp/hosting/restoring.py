"""Hosts the servers of this home that come back: each in one peer at a time that it fits.

``servers.py`` has one for each ``Mesh`` whose home keeps any. Who holds a server's lock hosts it;
the system frees the lock of a process that ends, however it does, and another one takes it.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from claudemesh_mcp.attachment import Attachment
from claudemesh_mcp.client import Client
from claudemesh_mcp.home import FileLock
from claudemesh_mcp.hosting.ending import forget_left_over, taken_back
from claudemesh_mcp.hosting.offering import Offering
from claudemesh_mcp.hosting.registry import (
    Contents,
    Entry,
    Holder,
    Registry,
    Stamp,
    name_of,
    place_of,
    taken,
)
from claudemesh_mcp.hosting.standing import Hosting, Registered
from claudemesh_mcp.hosting.wishes import Scope, ServerWish
from claudemesh_mcp.opening import CLAUDE, RESIDENT
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.routes import facts
from claudemesh_wire.errors import Conflict, Invalid, MeshError

logger: Final = logging.getLogger(__name__)

LOOK_S: Final = 1.0
_threaded: Final = anyio.to_thread.run_sync


@dataclass(eq=False)
class _Held:
    """A server that this peer hosts because it comes back.

    Args:
        entry: What is kept of it.
        lock: The right to host it.
        late: Other peers by which the mesh may still know it.
        noted: What others of this home were told last.
    """

    entry: Entry
    lock: FileLock
    late: set[str] = field(default_factory=set[str])
    noted: Holder | None = None


class Restoring:
    """What one peer hosts of what comes back.

    Args:
        peer: The peer.
        offering: What it offers.
        attachment: Its connection.
    """

    def __init__(self, peer: Peer, offering: Offering, attachment: Attachment) -> None:
        self._peer = peer
        self._offering = offering
        self._attachment = attachment
        self._registry = Registry(peer.identity)
        self._held: dict[str, _Held] = {}
        self._kept = Contents((), ())
        self._stamp: Stamp | None = None

    async def run(self) -> None:
        """Look again and again, until cancelled or until the peer is another process's."""
        # Before its first connection a peer has no handle that it could sign with.
        try:
            await self._attachment.another(None)
        except Conflict:
            return
        try:
            while not self._attachment.is_replaced:
                await self._look()
                await anyio.sleep(LOOK_S)
        finally:
            with anyio.CancelScope(shield=True):
                for one in list(self._held.values()):
                    await self._let_go(one)

    # ---- For whom registers here -------------------------------------------------------------

    async def register(self, wish: ServerWish) -> Registered:
        """Start a server and offer it, and keep it from then on; when that fails nothing stays.

        Raises:
            Conflict: ``name_taken``: this session, or another one here, offers one by that name.
            Invalid: ``bad_scope``: no session hosts what is for the broker's machine;
                ``bad_server``, ``bad_viewer``.
            MeshError: as ``Offering.register``; or it can't be kept.
        """
        if wish.scope is Scope.BROKER:
            raise Invalid(
                "A server of the scope broker is hosted by no session.",
                "A human adds it: claudemesh mcp-server add NAME --scope broker -- COMMAND",
                code="bad_scope",
            )
        # Its name is to be one of a file.
        wish.check()
        peer = self._peer
        folder = place_of(peer.setup.folder)
        entry = Entry(wish, folder, peer.id, peer.handle, peer.now_ms())
        lock = self._registry.take(entry.key)
        if lock is None:
            raise taken(entry)
        try:
            made = await self._register(entry)
        except BaseException:
            lock.release()
            raise
        # It is kept; that others can't be told how it is now is mended with the next look.
        with suppress(MeshError):
            await self._hold(entry, lock)
        return made

    async def _register(self, entry: Entry) -> Registered:
        if self._registry.has(entry):
            raise taken(entry)
        made = await self._offering.register(_placed(entry))
        try:
            await _threaded(partial(self._registry.add, entry))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._offering.withdraw(entry.wish.name)
            raise
        return made

    async def forget(self, name: str) -> None:
        """Keep a server no longer that this session offers no more; nothing if it was not kept."""
        for one in [one for one in self._held.values() if one.entry.wish.name == name]:
            await _threaded(partial(self._registry.remove, one.entry))
            await self._let_go(one)

    # ---- One look ----------------------------------------------------------------------------

    async def _look(self) -> None:
        try:
            await self._read()
            await self._host()
            if self._attachment.is_connected:
                await self._tidy(await self._attachment.ready(0))
        except MeshError as error:
            logger.warning("The servers that come back could not be looked at: %s", error)
        except Exception:
            logger.exception("A look at the servers that come back failed.")

    async def _read(self) -> None:
        stamp = await _threaded(self._registry.stamp)
        if stamp != self._stamp:
            self._kept, self._stamp = await _threaded(self._registry.read), stamp
            for fault in self._kept.faults:
                self._peer.detect(fault.error)

    async def _host(self) -> None:
        """Host what came, end what went, and say how the rest is."""
        kept = {entry.key: entry for entry in self._kept.entries}
        for one in list(self._held.values()):
            if kept.get(one.entry.key) != one.entry:
                await self._let_go(one)
        for entry in kept.values():
            if entry.key not in self._held and self._fits(entry):
                await self._take(entry)
        for one in list(self._held.values()):
            await self._follow(one)

    def _fits(self, entry: Entry) -> bool:
        """Tell whether this peer is one that hosts a server; a program hosts only its own."""
        setup = self._peer.setup
        if setup.session.type not in {CLAUDE, RESIDENT}:
            return False
        return entry.fits(setup.folder, is_resident=setup.session.type == RESIDENT)

    async def _take(self, entry: Entry) -> None:
        """Host a server, unless somebody else does."""
        lock = self._registry.take(entry.key)
        if lock is None:
            return
        try:
            if not self._registry.has(entry):
                lock.release()
                return
            await self._offering.restore(_placed(entry))
        except MeshError as error:
            # Told once; another session may be able to.
            self._peer.detect(error)
            lock.release()
            return
        except BaseException:
            lock.release()
            raise
        await self._hold(entry, lock)
        line = f"{entry.wish.name}: {entry.wish.launch.command_line}"
        await self._peer.file.write(lambda sql: facts.add_started(sql, line))

    async def _hold(self, entry: Entry, lock: FileLock) -> None:
        """Take note that this peer hosts a server now, and who did before."""
        one = self._held[entry.key] = _Held(entry, lock)
        before = await _threaded(partial(self._registry.holder, entry.key))
        if before is not None:
            one.late = {before.peer, *before.late} - {self._peer.id}
        await self._note(one)

    async def _let_go(self, one: _Held) -> None:
        """End a server, and let another peer host it; the mesh is told by ``_tidy``."""
        if self._held.pop(one.entry.key, None) is one:
            await self._offering.drop(one.entry.wish.name)
            one.lock.release()

    # ---- What is told of it ------------------------------------------------------------------

    def _hosting(self, one: _Held) -> Hosting | None:
        hosted = self._offering.hosted()
        return next((it for it in hosted if it.name == one.entry.wish.name), None)

    async def _note(self, one: _Held) -> None:
        """Let others of this home know how it is with a server, if that is new."""
        hosting = self._hosting(one)
        if hosting is None:
            return
        said = hosting.condition
        now = Holder(
            self._peer.id,
            self._peer.handle,
            "refused" if hosting.refused else said.state,
            said.since_ms,
            hosting.refused or said.why,
            tuple(sorted(one.late)),
        )
        if now != one.noted:
            await _threaded(partial(self._registry.note, one.entry.key, now))
            one.noted = now

    async def _follow(self, one: _Held) -> None:
        """Say how a server is, and take back what other peers offered that hosted it before."""
        hosting = self._hosting(one)
        if one.late and hosting is not None and hosting.is_offered:
            client = await self._attachment.ready(0)
            one.late -= await taken_back(client, one.entry.wish.name, one.late)
        await self._note(one)

    async def _tidy(self, client: Client) -> None:
        """Take back what the mesh may still know of servers that are kept no more."""
        for left in await _threaded(self._registry.left_over):
            lock = self._registry.take(left)
            if lock is None:
                continue
            try:
                # What it offers itself by that name now is another server.
                names = {one.name for one in self._offering.hosted()}
                spared = self._peer.id if name_of(left) in names else ""
                await forget_left_over(self._registry, left, client, spared)
            finally:
                lock.release()


def _placed(entry: Entry) -> ServerWish:
    """Give the wish as it is made true: its command runs in the folder it was registered in."""
    launch = entry.wish.launch
    if launch.url:
        return entry.wish
    cwd = str(Path(entry.folder, launch.cwd))
    return replace(entry.wish, launch=replace(launch, cwd=cwd))
