"""Live lines of one peer to others: sealed by keys of their own, and gone with the connection.

``attachment.py`` feeds it the notices of a connection and runs it beside; whoever calls a tool of
another peer opens a line, and what answers calls is handed the lines that others open. The broker
passes on bytes that it can't read, and keeps nothing of them.
"""

import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from claudemesh_mcp.client import Client
from claudemesh_mcp.line import Line, LineEnded, closed
from claudemesh_mcp.peer import Peer
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Forbidden, MeshError, Unavailable
from claudemesh_wire.handshake import MAX_CLOCK_ERROR_MS
from claudemesh_wire.keys import KEY_BYTES, b64
from claudemesh_wire.message import Notice
from claudemesh_wire.tunnel_keys import (
    Answer,
    AnswerFields,
    EphemeralKey,
    Offer,
    OfferFields,
    directions,
)
from claudemesh_wire.tunnels import (
    MAX_TUNNELS,
    DataCame,
    OpenTunnel,
    TunnelAsked,
    TunnelEnded,
)

logger: Final = logging.getLogger(__name__)

ANSWERED_WITHIN_S: Final = 10.0
_LENGTH_BYTES: Final = 2

Taker = Callable[[Line], Awaitable[None]]
"""Serves a line that another peer opened, until it ends."""


class Tunnels:
    """All lines of one peer.

    Args:
        peer: The peer.
    """

    def __init__(self, peer: Peer) -> None:
        self.taker: Taker | None = None
        """What serves the lines that others open; nobody can open one without."""
        self._peer = peer
        self._client: Client | None = None
        self._lines: dict[int, Line] = {}
        self._early: dict[int, list[DataCame | TunnelEnded]] = {}
        self._opening = 0
        self._asked: deque[TunnelAsked] = deque()
        self._doomed: list[Line] = []
        self._more = anyio.Event()

    async def run(self, client: Client) -> None:
        """Serve what others open over this connection, until cancelled."""
        self._client, self._lines, self._early = client, {}, {}
        self._asked.clear()
        self._doomed.clear()
        async with anyio.create_task_group() as tasks:
            while True:
                while self._asked:
                    tasks.start_soon(self._take, client, self._asked.popleft())
                while self._doomed:
                    tasks.start_soon(self.leave, self._doomed.pop(), "It is more than is read.")
                self._more = anyio.Event()
                await self._more.wait()

    def stop(self, client: Client) -> None:
        """This connection is gone, and with it every line over it."""
        if self._client is client:
            self._client = None
            lines, self._lines = self._lines, {}
            for line in lines.values():
                line.is_gone = True
                line.end(_lost())

    def hear(self, notice: Notice) -> bool:
        """Take a notice, if it is about a line; tell whether it was."""
        match notice:
            case TunnelAsked():
                if len(self._asked) < MAX_TUNNELS:
                    self._asked.append(notice)
                    self._more.set()
            case DataCame() | TunnelEnded():
                line = self._lines.get(notice.tunnel)
                if line is not None:
                    self._tell(line, notice)
                elif self._opening and len(self._early) < MAX_TUNNELS:
                    # The broker's answer that gives the number is still on its way to who asked.
                    # What else comes for no line is of one that was left, and nobody's.
                    self._early.setdefault(notice.tunnel, []).append(notice)
            case _:
                return False
        return True

    def _tell(self, line: Line, notice: DataCame | TunnelEnded) -> None:
        if isinstance(notice, DataCame):
            had_ended = line.has_ended
            line.hear(notice.data)
            if line.has_ended and not had_ended:
                self._doomed.append(line)
                self._more.set()
            return
        self._lines.pop(line.number, None)
        line.is_gone = True
        line.end(Unavailable(notice.reason, "Try again.", code=f"line_{notice.code}"[:40]))

    def _enter(self, client: Client, number: int) -> Line:
        line = self._lines[number] = Line(client, number)
        for notice in self._early.pop(number, ()):
            self._tell(line, notice)
        return line

    async def open(self, callee: str) -> Line:
        """Open a line to another peer.

        Args:
            callee: The peer's id.

        Raises:
            Unavailable: ``peer_offline``: it has no connection; ``not_connected``: this one has
                none; ``not_answered``: it takes no lines, or did not answer in time.
            Forbidden: ``blocked``, ``forged_tunnel``, or its certificate is not believed.
        """
        client, peer = self._client, self._peer
        if client is None:
            raise Unavailable(
                "There is no connection to the broker.",
                "It is restored by itself; try again.",
                code="not_connected",
            )
        own, key = peer.certified(), EphemeralKey(secrets.token_bytes(KEY_BYTES))
        fields = OfferFields(
            mesh=peer.trust.mesh,
            caller=peer.id,
            callee=callee,
            cert=b64(own.hash),
            eph=key.public,
            at=peer.now_ms(),
        )
        offer = Offer.make(fields, peer.device.sign.sign)
        request = OpenTunnel(peer=callee, offer=offer.blob, certificate=own.blob)
        self._opening += 1
        try:
            line = self._enter(client, (await client.call(request)).tunnel)
        finally:
            self._opening -= 1
            if not self._opening:
                self._early.clear()
        try:
            with anyio.fail_after(ANSWERED_WITHIN_S):
                self._agree(line, offer, key, await line.first())
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self.leave(line, "It was not answered as it should be.")
            if isinstance(error, LineEnded | TimeoutError):
                raise _not_answered(error) from error
            raise
        return line

    def _agree(self, line: Line, offer: Offer, key: EphemeralKey, data: bytes) -> None:
        size = int.from_bytes(data[:_LENGTH_BYTES], "big")
        start = _LENGTH_BYTES + size
        answer = Answer.parse(data[_LENGTH_BYTES:start])
        certificate = self._believed(data[start:])
        answer.check(offer, certificate)
        secret = key.agree(answer.fields.eph)
        line.begin(certificate, directions(secret, offer, answer, is_caller=True))

    def _believed(self, blob: bytes) -> Certificate:
        """Give a certificate that counts now."""
        peer, now_ms = self._peer, self._peer.now_ms()
        certificate = peer.trust.verify(blob)
        peer.trust.member_of(certificate, now_ms)
        if not certificate.fields.not_before <= now_ms <= certificate.fields.not_after:
            raise Forbidden(
                f"The certificate of {certificate.fields.handle} is not valid now.",
                "Compare the clocks of both machines.",
                code="certificate_expired",
            )
        return certificate

    async def _take(self, client: Client, asked: TunnelAsked) -> None:
        """Answer an offer, and serve the line to its end."""
        line = self._enter(client, asked.tunnel)
        taker = self.taker
        if taker is None:
            await self.leave(line, "This session offers nothing.")
            return
        try:
            await self._answer(line, asked)
            await taker(line)
        except LineEnded:
            pass
        except MeshError as error:
            self._peer.detect(error)
        except Exception:
            logger.exception("a line could not be served")
        finally:
            with anyio.CancelScope(shield=True):
                await self.leave(line, "")

    async def _answer(self, line: Line, asked: TunnelAsked) -> None:
        peer = self._peer
        offer, certificate = Offer.parse(asked.offer), self._believed(asked.certificate)
        offer.check(certificate)
        said = offer.fields
        here = (peer.trust.mesh, asked.peer, peer.id)
        is_fresh = abs(peer.now_ms() - said.at) <= MAX_CLOCK_ERROR_MS
        if (said.mesh, said.caller, said.callee) != here or not is_fresh:
            raise Forbidden(
                "An offer of a line was not meant for here and now.",
                "Compare the clocks of both machines, and try again.",
                code="stale_offer",
            )
        own, key = peer.certified(), EphemeralKey(secrets.token_bytes(KEY_BYTES))
        secret = key.agree(said.eph)
        fields = AnswerFields(
            offer=b64(offer.hash), callee=peer.id, cert=b64(own.hash), eph=key.public
        )
        answer = Answer.make(fields, peer.device.sign.sign)
        line.begin(certificate, directions(secret, offer, answer, is_caller=False))
        size = len(answer.blob).to_bytes(_LENGTH_BYTES, "big")
        await line.hand_over(size + answer.blob + own.blob)

    async def leave(self, line: Line, reason: str) -> None:
        """Close a line, and forget it."""
        self._lines.pop(line.number, None)
        if line.is_gone:
            line.end(closed())
            return
        line.is_gone = True
        await line.close(reason)


def _lost() -> MeshError:
    return Unavailable(
        "The connection to the broker ended, and the line with it.",
        "It is restored by itself; try again.",
        code="connection_lost",
    )


def _not_answered(error: Exception) -> MeshError:
    why = error.why.reason if isinstance(error, LineEnded) else "It did not answer in time."
    return Unavailable(
        f"The other session took no call: {why}",
        "See by search_peers whether it is still there, and try again.",
        code="not_answered",
    )
