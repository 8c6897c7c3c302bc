"""Keeps a peer connected: dial, shake hands, settle, serve, and all of that again when it ends.

``sdk.py`` runs one for as long as a ``Mesh`` lives and asks it for the present client. It outlives
broker restarts and reconnects with jitter; a peer that was continued elsewhere stays away.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from claudemesh_mcp import inbox, openrows, outbox
from claudemesh_mcp.catchup import catch_up
from claudemesh_mcp.causes import cause_of, is_expected
from claudemesh_mcp.certifying import certify, renew
from claudemesh_mcp.client import Client, Credentials
from claudemesh_mcp.connection import Link, pauses
from claudemesh_mcp.greeting import greet
from claudemesh_mcp.home import FileLock
from claudemesh_mcp.meshes import Place, update_place
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.receiving import Receiving
from claudemesh_mcp.sending import Sending
from claudemesh_mcp.succession import Succession
from claudemesh_mcp.tunnels import Tunnels
from claudemesh_wire import DATA_VERSION
from claudemesh_wire.errors import Conflict, MeshError, Unavailable
from claudemesh_wire.grants import GrantChanged
from claudemesh_wire.handshake import Facts, Mode
from claudemesh_wire.keys import unb64
from claudemesh_wire.meshes import LogGrew
from claudemesh_wire.message import Notice
from claudemesh_wire.messages import Deliver
from claudemesh_wire.presence import PresenceChanged
from claudemesh_wire.succession import InheritanceGrew

logger: Final = logging.getLogger(__name__)

_LOCK_ATTEMPTS: Final = 100
_LOCK_PAUSE_S: Final = 0.05
_REPLACED: Final = "replaced"
_LEAST_PAUSE_S: Final = 0.1
# Within a second or so: a broker that is started again right now is not taken for gone.
_ENOUGH_REFUSALS: Final = 5
# What a further attempt may well mend, as when a broker is just making way for another.
_PASSING: Final = frozenset({"connection_lost", "unreachable", "unavailable", "timeout"})
_WORTH_SHOWING: Final = frozenset(
    {
        "wrong_broker",
        "certificate_changed",
        "membership_rollback",
        "member_removed",
        "member_expired",
        "device_revoked",
        "mesh_ended",
        "storage_full",
        "storage_failed",
        "database_damaged",
    }
)


@dataclass(frozen=True)
class Dialed:
    """A transport to a broker, and what is known of that broker beforehand.

    Args:
        link: The transport.
        broker: The id it must prove to have.
        url: Where it is, for display.
        token: The local token, if it is local.
        version: Of its program.
        place: Where it is kept in mind, if it is another home's.
    """

    link: Link
    broker: str
    url: str
    token: bytes | None
    version: str
    place: Place | None = None


Dial = Callable[[], AbstractAsyncContextManager[Dialed]]


class Attachment:
    """The connection of one peer through all its interruptions.

    Args:
        peer: The peer.
        sending: What sends on each connection.
        receiving: What takes in from each connection.
        dial: Opens a transport; finds or starts the broker first.
        mode: Attach, or call only.
    """

    def __init__(
        self, peer: Peer, sending: Sending, receiving: Receiving, dial: Dial, mode: Mode
    ) -> None:
        self.broker: Dialed | None = None
        self.facts: Facts | None = None
        self.tunnels = Tunnels(peer)
        self._peer = peer
        self._sending = sending
        self._receiving = receiving
        self._succession = Succession(peer, receiving)
        self._dial = dial
        self.mode = mode
        self._client: Client | None = None
        self._changed = anyio.Event()
        self._failure: MeshError | None = None
        self._attempts = 0
        self._failed_attempt = 0
        self._refusals = 0
        self._asked = anyio.Event()
        self._lock: FileLock | None = None

    @property
    def holder(self) -> str:
        """The name under which this process holds what it offers."""
        nonce = self._peer.nonce
        return openrows.attached_holder(nonce) if self.mode is Mode.ATTACH else f"call:{nonce}"

    @property
    def is_connected(self) -> bool:
        """Whether requests can be made now."""
        return self._client is not None

    @property
    def failure(self) -> MeshError | None:
        """Why there is no connection, as far as that is known."""
        return None if self.is_connected else self._failure

    async def ready(self, timeout_s: float) -> Client:
        """Give the client of the present connection, waiting a little for one.

        Raises:
            Conflict: ``replaced``: the peer was continued in another process.
            MeshError: why there is no connection, as an attempt found that began after this call;
                at once if waiting a few seconds more will not help.
        """
        if self._client is not None:
            return self._client
        before = self._attempts
        self._asked.set()
        with anyio.move_on_after(timeout_s):
            while self._client is None and not self._has_failed_after(before):
                await self._changed.wait()
        if self._client is not None:
            return self._client
        raise self._failure or Unavailable(
            "The connection to the broker is still being made.",
            "Try again in a few seconds; claudemesh status shows the broker.",
            code="connecting",
        )

    async def another(self, last: Client | None) -> Client:
        """Wait for a connection that is not this one; raises ``replaced`` if none will come."""
        while self._client is None or self._client is last:
            self.refuse_if_replaced()
            await self._changed.wait()
        return self._client

    def refuse_if_replaced(self) -> None:
        """Raise ``replaced`` when the peer's messages are another process's business now."""
        if self._failure is not None and self.is_replaced:
            raise self._failure

    async def run(self) -> None:
        """Stay connected until cancelled, or until the peer is continued elsewhere."""
        waits = pauses()
        try:
            while not self.is_replaced:
                try:
                    if await self._connect_once():
                        waits = pauses()
                except Exception as error:
                    if not is_expected(error):
                        logger.exception("a connection ended unexpectedly")
                    self._fail(cause_of(error))
                if not self.is_replaced:
                    await self._pause(next(waits))
        finally:
            if self._lock is not None:
                self._lock.release()

    async def _pause(self, pause_s: float) -> None:
        """Wait before the next attempt; not for long when somebody needs the connection."""
        await anyio.sleep(min(pause_s, _LEAST_PAUSE_S))
        with anyio.move_on_after(pause_s - _LEAST_PAUSE_S):
            await self._asked.wait()

    def _has_failed_after(self, attempts: int) -> bool:
        """Tell whether an attempt behind these found what somebody has to mend first."""
        if self._failure is None or self.is_replaced:
            return self.is_replaced
        # A session waits for a broker that is away; a command says that nobody listens there.
        is_refused = self.mode is Mode.CALL and self._refusals >= _ENOUGH_REFUSALS
        lasts = is_refused or self._failure.code not in _PASSING
        return self._failed_attempt > attempts and lasts

    @property
    def is_replaced(self) -> bool:
        """Whether the peer was continued in another process."""
        return self._failure is not None and self._failure.code == _REPLACED

    def _fail(self, error: Exception) -> None:
        if not self.is_replaced:
            known = error if isinstance(error, MeshError) else None
            is_refused = isinstance(error.__cause__, ConnectionRefusedError)
            self._refusals = self._refusals + 1 if is_refused else 0
            self._failed_attempt = self._attempts
            self._failure = known or Unavailable(
                f"The broker can't be reached: {error}.",
                "Try again; claudemesh doctor says what may be in the way.",
            )
            if known is not None and known.code in _WORTH_SHOWING:
                self._peer.detect(known)
        self._signal()

    def _signal(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _connect_once(self) -> bool:
        """Hold one connection from dialling to its end; tell whether it ever stood."""
        self._attempts += 1
        self._asked = anyio.Event()
        async with self._dial() as dialed:
            client = Client(dialed.link)
            self._peer.hints.listen_by(client.hear_receipts)
            try:
                return await self._hold(client, dialed)
            finally:
                self._ended(client)
                client.close()

    async def _hold(self, client: Client, dialed: Dialed) -> bool:
        failure: MeshError | None = None
        stood = False
        told = self._peer.trust.head.seq
        facts = await self._greet(client, dialed)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run_client, client, tasks.cancel_scope)
            try:
                await self._settle(client, facts, told)
                tasks.start_soon(self._receiving.report, client)
                tasks.start_soon(self._succession.run, client)
                tasks.start_soon(renew, self._peer, client)
                tasks.start_soon(self.tunnels.run, client)
                tasks.start_soon(self._take_notices, client)
                await self._sending.start(client, tasks)
                self.broker, self.facts, self._client = dialed, facts, client
                self._failure, stood = None, True
                self._signal()
            except MeshError as error:
                failure = error
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return stood

    async def _greet(self, client: Client, dialed: Dialed) -> Facts:
        peer = self._peer
        await peer.renew_keys()
        place = dialed.place
        facts, entries = await greet(
            client,
            peer,
            Credentials(
                broker=dialed.broker,
                token=dialed.token,
                device=peer.device,
                certificate=peer.renew(peer.first_handle),
                trust=peer.trust,
                mode=self.mode,
                session=peer.setup.session,
                handles=peer.wishes,
                charter=place.charter if place else b"",
                admin_secret=peer.setup.admin_secret,
            ),
        )
        peer.set_clock(facts.now)
        if place is not None and client.charter != place.charter:
            known = replace(place, charter=client.charter)
            await anyio.to_thread.run_sync(update_place, peer.home, peer.trust.mesh, known)
        if facts.data_version > DATA_VERSION:
            peer.note("upgrade", "The broker's data is of a newer version: upgrade claudemesh.")
        if entries:
            await anyio.to_thread.run_sync(peer.trust.extend, entries)
        return facts

    async def _settle(self, client: Client, facts: Facts, told: int) -> None:
        """Learn what the broker knows more, be addressable, and own what earlier runs offered."""
        peer = self._peer
        await catch_up(peer, client, facts.head_seq, unb64(facts.head), told)
        if peer.certified().fields.handle != facts.handle:
            await certify(peer, client, facts.handle)
        peer.handle = facts.handle
        if self.mode is Mode.ATTACH:
            await self._take_lock()
        await self._succession.begin(client, facts)
        now_ms = peer.now_ms()
        for forget_old in (inbox.forget_old, outbox.forget_old):
            while await peer.file.write(partial(forget_old, now_ms=now_ms)):
                pass

    async def own(self) -> None:
        """Take the peer's lock if it is free, and offer again what a dead holder had offered.

        Before anything is handed out: a later message must not be printed before an earlier one
        that only waits for the end of a dead process's lease.
        """
        if self.mode is Mode.ATTACH and self._lock is None:
            self._lock = self._peer.take_lock()
            if self._lock is not None:
                holder = self.holder
                await self._peer.file.write(lambda sql: openrows.release_orphans(sql, holder))

    async def _take_lock(self) -> None:
        """Take the lock from the process that was replaced; it needs a moment to notice.

        The system tells nobody that a lock is free: ask a few times, then do without.
        """
        for _ in range(_LOCK_ATTEMPTS):
            await self.own()
            if self._lock is not None:
                break
            await anyio.sleep(_LOCK_PAUSE_S)

    async def _run_client(self, client: Client, scope: anyio.CancelScope) -> None:
        await client.run()
        self._ended(client)
        scope.cancel()

    def _ended(self, client: Client) -> None:
        if client.closing is not None and client.closing.code == _REPLACED:
            self._failure = Conflict(
                "This session was continued in another process, which has its messages now.",
                "Use that one; or restart this one to take it back.",
                code=_REPLACED,
            )
        if self._client is client:
            self._client = None
        self._sending.stop(client)
        self.tunnels.stop(client)
        self._signal()

    async def _take_notices(self, client: Client) -> None:
        async with client.notices:
            async for notice in client.notices:
                batch = [notice]
                with suppress(anyio.WouldBlock, anyio.EndOfStream):
                    while True:
                        batch.append(client.notices.receive_nowait())
                await self._take_batch(client, batch)

    async def _take_batch(self, client: Client, batch: list[Notice]) -> None:
        """Act on the notices that have gathered; deliveries of all of them are one commit."""
        delivers = [notice for notice in batch if isinstance(notice, Deliver)]
        for notice in batch:
            self._peer.news.hear(notice, self._peer.now_ms())
            match notice:
                case LogGrew(entries=entries):
                    extend = partial(self._peer.trust.extend, entries)
                    await anyio.to_thread.run_sync(self._check, extend)
                    self._sending.forget_resolutions()
                    self._succession.look_again()
                case GrantChanged():
                    self._receiving.look_again()
                case PresenceChanged():
                    self._sending.forget_resolutions()
                case InheritanceGrew():
                    self._succession.look()
                case _:
                    if not self.tunnels.hear(notice):
                        self._peer.hints.hear(notice)
        if delivers or any(isinstance(notice, LogGrew) for notice in batch):
            deliveries = [one for notice in delivers for one in notice.deliveries]
            certificates = [one for notice in delivers for one in notice.certificates]
            await self._receiving.take(client, deliveries, certificates)

    def _check(self, act: Callable[[], None]) -> None:
        try:
            act()
        except MeshError as error:
            self._peer.detect(error)
