"""Sends what the outbox holds, per conversation in order, until the broker has answered.

``sdk.py`` composes through it; ``attachment.py`` starts it on each new connection. One message of a
conversation is under way at a time: a refusal that is worth a repeat can then never let a later
message overtake an earlier one. Conversations do not wait for each other.
"""

import asyncio
import secrets
import sqlite3
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from claudemesh_mcp import outbox
from claudemesh_mcp.bundling import Bundling
from claudemesh_mcp.client import Client
from claudemesh_mcp.deadlines import Deadlines
from claudemesh_mcp.outbox import Draft, Row
from claudemesh_mcp.outgoing import Outgoing
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.resolving import Resolution, Resolving
from claudemesh_wire.content import KIND, pack
from claudemesh_wire.envelope import Header, MembershipHead, Sealed, seal
from claudemesh_wire.errors import (
    CLASSES,
    Conflict,
    MeshError,
    ProtocolError,
    TooMuch,
    Unavailable,
)
from claudemesh_wire.keys import b64
from claudemesh_wire.messages import Send

ANSWER_TIMEOUT_S: Final = 10.0
_PAUSE_S: Final = 0.5
_LONG_PAUSE_S: Final = 5.0
# Refusals that stored nothing and that a new sealing, here and now, can mend.
_SEAL_ANEW: Final = frozenset({"stale_recipients", "clock", "not_certified", "unknown_certificate"})


# A conversation, and what comes first in it if that was just read.
_Task = tuple[str, Row | None]


@dataclass(eq=False)
class _Waiting:
    conv: str
    done: asyncio.Future[Row | None]

    def settle(self, row: Row) -> None:
        """Give the row as it was settled."""
        if not self.done.done():
            self.done.set_result(row)


class _LineLost(Exception):
    """The connection ended; what was under way waits for the next one."""


class Sending:
    """The sender's side of one peer.

    Args:
        peer: The peer.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._client: Client | None = None
        self._tasks: TaskGroup | None = None
        self._idle: list[asyncio.Future[_Task]] = []
        self._working: set[str] = set()
        self._woken: set[str] = set()
        self._waiting: dict[str, list[_Waiting]] = {}
        self._resolving = Resolving(peer)
        self._bundles: tuple[Client, Bundling] | None = None
        self._deadlines = Deadlines(ANSWER_TIMEOUT_S, _give_none)

    async def start(self, client: Client, tasks: TaskGroup) -> None:
        """Send on this connection, beginning with what earlier ones left unanswered."""
        self._client, self._tasks, self._idle = client, tasks, []
        self._working.clear()
        self._woken.clear()
        self._resolving.forget()
        for conv in await self._peer.file.read(outbox.waiting_conversations):
            self._wake(conv)

    def stop(self, client: Client) -> None:
        """This connection is gone: rows stay and wait for the next one."""
        if self._client is client:
            self._client = self._tasks = None

    def forget_resolutions(self) -> None:
        """Ask anew who is meant: somebody came, went or changed."""
        self._resolving.forget()

    async def send(self, outgoing: Outgoing) -> Row:
        """Resolve, seal, keep and send; wait for the broker's answer as long as it is sensible.

        Returns:
            The row; still waiting when the answer did not come in time.

        Raises:
            Unavailable: there is no connection; nothing was kept.
            MeshError: the broker does not know or not allow the addressees, or refused for good.
        """
        peer = self._peer
        plaintext = pack(outgoing.fields, outgoing.text)
        identifier = outbox.message_id(peer.id, secrets.token_bytes(16), outgoing.idempotency_key)
        asked = outbox.request_hash(outgoing.to, plaintext, outgoing.re)
        row = await self._known(identifier, asked, outgoing)
        if row is None:
            resolution = await self._resolve(outgoing.to)
            await self._check_earlier(outgoing, resolution.conversation)
            draft = Draft(
                id=identifier,
                conv=resolution.conversation,
                request_hash=asked,
                addresses=outgoing.to,
                audience=resolution.audience,
                plaintext=plaintext,
                resolved_ms=resolution.resolved_ms,
                ttl_ms=outgoing.ttl_ms,
                re=outgoing.re,
                thread=outgoing.fields.thread,
            )
            row = await self._compose(draft, self._sealer(resolution))
        elif row.is_waiting:
            self._wake(row.draft.conv)
        return await self._answer(row)

    async def _check_earlier(self, outgoing: Outgoing, conv: str) -> None:
        earlier = outgoing.fields.supersedes
        if earlier is not None:
            look = partial(outbox.check_earlier, message=earlier, conv=conv, addresses=outgoing.to)
            await self._peer.file.read(look)

    async def _compose(self, draft: Draft, sealer: outbox.Seal) -> Row:
        """Seal and keep a message, and have it sent."""
        now_ms, first = self._peer.now_ms(), None

        def compose(sql: sqlite3.Connection) -> tuple[Row, bool]:
            row = outbox.compose(sql, draft, sealer, now_ms)
            return row, outbox.is_next(sql, row)

        try:
            row, is_next = await self._peer.file.write(compose)
            first = row if is_next else None
        finally:
            # Also when the caller gives up: what has a number by now has to go out.
            self._wake(draft.conv, first)
        return row

    async def _known(self, identifier: str, asked: bytes, outgoing: Outgoing) -> Row | None:
        """Give the row of a repeated request, which must not depend on a fresh resolve."""
        if outgoing.idempotency_key is None:
            return None
        row = await self._peer.file.read(lambda sql: outbox.find(sql, identifier))
        return row if row is not None and row.draft.request_hash == asked else None

    async def _answer(self, row: Row) -> Row:
        if row.is_waiting:
            row = await self._wait_for(row)
        if row.state == "refused" and row.answer is not None:
            raise _kept_error(row.answer)
        return row

    async def _wait_for(self, row: Row) -> Row:
        """Give the row as it was settled, or as it stands when the time is over."""
        one = _Waiting(row.draft.conv, asyncio.get_running_loop().create_future())
        waiting = self._waiting.setdefault(row.draft.id, [])
        waiting.append(one)
        # No scope: one for each message would cost more than looking at its answer.
        self._deadlines.watch(one.done)
        try:
            settled = await one.done
        finally:
            waiting.remove(one)
            if not waiting:
                self._waiting.pop(row.draft.id, None)
        return settled or await self._peer.file.read(lambda sql: outbox.get(sql, row.draft.id))

    def _wake(self, conv: str, first: Row | None = None) -> None:
        """Have one worker at a time send what waits in a conversation.

        Args:
            conv: The conversation.
            first: What comes first in it, if that was just read.
        """
        if first is None or conv in self._working:
            self._woken.add(conv)
        if self._tasks is not None and conv not in self._working:
            self._working.add(conv)
            while self._idle:
                called = self._idle.pop()
                if not called.done():
                    called.set_result((conv, first))
                    return
            self._tasks.start_soon(self._serve, (conv, first), self._idle)

    async def _serve(self, task: _Task, idle: list[asyncio.Future[_Task]]) -> None:
        """Work on one conversation after the other: a task costs more than many a message."""
        while True:
            await self._work(*task)
            called = asyncio.get_running_loop().create_future()
            idle.append(called)
            task = await called

    async def _work(self, conv: str, first: Row | None) -> None:
        client = self._client
        try:
            # What came behind the first has woken this again.
            if not (client and first and await self._deliver(client, first, is_alone=True)):
                self._woken.add(conv)
            while client is not None and conv in self._woken:
                self._woken.discard(conv)
                while (row := await self._next(conv)) is not None:
                    await self._deliver(client, row, is_alone=False)
                await self._find_settled(conv)
        except _LineLost:
            self._woken.add(conv)
        finally:
            if client is self._client:
                self._working.discard(conv)

    async def _find_settled(self, conv: str) -> None:
        """Tell those who still wait what another process of this peer has settled."""
        waiting = [
            name
            for name, ones in self._waiting.items()
            if ones[0].conv == conv and not ones[0].done.done()
        ]
        if waiting:
            for row in await self._peer.file.write(
                lambda sql: [outbox.get(sql, name) for name in waiting], lazily=True
            ):
                if not row.is_waiting:
                    self._settled(row)

    async def _next(self, conv: str) -> Row | None:
        return await self._peer.file.read(lambda sql: outbox.next_waiting(sql, conv))

    async def _deliver(self, client: Client, row: Row, *, is_alone: bool) -> bool:
        """Send one row, or see to it that it is not lost; tell whether the broker took it."""
        try:
            try:
                await self._hand_over(client, row, is_alone=is_alone)
            except MeshError as error:
                if error.code not in _SEAL_ANEW or row.sealings >= outbox.MAX_SEALINGS:
                    raise
                await self._seal_again(row, error)
                return False
        except MeshError as error:
            await self._put_off(row, error)
            return False
        return True

    async def _hand_over(self, client: Client, row: Row, *, is_alone: bool) -> None:
        message = Send(envelope=row.sealed, resolved_ms=row.draft.resolved_ms)
        accepted = await self._bundling(client).send(message)
        if accepted.id != row.draft.id:
            raise ProtocolError("The broker accepted another message than it was sent.")
        # Those who wait are told by the broker's word, before the file: the message is on its disk.
        self._settled(outbox.accepted_row(row, accepted))

        def settle(sql: sqlite3.Connection) -> None:
            outbox.answered(sql, row, accepted)

        # Lazily: an answer lost with the power is asked for again, by the same bytes.
        if is_alone:
            # If it can't be kept the row waits still, and is sent again for the same answer.
            self._peer.file.post(settle, partial(self._wake, row.draft.conv))
        else:
            # What is next is read behind it: were this not kept, that would be the same again.
            await self._peer.file.write(settle, lazily=True)

    def _bundling(self, client: Client) -> Bundling:
        if self._bundles is None or self._bundles[0] is not client:
            self._bundles = (client, Bundling(client))
        return self._bundles[1]

    async def _put_off(self, row: Row, error: MeshError) -> None:
        """Leave a row for a little later, or give it up."""
        if error.code == "connection_lost":
            raise _LineLost from error
        if self._is_in_time(row) and isinstance(error, ProtocolError):
            # It may have been stored: to say that it was refused could be wrong.
            self._peer.detect(error)
            await anyio.sleep(_LONG_PAUSE_S)
        elif _is_worth_a_repeat(error):
            await anyio.sleep(error.retry_after_s or _PAUSE_S)
        else:
            await self._give_up(row, error)

    async def _seal_again(self, row: Row, refusal: MeshError) -> None:
        """Seal anew for the audience of now; the broker stored nothing of the old sealing."""
        peer = self._peer
        # By the clock it was made by, before that one is put right.
        left_ms = row.expires_ms - peer.now_ms()
        if left_ms <= 0:
            raise Conflict(
                "The message expired before the broker took it.", "Send it again.", code="expired"
            )
        broker_ms = refusal.details.get("now_ms")
        if refusal.code == "clock" and isinstance(broker_ms, int):
            peer.set_clock(broker_ms)
        resolution = await self._resolve(row.draft.addresses, fresh=True)
        draft = replace(
            row.draft,
            conv=resolution.conversation,
            audience=resolution.audience,
            resolved_ms=resolution.resolved_ms,
            ttl_ms=min(left_ms, row.draft.ttl_ms),
        )
        sealer = self._sealer(resolution)
        await peer.file.write(lambda sql: outbox.seal_again(sql, draft, sealer, row.header_hash))
        if draft.conv != row.draft.conv:
            self._wake(draft.conv)

    def _is_in_time(self, row: Row) -> bool:
        return self._peer.now_ms() < row.expires_ms

    async def _give_up(self, row: Row, error: MeshError) -> None:
        refusal = {**error.as_dict(), "category": error.category}
        identifier, refused_hash = row.draft.id, row.header_hash

        def settle(sql: sqlite3.Connection) -> Row:
            outbox.refused(sql, identifier, refused_hash, refusal)
            return outbox.get(sql, identifier)

        with anyio.CancelScope(shield=True):
            self._settled(await self._peer.file.write(settle))

    def _settled(self, row: Row) -> None:
        for waiting in self._waiting.get(row.draft.id, ()):
            waiting.settle(row)

    async def _resolve(self, to: tuple[str, ...], *, fresh: bool = False) -> Resolution:
        client = self._client
        if client is None:
            raise Unavailable(
                "There is no connection to the broker.",
                "It is restored by itself; try again.",
                code="not_connected",
            )
        return await self._resolving.resolve(client, to, fresh=fresh)

    def _sealer(self, resolution: Resolution) -> outbox.Seal:
        """Give the function that seals a draft under the number it got."""
        peer = self._peer
        own = peer.certified()
        head = peer.trust.head

        def sealed(draft: Draft, seq: int) -> Sealed:
            now_ms = peer.now_ms()
            header = Header(
                mesh=peer.trust.mesh,
                conv=draft.conv,
                kind=KIND,
                id=draft.id,
                sender=peer.id,
                cert=b64(own.hash),
                mh=MembershipHead(seq=head.seq, head=b64(head.hash)),
                seq=seq,
                ts=now_ms,
                exp=now_ms + draft.ttl_ms,
                to=[one.fields.peer for one in resolution.certificates],
                kgen=[one.fields.kem_generation for one in resolution.certificates],
                kc="",
                re=draft.re,
            )
            readers = [one.kem_key for one in resolution.certificates]
            text = draft.sealed_text()
            return seal(header, text, readers, peer.device.sign, secrets.token_bytes(32))

        return sealed


def _give_none(done: asyncio.Future[Row | None]) -> None:
    done.set_result(None)


def _is_worth_a_repeat(error: MeshError) -> bool:
    """Tell whether nothing speaks against the same send a little later."""
    if isinstance(error, TooMuch):
        return error.retry_after_s is not None
    return isinstance(error, Unavailable)


def _kept_error(answer: dict[str, Any]) -> MeshError:
    kind = CLASSES.get(answer["category"], ProtocolError)
    return kind(
        answer["message"], answer["hint"], code=answer["code"], details=answer.get("details")
    )
