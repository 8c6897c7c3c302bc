"""``Mesh``: what a session, a program or the command line can do in a mesh.

``tools/*``, ``cli/`` and programs call it; it composes ``attachment.py``, ``sending.py`` and
``receiving.py`` around one ``Peer``::

    async with Mesh.connect(name="ada") as mesh:
        await mesh.send("bob", "hello")
        async for message in mesh.messages():
            print(message.handle, message.text)
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import anyio

from claudemesh_mcp import openrows, shown, waits
from claudemesh_mcp.attachment import Attachment, Dial
from claudemesh_mcp.calls import Handing
from claudemesh_mcp.client import Client
from claudemesh_mcp.config import Settings
from claudemesh_mcp.dialling import dial as dial_broker
from claudemesh_mcp.handing import READY_S, Hatch
from claudemesh_mcp.opening import set_up
from claudemesh_mcp.outgoing import Outgoing, check, content_fields
from claudemesh_mcp.peer import Peer, Setup
from claudemesh_mcp.receiving import Receiving
from claudemesh_mcp.sending import Sending
from claudemesh_mcp.servers import Servers
from claudemesh_wire.content import Priority
from claudemesh_wire.errors import MeshError
from claudemesh_wire.handshake import Mode
from claudemesh_wire.messages import DEFAULT_TTL_MS

if TYPE_CHECKING:
    from claudemesh_mcp import meshresults, results

_DEPART_S: Final = 2.0
_INFO_S: Final = 3.0
_MARGIN_MS: Final = 5000
_AT_ONCE: Final = 50


class Mesh:
    """A peer in a mesh. Use ``Mesh.connect``; every method raises ``MeshError`` when refused.

    Args:
        peer: The peer.
        dial: Opens a transport to its broker.
        mode: Attach, or call only.
    """

    def __init__(self, peer: Peer, dial: Dial, mode: Mode) -> None:
        self.peer = peer
        self.settings: Settings = peer.setup.settings
        self._mode = mode
        self._sending = Sending(peer)
        self._receiving = Receiving(peer)
        self._attachment = Attachment(peer, self._sending, self._receiving, dial, mode)
        self._hatch = Hatch(peer, self._receiving, self._attachment, mode)
        self.tunnels = self._attachment.tunnels
        self.servers = Servers(peer, self._attachment, self.ready)
        self._unconfirmed: list[str] = []
        self._has_departed = False

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        *,
        settings: Settings | None = None,
        name: str | None = None,
        resume: str | None = None,
        mesh: str | None = None,
        home: str | Path | None = None,
        attach: bool = True,
        wait_s: float = READY_S,
        session_type: str = "sdk",
    ) -> AsyncGenerator[Self]:
        """Open this home's identity, find or start its broker, and connect.

        Args:
            settings: Of this process; read from flags' defaults, environment and file if not given.
            name: The handle wished for.
            resume: Be the peer of this resume id, or of this peer id, again.
            mesh: The mesh to be in, by the name that this home calls it or its id; else the one
                that variable, project or file choose.
            home: The folder with all state, instead of ``CLAUDEMESH_HOME`` or the platform's.
            attach: Be present and receive; False for requests only, beside an attached process.
            wait_s: How long to wait for the connection; 0 to go on while it is made.
            session_type: What others see: ``claude``, ``human``, ``sdk`` …

        Raises:
            Unavailable: no connection within ``wait_s``.
            MeshError: the home can't be used, or the broker refused.
        """
        given = {"name": name, "resume": resume, "mesh": mesh, "home": home}
        settings = settings or Settings.load({k: v for k, v in given.items() if v is not None})
        setup = set_up(settings, session_type, name=name, resume=resume, attach=attach)
        dial = partial(dial_broker, settings)
        mode = Mode.ATTACH if attach else Mode.CALL
        async with cls.over(setup, dial, mode) as opened:
            if wait_s:
                await opened.ready(wait_s)
            yield opened
            await opened.depart()

    @classmethod
    @asynccontextmanager
    async def over(cls, setup: Setup, dial: Dial, mode: Mode) -> AsyncGenerator[Self]:
        """Open a peer over any transport: a socket in life, memory in tests."""
        peer = await Peer.open(setup)
        failure: BaseException | None = None
        try:
            mesh = cls(peer, dial, mode)
            await mesh._attachment.own()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(mesh._attachment.run)
                tasks.start_soon(mesh.servers.run)
                try:
                    yield mesh
                except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - see below
                    failure = error
                mesh._hatch.mark_shown()
                tasks.cancel_scope.cancel()
        finally:
            await peer.file.close()
        # Outside of the group, which would wrap it in one of exceptions.
        if failure is not None:
            raise failure

    async def ready(self, timeout_s: float = READY_S) -> Client:
        """Wait until connected; raises why not."""
        return await self._attachment.ready(timeout_s)

    @property
    def is_connected(self) -> bool:
        """Whether requests can be made now."""
        return self._attachment.is_connected

    @property
    def is_replaced(self) -> bool:
        """Whether the peer was continued in another process."""
        return self._attachment.is_replaced

    def arrival(self) -> anyio.Event:
        """Give the event that the next arrival sets."""
        return self._receiving.arrival()

    def look_again(self) -> None:
        """Learn that another process changed what is in the peer's file."""
        self._receiving.look_again()

    async def send(
        self,
        to: str | Sequence[str],
        text: str,
        *,
        priority: str = Priority.NEXT,
        reply_to: str | None = None,
        thread: str | None = None,
        expires_in_s: float | None = None,
        idempotency_key: str | None = None,
        supersedes: str | None = None,
        valid_if: Mapping[Literal["git_sha"], str] | None = None,
        wait_for: str | None = None,
        wait_s: float | None = None,
    ) -> "results.SendResult":
        """Seal a message to whoever the addresses stand for, and send it.

        Args:
            to: A handle, ``member/handle``, peer id or its first 8 characters, ``@group``, ``*``,
                or several of these.
            text: At most 256 KiB of UTF-8.
            priority: ``now``, ``next`` or ``low``.
            reply_to: The id of the message it answers.
            thread: A label that its readers see and can filter by.
            expires_in_s: How long it may wait for an absent recipient; 7 days at most.
            idempotency_key: Sending again with the same key is the same message.
            supersedes: An earlier message of this peer to them, not to be shown any more.
            valid_if: ``{"git_sha": …}``: is shown only where that commit, or one that begins with
                these 7 digits or more, is checked out by then.
            wait_for: ``delivered`` or ``seen``: wait until all recipients got so far, or can't.
            wait_s: For how long; 30 s if not given. A cancelled wait takes nothing back.

        Returns:
            The message's id and each recipient's status; ``pending`` when the broker has not
            confirmed in time: it is kept on disk and sent by itself.
        """
        until_s = anyio.current_time() + waits.check(wait_for, wait_s)
        ttl_ms = DEFAULT_TTL_MS if expires_in_s is None else int(expires_in_s * 1000)
        outgoing = Outgoing(
            to=(to,) if isinstance(to, str) else tuple(to),
            text=text,
            fields=content_fields(priority, thread, supersedes, valid_if),
            re=reply_to,
            ttl_ms=ttl_ms,
            idempotency_key=idempotency_key or None,
        )
        check(outgoing)
        await self.ready()
        sent = shown.messages.sent(self.peer, await self._sending.send(outgoing))
        if wait_for is None:
            return sent
        within = until_s - anyio.current_time(), self._mode is Mode.ATTACH
        ask = partial(self.message_status, sent.id)
        told = await waits.reach(sent.id, wait_for, ask, self.peer.hints, within)
        return waits.completed(sent, told, wait_for)

    async def inbox(
        self,
        *,
        limit: int = 20,
        wait_s: float = 0,
        thread: str | None = None,
        peek: bool = False,
        id: str | None = None,
        offset: int = 0,
        call: Handing | None = None,
    ) -> "results.InboxResult":
        """Hand out the messages that wait, oldest first.

        Args:
            limit: At most so many.
            wait_s: How long to wait for one when there is none.
            thread: Only those of this thread.
            peek: Look without taking: they stay unread.
            id: Read on in this received message instead, from byte ``offset``.
            offset: Where to read on.
            call: Is told the rows handed out. Without it they count as seen when this method is
                called again, or at ``confirm``.
        """
        if id is not None:
            return await self._hatch.read_on(id, offset)
        await self.confirm()
        watch = self._hatch.watch()
        result, tokens = await self._hatch.take(watch, limit, thread, peek=peek)
        if not result.messages:
            with anyio.move_on_after(wait_s):
                while not result.messages:
                    watch = await self._hatch.next_arrival(watch)
                    result, tokens = await self._hatch.take(watch, limit, thread, peek=peek)
        if call is not None:
            call.hands_out(tokens)
        else:
            self._unconfirmed += tokens
        return result

    async def waiting(self) -> dict[str, Any]:
        """Give what any result says of messages that wait: ``waiting``, or nothing."""
        return await self._hatch.waiting()

    async def messages(self) -> "AsyncIterator[results.InboxMessage]":
        """Give each message as it arrives; it counts as seen when the next one is asked for."""
        while True:
            await self.confirm()
            watch = self._hatch.watch()
            messages, rest = await self._hatch.take_next(watch, _AT_ONCE)
            if not messages:
                await self._hatch.next_arrival(watch)
                continue
            held_until_ms = self.peer.now_ms() + openrows.LEASE_MS - _MARGIN_MS
            try:
                for message in messages:
                    # Later than that another route may show it too.
                    if self.peer.now_ms() > held_until_ms:
                        break
                    row = rest.pop(0)
                    yield message
                    self._hatch.shown_one(row)
            finally:
                # The one that was given last may have been read; those behind it were not.
                if rest:
                    self._hatch.not_shown(rest)

    async def message_status(self, id: str) -> "results.StatusResult":
        """Give the receipts of a message this peer sent, verified.

        Raises:
            NotFound: this peer sent no such message.
            Forbidden: ``forged_receipt``: the broker shows a receipt the recipient never signed.
        """
        return await shown.messages.status(self.peer, id, partial(self.ready, READY_S))

    async def history(
        self,
        query: str = "",
        *,
        with_: str | None = None,
        before: str | None = None,
        thread: str | None = None,
        limit: int = 20,
    ) -> "results.HistoryResult":
        """Search what was sent and, once it was shown, received: the last 30 days, newest first.

        Args:
            query: Words, "phrases in quotes" and begin* of words that a text must have; none for
                all texts.
            with_: A handle, a member's name, ``member/handle``, peer id, ``@group`` or ``*``.
            before: A time as RFC 3339, a message's id, or ``next_before`` of the page before.
            thread: Only this thread.
            limit: At most so many: 1 to 100.
        """
        from claudemesh_mcp.history import wanted

        return await shown.history.searched(self.peer, wanted(query, with_, before, thread, limit))

    async def search_peers(
        self,
        query: str = "",
        *,
        filters: Mapping[str, Any] | None = None,
        limit: int = 20,
        detail: bool = False,
    ) -> "meshresults.PeersResult":
        """Find peers by handle, member, project, summary; all of them without a query."""
        request = shown.mesh.search(query, filters, limit)
        return await shown.mesh.peers(self.peer, await self.ready(), request, detail=detail)

    async def set_profile(
        self,
        *,
        handle: str | None = None,
        role: str | None = None,
        status: str | None = None,
        summary: str | None = None,
        profile: dict[str, Any] | None = None,
        visible: bool | None = None,
        share_cwd: bool | None = None,
    ) -> "meshresults.ProfileResult":
        """Change what others see of this peer; what is left out stays."""
        change = {"handle": handle, "role": role, "status": status, "summary": summary}
        change |= {"profile": profile, "visible": visible, "share_cwd": share_cwd}
        known = await shown.mesh.profile(self.peer, await self.ready(), change)
        self.servers.renamed()
        return known

    async def join(self, address: str, role: str = "") -> "meshresults.GroupResult":
        """Enter a group, ``@name``; again with another role changes the role."""
        return await shown.mesh.join(await self.ready(), address, role)

    async def leave(self, address: str) -> "meshresults.GroupResult":
        """Go out of a group."""
        return await shown.mesh.leave(await self.ready(), address)

    async def mesh_info(self) -> "meshresults.MeshInfo":
        """Say where one is connected and as whom; works without a connection too."""
        with suppress(MeshError):
            await self._attachment.ready(_INFO_S)
        hosted = self.servers.hosted()
        return await shown.mesh.mesh_info(self.peer, self._attachment, hosted)

    async def news(self) -> AsyncIterator[str]:
        """Tell who comes and goes, in a sentence each, as it happens."""
        async for heard in self.peer.news.follow():
            if sentence := heard.sentence(self.peer.trust):
                yield sentence

    async def evidence(self, tokens: Iterable[str]) -> None:
        """Take evidence that rows were shown: they are seen, and their senders are told."""
        await self._hatch.evidence(tokens)

    async def withdrawn(self, tokens: Iterable[str]) -> None:
        """Give rows back that were not shown."""
        await self._hatch.withdrawn(tokens)

    async def confirm(self) -> None:
        """Say that everything this object handed out without a ``call`` was shown."""
        tokens, self._unconfirmed = self._unconfirmed, []
        if tokens:
            await self.evidence(tokens)
            if self._mode is Mode.CALL and self._attachment.is_connected:
                await self.report()

    async def report(self) -> None:
        """Hand over the receipts that are due, now."""
        await self._receiving.flush_reports(await self.ready())

    async def depart(self) -> None:
        """Leave on purpose: others see it at once, what is sent meanwhile waits."""
        from claudemesh_wire.presence import Depart

        is_here = self._attachment.is_connected and self._mode is Mode.ATTACH
        # Said once: a broker that did not answer the first time would hold up the end again.
        if is_here and not self._has_departed:
            self._has_departed = True
            with suppress(MeshError), anyio.move_on_after(_DEPART_S):
                client = await self._attachment.ready(0)
                await self._receiving.flush_reports(client)
                await client.call(Depart())
