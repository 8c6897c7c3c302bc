"""One connection to a broker: the handshake, then requests and notices over it.

``attachment.py`` makes a client per connection and lets it run; ``sending.py``, ``receiving.py``
and ``sdk.py`` call through it. The transport is a ``Link`` that is handed in.
"""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import anyio
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from claudemesh_mcp.connection import Link, LinkClosed
from claudemesh_mcp.deadlines import Deadlines
from claudemesh_mcp.identity import Device
from claudemesh_mcp.trust import Trust
from claudemesh_wire import VERSION, canonical
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import MeshError, ProtocolError, Unavailable
from claudemesh_wire.exchange import Answered, Asked, Exchange, Malformed, Noticed
from claudemesh_wire.handshake import (
    NONCE_BYTES,
    Challenge,
    Claims,
    Closing,
    Facts,
    Hello,
    Mode,
    Session,
    Welcome,
    admin_mac,
    check_challenge,
    check_welcome,
    hello_mac,
    nonce_text,
    sign_hello,
)
from claudemesh_wire.keys import VerifyKey, b64
from claudemesh_wire.message import Message, Notice, ReplyT, Request
from claudemesh_wire.receipts import ReceiptNews

logger: Final = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S: Final = 10.0
CALL_TIMEOUT_S: Final = 30.0
_MOST_NOTICES: Final = 10_000
_TRY_AGAIN: Final = (
    "Try again; if it goes on, claudemesh status and its log say what the broker does."
)
# As base64 in a frame of 1 MiB.
_MOST_OFFERED_BYTES: Final = 512 * 1024


@dataclass(frozen=True)
class Credentials:
    """What a client shows and expects in the handshake.

    Args:
        broker: The id of the broker that is expected.
        token: The local token, which is proved but never sent; ``None`` for a remote broker.
        device: The keys of the peer.
        certificate: Valid now; carries the handle last given or wished for.
        trust: What is believed of the mesh.
        mode: Attach or call.
        session: What the session says of itself.
        handles: The handles wished for, best first.
        charter: The broker's earlier word that it serves the mesh, should it have lost the log.
        admin_secret: Of the broker, to make a mesh there; proved but never sent.
    """

    broker: str
    token: bytes | None
    device: Device
    certificate: Certificate
    trust: Trust
    mode: Mode
    session: Session
    handles: tuple[str, ...]
    charter: bytes = b""
    admin_secret: bytes | None = None


_Outcome = Message | MeshError


class Client:
    """A connection that has not said hello yet; ``greet`` first, then ``run`` beside ``call``.

    Args:
        link: The transport.
    """

    def __init__(self, link: Link) -> None:
        self.closing: Closing | None = None
        self.charter = b""
        self._challenge: Challenge | None = None
        self._link = link
        self._exchange = Exchange()
        self.hear_receipts(wanted=False)
        self._waiting: dict[int, asyncio.Future[_Outcome]] = {}
        self._deadlines: dict[float, Deadlines] = {}
        self._ended = False
        sender, receiver = anyio.create_memory_object_stream[Notice](_MOST_NOTICES)
        self._tell: MemoryObjectSendStream[Notice] = sender
        self.notices: MemoryObjectReceiveStream[Notice] = receiver

    def hear_receipts(self, *, wanted: bool) -> None:
        """Say whether somebody waits for receipts.

        They are shown from the broker's answers alone, which carry the proofs: what it pushes is
        worth reading only to whoever wants to know when to ask.
        """
        self._exchange.hear_all_but([] if wanted else [ReceiptNews.kind])

    async def greet(self, credentials: Credentials) -> tuple[Facts, list[bytes]]:
        """Shake hands.

        Returns:
            What the broker says, verified, and the membership entries it sent along, unverified.

        Raises:
            Unauthenticated: ``wrong_broker``, or the broker does not believe us.
            Unavailable: it did not answer in time.
            MeshError: whatever else the broker refuses with.
        """
        try:
            with anyio.fail_after(HANDSHAKE_TIMEOUT_S):
                return await self._greet(credentials)
        except TimeoutError as error:
            raise Unavailable("The broker did not answer the hello in time.", _TRY_AGAIN) from error
        except LinkClosed as error:
            raise self._lost() from error

    async def _greet(self, credentials: Credentials) -> tuple[Facts, list[bytes]]:
        challenge = await self._hear_challenge()
        key = check_challenge(challenge, credentials.broker)
        claims = _claims(credentials, challenge)
        entries, offered, log = credentials.trust.chain.entries, -1, list[bytes]()
        while True:
            try:
                return await self._hello(credentials, claims, key, log)
            except MeshError as error:
                known = _known_to_broker(error)
                # Asked for the same again, it takes nothing of what it is offered.
                if known is None or not offered < known < len(entries):
                    raise
                # It lost the log, or its end, with its disk, or never had it: offer ours.
                offered, log = known, _part(entries, known)

    async def meet(self, broker: str) -> Challenge:
        """Hear the broker's first words without a hello to follow, for ``ask``.

        Args:
            broker: The id that is expected; empty to take whichever it is.

        Raises:
            Unauthenticated: ``wrong_broker``.
            Unavailable: it did not answer in time, or closed.
        """
        try:
            with anyio.fail_after(HANDSHAKE_TIMEOUT_S):
                challenge = await self._hear_challenge()
        except TimeoutError as error:
            raise Unavailable(
                "The broker did not say its first words in time.", _TRY_AGAIN
            ) from error
        except LinkClosed as error:
            raise self._lost() from error
        check_challenge(challenge, broker or challenge.broker)
        return challenge

    async def ask(self, request: Request[ReplyT]) -> ReplyT:
        """Ask for what is open to all, before a hello and without ``run``.

        Raises:
            Unavailable: it did not answer in time, or the connection ended.
            MeshError: what the broker refused with.
        """
        try:
            with anyio.fail_after(HANDSHAKE_TIMEOUT_S):
                return cast("ReplyT", await self._asked(request))
        except TimeoutError as error:
            raise Unavailable(
                "The broker did not answer in time.", _TRY_AGAIN, code="timeout"
            ) from error
        except LinkClosed as error:
            raise self._lost() from error

    async def _hear_challenge(self) -> Challenge:
        if self._challenge is not None:  # A second hello follows the same challenge.
            return self._challenge
        event = self._exchange.receive(await self._link.receive())
        if isinstance(event, Noticed):
            if isinstance(event.notice, Challenge):
                self._challenge = event.notice
                return event.notice
            if isinstance(event.notice, Closing):
                self.closing = event.notice
                raise self._lost()
        raise ProtocolError(
            "The broker did not begin with a challenge.",
            "Perhaps it is something else that listens there: look at the broker's address.",
        )

    async def _hello(
        self, credentials: Credentials, claims: bytes, key: VerifyKey, log: list[bytes]
    ) -> tuple[Facts, list[bytes]]:
        blob = credentials.certificate.blob
        token, secret = credentials.token, credentials.admin_secret
        hello = Hello(
            claims=claims,
            certificate=blob,
            signature=sign_hello(claims, blob, credentials.device.sign),
            token_mac=hello_mac(token, claims, blob) if token else b"",
            admin_mac=admin_mac(secret, claims, blob) if secret and log else b"",
            charter=credentials.charter if log else b"",
            log=log,
        )
        welcome = cast("Welcome", await self._asked(hello))
        facts = check_welcome(welcome, claims, key, token)
        self.charter = welcome.charter
        return facts, welcome.entries

    async def _asked(self, request: Request[Any]) -> Message:
        """Send a request and take its answer from the link oneself, as nothing else does yet."""
        number, text = self._exchange.ask(request)
        await self._link.send(text)
        while True:
            event = self._exchange.receive(await self._link.receive())
            if isinstance(event, Noticed) and isinstance(event.notice, Closing):
                self.closing = event.notice
                raise self._lost()
            if isinstance(event, Answered) and event.number == number:
                if isinstance(event.outcome, MeshError):
                    raise event.outcome
                return event.outcome

    async def run(self) -> None:
        """Take in what arrives until the connection ends; then every open call fails."""
        try:
            while True:
                await self._take(await self._link.receive())
        except LinkClosed:
            pass
        finally:
            self._ended = True
            for deadline in self._deadlines.values():
                deadline.stop()
            for waiting in self._waiting.values():
                _settle(waiting, self._lost())
            self._tell.close()

    async def call(self, request: Request[ReplyT], timeout_s: float = CALL_TIMEOUT_S) -> ReplyT:
        """Ask the broker and give its reply.

        Args:
            request: What to ask.
            timeout_s: How long to wait for the answer.

        Raises:
            Unavailable: ``connection_lost`` or ``timeout``; whether it was done is not known.
            MeshError: what the broker refused with.
        """
        if self._ended:
            raise self._lost()
        number, text = self._exchange.ask(request)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        # No scope: one for each request would cost more than writing it.
        self._deadline(timeout_s).watch(waiting)
        try:
            await self._link.send(text)
            outcome = await waiting
        except LinkClosed as error:
            # Whoever asks again at once must not keep ``run`` from noticing the end.
            await checkpoint()
            raise self._lost() from error
        finally:
            waiting.cancel()
            self._exchange.forget(number)
            del self._waiting[number]
        if isinstance(outcome, MeshError):
            raise outcome
        return cast("ReplyT", outcome)

    def _deadline(self, timeout_s: float) -> Deadlines:
        found = self._deadlines.get(timeout_s)
        if found is None:
            found = Deadlines(timeout_s, partial(_give_up, timeout_s=timeout_s))
            self._deadlines[timeout_s] = found
        return found

    def close(self) -> None:
        """Let go of the notices that nobody took."""
        self._tell.close()
        self.notices.close()

    async def _take(self, text: str) -> None:
        match self._exchange.receive(text):
            case Answered(number, outcome):
                if waiting := self._waiting.get(number):
                    _settle(waiting, outcome)
            case Noticed(notice):
                if isinstance(notice, Closing):
                    self.closing = notice
                await self._tell.send(notice)
            case Asked(number, _):
                refusal = ProtocolError(
                    "A session serves no requests.", "Tell it by a notice.", code="unsupported"
                )
                await self._link.send(self._exchange.answer(number, refusal))
            case Malformed(error, answer):
                logger.warning("a frame could not be understood: %s", error.code)
                if answer is not None:
                    await self._link.send(answer)
            case _:
                pass

    def _lost(self) -> MeshError:
        why = f": {self.closing.reason}" if self.closing else "."
        return Unavailable(
            f"The connection to the broker ended{why}",
            "It is restored by itself; try again.",
            code="connection_lost",
        )


def _known_to_broker(error: MeshError) -> int | None:
    """Say how many entries a broker has that wants the rest of the log; ``None`` if it doesn't."""
    if error.code not in {"unknown_mesh", "membership_behind"}:
        return None
    known = error.details.get("head_seq", 0)
    return known if isinstance(known, int) else None


def _part(entries: Sequence[bytes], start: int) -> list[bytes]:
    """Give the entries behind a number, as many as a hello takes but at least one."""
    end, load = start + 1, len(entries[start])
    while end < len(entries) and load + len(entries[end]) <= _MOST_OFFERED_BYTES:
        load += len(entries[end])
        end += 1
    return list(entries[start:end])


def _claims(credentials: Credentials, challenge: Challenge) -> bytes:
    head = credentials.trust.head
    claims = Claims(
        broker=credentials.broker,
        bn=nonce_text(challenge.nonce),
        cn=nonce_text(secrets.token_bytes(NONCE_BYTES)),
        mode=credentials.mode,
        mesh=credentials.trust.mesh,
        peer=credentials.device.peer,
        cert=b64(credentials.certificate.hash),
        head_seq=head.seq,
        head=b64(head.hash),
        version=VERSION,
        handles=list(credentials.handles),
        session=credentials.session,
    )
    fields: dict[str, Any] = claims.model_dump(mode="json")
    return canonical.encode(fields)


def _settle(waiting: asyncio.Future[_Outcome], outcome: _Outcome) -> None:
    """Give whoever waits what came first: an answer is one, whatever follows."""
    if not waiting.done():
        waiting.set_result(outcome)


def _give_up(waiting: asyncio.Future[_Outcome], timeout_s: float) -> None:
    late = Unavailable(
        f"The broker did not answer within {timeout_s:g} s.",
        _TRY_AGAIN,
        code="timeout",
    )
    _settle(waiting, late)
