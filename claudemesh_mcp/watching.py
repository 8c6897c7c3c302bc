"""Watches what hooks, commands and other sessions change behind the back of an attached session.

``session.py`` runs one beside its mesh. Receipts that hooks noted leave at once, what is not
allowed any more is kept back before a hook shows it, the transcript is asked whether what hooks
print reaches the model, the broker hears what the session does and by which routes it is reached,
and a bell rings by the client's channel when its turn has come.
"""

import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from claudemesh_mcp.calls import Notify
from claudemesh_mcp.meeting import Meeting
from claudemesh_mcp.peerfile import changes_elsewhere
from claudemesh_mcp.policy import Policy
from claudemesh_mcp.routes import bells, facts, probes
from claudemesh_mcp.routes.bells import Bell
from claudemesh_mcp.routes.facts import Activity
from claudemesh_wire.errors import MeshError
from claudemesh_wire.presence import Status, UpdatePresence
from claudemesh_wire.search import SearchPeers

if TYPE_CHECKING:
    from claudemesh_mcp.client import Client
    from claudemesh_mcp.sdk import Mesh

logger: Final = logging.getLogger(__name__)

TICK_S: Final = 0.5
_TELL_S: Final = 5.0
_TICKS_AT_LEAST: Final = 10
"""So often it is looked for what no change tells: that a bell was not answered, a monitor died."""
CHANNEL_METHOD: Final = "notifications/claude/channel"
_STATUS: Final = {Activity.WORKING: Status.WORKING, Activity.IDLE: Status.IDLE}


@dataclass(frozen=True)
class Seen:
    """What was there at one look.

    Args:
        file: Changed by another process's change of the peer's file.
        rights: Changed with the grants and blocks of the home's member.
        log: Changed with the membership log on disk.
        head: How long the verified log is.
        handle: What the mesh calls the peer.
    """

    file: int
    rights: tuple[int, ...]
    log: tuple[int, ...]
    head: int
    handle: str


@dataclass(frozen=True)
class Told:
    """What the broker was told last.

    Args:
        client: On which connection.
        status: What the session does, as far as hooks say it.
        routes: By which routes it is reached.
    """

    client: "Client | None" = None
    status: Status | None = None
    routes: tuple[str, ...] = ()


class Watch:
    """The watch of one session.

    Args:
        mesh: Its mesh.
        meeting: Where its hooks find it.
        notifier: Gives how its client is notified, once it is.
    """

    def __init__(
        self, mesh: "Mesh", meeting: Meeting, notifier: Callable[[], Notify | None]
    ) -> None:
        self._mesh = mesh
        self._peer = mesh.peer
        self._meeting = meeting
        self._told = Told()
        self._notifier = notifier
        self._can_ring = False
        self._asked_dnd = False
        self._offset_ms: int | None = None
        self._seen: Seen | None = None

    async def begin(self) -> None:
        """Let hooks find the session, once they can show nothing that is not allowed."""
        # What changes from here on, `run` finds changed.
        self._seen = await self._look()
        await self._judge()
        await self._note_clock()
        await self._meeting.open()

    async def run(self) -> None:
        """Look twice a second, until the peer is another process's."""
        seen = self._seen or await self._look()
        # Whatever came before the first look is looked at with the first tick.
        arrival = anyio.Event()
        arrival.set()
        ticks = 0
        while not self._mesh.is_replaced:
            await anyio.sleep(TICK_S)
            ticks += 1
            has_arrived, arrival = arrival.is_set(), self._mesh.arrival()
            try:
                before, seen = seen, await self._look()
                if seen != before:
                    await self._act(before, seen)
                has_changed = (seen.file, seen.handle) != (before.file, before.handle)
                if has_arrived or has_changed or ticks % _TICKS_AT_LEAST == 0:
                    await self._meeting.remain()
                    await self._meeting.take_rest()
                    await self._note_clock()
                    await self._settle_probe()
                    await self._tell()
                    await self._ring()
            except MeshError as error:
                # A full disk, a locked file: the next look may find it otherwise.
                logger.warning("The session's file could not be looked at: %s", error.code)
            except Exception:
                logger.exception("A look at the session's file failed.")
        # Its messages are shown where it was continued, and by nobody here.
        await self._meeting.close()

    async def _look(self) -> Seen:
        peer = self._peer
        paths = (peer.grants.path, peer.trust.path)
        head, handle = peer.trust.head.seq, peer.handle

        def look(sql: sqlite3.Connection) -> Seen:
            rights, log = map(_stamp, paths)
            return Seen(changes_elsewhere(sql), rights, log, head, handle)

        return await peer.file.read(look)

    async def _act(self, before: Seen, now: Seen) -> None:
        if now.log != before.log:
            await self._learn_log()
        if (now.rights, now.log, now.head) != (before.rights, before.log, before.head):
            await self._judge()
        if now.file != before.file:
            self._mesh.look_again()

    async def _learn_log(self) -> None:
        """Take over what another session of this home has verified."""
        try:
            await anyio.to_thread.run_sync(partial(self._peer.trust.extend, ()))
        except MeshError as error:
            self._peer.detect(error)

    async def _judge(self) -> None:
        """Keep back what its readers' grants do not let through any more.

        Hooks know no grants: what they may show is what is not held. While the grants can't be
        read, they show no text at all.
        """
        policy, now_ms = Policy(self._peer), self._peer.now_ms()
        wanted = self._meeting.mode

        def judge(sql: sqlite3.Connection) -> MeshError | None:
            try:
                policy.keep_back(sql, now_ms)
            except MeshError as error:
                facts.set_mode(
                    sql, facts.Mode.OFF if wanted is facts.Mode.OFF else facts.Mode.INBOX
                )
                return error
            facts.set_mode(sql, wanted)
            return None

        refused = await self._peer.file.write(judge)
        if refused is not None:
            self._peer.detect(refused)
        if policy.has_news:
            self._mesh.look_again()

    async def _tell(self) -> None:
        """Tell the broker what has changed of what others see."""
        if not self._mesh.is_connected:
            return
        try:
            client = await self._mesh.ready(0)
            await self._know_dnd(client)
            now = await self._peer.file.read(partial(self._state, client))
            change = _difference(self._told if self._told.client is client else Told(client), now)
            if change:
                await client.call(UpdatePresence(**change), _TELL_S)
            self._told = now
            if "status" in change and await self._peer.file.read(facts.is_dnd):
                # It was asked for meanwhile, and what was told may have come behind it.
                await client.call(UpdatePresence(status=Status.DND), _TELL_S)
        except MeshError as error:
            logger.debug("The broker was not told of a change: %s", error.code)

    async def _settle_probe(self) -> None:
        """Look in the client's transcript for what a hook has printed to probe the hooks."""
        file, now_ms = self._peer.file, self._peer.now_ms()
        found = await file.read(partial(probes.verdict, now_ms=now_ms))
        if found is not None:
            await file.write(partial(probes.settle, found=found))

    async def _note_clock(self) -> None:
        """Let hooks and monitor go by the same time: what one hands out the others leave alone."""
        offset_ms = self._peer.offset_ms
        if offset_ms != self._offset_ms:
            await self._peer.file.write(partial(facts.set_offset, offset_ms=offset_ms))
            self._offset_ms = offset_ms

    async def _know_dnd(self, client: "Client") -> None:
        """Learn once, from the broker, whether a peer that never said so here asks for quiet."""
        if self._asked_dnd or await self._peer.file.read(lambda sql: facts.get(sql, facts.DND)):
            self._asked_dnd = True
            return
        found = await client.call(SearchPeers(query=self._peer.id, limit=1), _TELL_S)
        own = [card.status for card in found.peers if card.peer == self._peer.id]
        is_dnd = own == [Status.DND]
        await self._peer.file.write(partial(facts.set_dnd, on=is_dnd))
        self._asked_dnd = True

    def _state(self, client: "Client", sql: sqlite3.Connection) -> Told:
        alive = self._meeting.living(sql)
        routes = tuple(bells.reaching(sql, alive, self._peer.now_ms()))
        # Before the first hook ran, what is noted is no more than a guess.
        is_known = facts.get_int(sql, facts.ACTIVITY_MS) > 0 and not facts.is_dnd(sql)
        activity = facts.activity(sql) if is_known else None
        return Told(client, _STATUS.get(activity) if activity else None, routes)

    async def _ring(self) -> None:
        """Ring by the channel, if that is the route whose turn it is."""
        notify = self._notifier()
        if notify is None:
            return
        if not self._can_ring:
            await self._meeting.can_ring()
            self._can_ring = True
        now_ms = self._peer.now_ms()

        def is_due(sql: sqlite3.Connection) -> bool:
            alive = self._meeting.living(sql)
            return any(due(sql, bells.CHANNEL, alive, now_ms) for due, _ in bells.KINDS)

        def ring(sql: sqlite3.Connection) -> Bell | None:
            alive = self._meeting.living(sql)
            rung = (ring(sql, bells.CHANNEL, alive, now_ms) for _, ring in bells.KINDS)
            return next(filter(None, rung), None)

        if await self._peer.file.read(is_due):
            bell = await self._peer.file.write(ring)
            if bell is not None:
                notify(CHANNEL_METHOD, channel_event(bell))


def channel_event(bell: Bell) -> dict[str, Any]:
    """Give the parameters of the notification: one value that is no text would lose all of it."""
    return {"content": bell.line, "meta": {"messages": str(bell.messages), "bell": bell.nonce}}


def _difference(before: Told, now: Told) -> dict[str, Any]:
    change: dict[str, Any] = {}
    if now.status is not None and now.status != before.status:
        change["status"] = now.status
    if now.routes != before.routes:
        change["routes"] = list(now.routes)
    return change


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)
