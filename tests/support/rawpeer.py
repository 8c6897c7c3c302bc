"""A client that speaks frames and believes everything, for tests of the broker itself.

``join`` connects one to a ``MemoryBroker`` of ``broker.py``, with the keys of ``people.py``.
"""

import itertools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import pytest

from claudemesh_broker.outgoing import LinkClosed
from claudemesh_wire import canonical
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.envelope import Copy, Header, MembershipHead, seal
from claudemesh_wire.errors import MeshError, NotFound
from claudemesh_wire.exchange import Answered, Exchange, Noticed
from claudemesh_wire.handshake import (
    Challenge,
    Claims,
    Facts,
    Hello,
    Mode,
    admin_mac,
    hello_mac,
    nonce_text,
    sign_hello,
)
from claudemesh_wire.handshake import Session as About
from claudemesh_wire.keys import (
    b64,
    make_id,
)
from claudemesh_wire.message import Message, Notice, ReplyT, Request
from claudemesh_wire.messages import Accepted, Deliver, Delivery, Resolve, Resolved, Send
from claudemesh_wire.presence import Certify
from claudemesh_wire.receipts import (
    ReceiptItem,
    ReceiptStatus,
    Report,
    Reported,
    SignedReceipts,
    sign_receipts,
)
from tests.support.broker import LIMIT_S, TOKEN, MemoryBroker
from tests.support.people import DAY, Device

ABOUT: Final = About(type="claude", project="mesh", cwd="/work", host="desk")
NoticeT = TypeVar("NoticeT", bound=Notice)


@dataclass(frozen=True)
class Wish:
    """How a peer connects; what is left out is what an honest client would say."""

    mode: Mode = Mode.ATTACH
    handles: tuple[str, ...] = ()
    about: About = ABOUT
    token: bytes | None = TOKEN
    log: Sequence[bytes] | None = None
    admin_secret: bytes | None = None
    charter: bytes = b""
    certificate: Certificate | None = None
    claims: dict[str, Any] = field(default_factory=dict[str, Any])


class RawPeer:
    """A client that speaks frames and believes everything."""

    def __init__(self, broker: MemoryBroker, device: Device, name: str) -> None:
        self.broker = broker
        self.device = device
        self.name = name
        self.link = broker.dial()
        self.exchange = Exchange()
        self.notices: list[Notice] = []
        self.facts: Facts
        self.certificate: Certificate
        self.entries: list[bytes] = []
        self.charter = b""
        self._answers: dict[int, Message | MeshError] = {}
        self._changed = anyio.Event()
        self._numbers = itertools.count(1)
        self.closed = False

    @property
    def peer(self) -> str:
        """Its id."""
        return self.device.peer

    @property
    def handle(self) -> str:
        """The handle the broker gave it."""
        return self.facts.handle

    async def read(self) -> None:
        """Take what arrives, for as long as the link is open."""
        try:
            while True:
                event = self.exchange.receive(await self.link.receive())
                if isinstance(event, Noticed):
                    self.notices.append(event.notice)
                elif isinstance(event, Answered):
                    self._answers[event.number] = event.outcome
                self._tell()
        except LinkClosed:
            self.closed = True
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that arrives over the link."""
        with anyio.fail_after(LIMIT_S):
            while not holds():
                await self._changed.wait()

    async def call(self, request: Request[ReplyT]) -> ReplyT:
        """Ask, and give the reply or raise the refusal."""
        return await self.asked(request)()

    def asked(self, request: Request[ReplyT]) -> Callable[[], Awaitable[ReplyT]]:
        """Send a request now; gives what waits for its answer."""
        number, text = self.exchange.ask(request)
        self.link.send_now(text)
        return partial(self.answer_to, number)

    async def answer_to(self, number: int) -> Any:
        """Wait for the answer to a request, and give the reply or raise the refusal."""
        await self.until(lambda: number in self._answers or self.closed)
        if number not in self._answers:
            raise LinkClosed
        outcome = self._answers.pop(number)
        if isinstance(outcome, MeshError):
            raise outcome
        return outcome

    async def hello(self, wish: Wish) -> Facts:
        """Say hello, once; raises what refuses it."""
        await self.until(lambda: bool(self.notices))
        challenge = self.notices[0]
        assert isinstance(challenge, Challenge)
        now_ms = self.broker.clock.now_ms
        certificate = wish.certificate or self.device.certificate(self.name, now_ms)
        chain = self.device.mesh.chain
        said: dict[str, Any] = {
            "v": 1,
            "broker": challenge.broker,
            "bn": nonce_text(challenge.nonce),
            "cn": nonce_text(bytes(32)),
            "mode": wish.mode,
            "mesh": self.device.mesh.id,
            "peer": self.peer,
            "cert": b64(certificate.hash),
            "head_seq": chain.head.seq,
            "head": b64(chain.head.hash),
            "version": "1",
            "handles": list(wish.handles),
            "session": wish.about.model_dump(),
        }
        secret = wish.admin_secret
        claims = canonical.encode({**said, **wish.claims})
        hello = Hello(
            claims=claims,
            certificate=certificate.blob,
            signature=sign_hello(claims, certificate.blob, self.device.sign),
            token_mac=hello_mac(wish.token, claims, certificate.blob) if wish.token else b"",
            admin_mac=admin_mac(secret, claims, certificate.blob) if secret else b"",
            charter=wish.charter,
            log=list(self.device.mesh.log if wish.log is None else wish.log),
        )
        welcome = await self.call(hello)
        self.certificate = certificate
        self.entries = welcome.entries
        self.charter = welcome.charter
        self.facts = canonical.decode(welcome.facts, Facts, "facts")
        canonical.decode(claims, Claims, "claims")
        self._tell()
        return self.facts

    async def certify(self) -> None:
        """Publish a certificate for the handle the broker gave."""
        now_ms = self.broker.clock.now_ms
        self.certificate = self.device.certificate(self.handle, now_ms)
        await self.call(Certify(certificate=self.certificate.blob))

    async def resolve(self, *to: str) -> Resolved:
        """Ask who is meant."""
        return await self.call(Resolve(to=list(to)))

    async def refused(self, request: Request[Any]) -> MeshError:
        """Ask what is not granted; gives the refusal."""
        with pytest.raises(MeshError) as caught:
            await self.call(request)
        return caught.value

    async def refusal(self, *to: str) -> MeshError:
        """Ask for somebody who is not told; gives the refusal."""
        return await self.refused(Resolve(to=list(to)))

    async def resolve_nobody(self) -> None:
        """Show that the connection works, and that what was pushed before has arrived."""
        with pytest.raises(NotFound):
            await self.resolve("no-such-peer")

    async def seal(self, resolved: Resolved, text: bytes = b"hello", **changed: Any) -> Send:
        """Seal a message for those who were resolved; ``changed`` replaces header fields."""
        certificates = [Certificate.parse(one.certificate) for one in resolved.recipients]
        now_ms = self.broker.clock.now_ms
        said: dict[str, Any] = {
            "mesh": self.device.mesh.id,
            "conv": resolved.conversation,
            "kind": "message",
            "id": make_id("msg_", secrets.token_bytes(16)),
            "sender": self.peer,
            "cert": b64(self.certificate.hash),
            "mh": MembershipHead(seq=1, head=b64(bytes(32))),
            "seq": next(self._numbers),
            "ts": now_ms,
            "exp": now_ms + DAY,
            "to": [one.peer for one in resolved.recipients],
            "kgen": [one.fields.kem_generation for one in certificates],
        }
        header = Header(**{**said, **changed})
        keys = [one.kem_key for one in certificates]
        sealed = seal(header, text, keys, self.device.sign, secrets.token_bytes(32))
        return Send(envelope=sealed.to_bytes(), resolved_ms=resolved.resolved_ms)

    async def send(self, *to: str, text: bytes = b"hello", **changed: Any) -> Accepted:
        """Resolve, seal and send."""
        return await self.call(await self.seal(await self.resolve(*to), text, **changed))

    def of(self, kind: type[NoticeT]) -> list[NoticeT]:
        """Give the notices of a kind that have come."""
        return [notice for notice in self.notices if isinstance(notice, kind)]

    def delivered(self) -> list[Delivery]:
        """Give all copies that were pushed, in the order they came."""
        return [one for notice in self.of(Deliver) for one in notice.deliveries]

    async def receive(self, count: int) -> list[Delivery]:
        """Wait until so many copies were pushed in all."""
        await self.until(lambda: len(self.delivered()) >= count)
        return self.delivered()

    def receipts(
        self, deliveries: Sequence[Delivery], status: ReceiptStatus = ReceiptStatus.DELIVERED
    ) -> SignedReceipts:
        """Sign receipts for copies that are all of one sender."""
        headers = [header_of(one) for one in deliveries]
        items = [
            ReceiptItem(
                id=header.id,
                header_hash=Copy.parse(one.envelope).header_hash,
                status=status,
                at_ms=self.broker.clock.now_ms,
            )
            for header, one in zip(headers, deliveries, strict=True)
        ]
        sender = headers[0].sender
        return sign_receipts(self.device.mesh.id, sender, items, self.device.sign, self.certificate)

    async def ack(
        self, *deliveries: Delivery, status: ReceiptStatus = ReceiptStatus.DELIVERED
    ) -> Reported:
        """Report receipts, one batch per copy."""
        batches = [self.receipts([one], status) for one in deliveries]
        return await self.call(Report(batches=batches))

    async def leave(self) -> None:
        """Drop the connection and wait until the broker is done with it."""
        await self.link.close()
        with anyio.fail_after(LIMIT_S):
            await self.link.served.wait()


def header_of(delivery: Delivery) -> Header:
    """Read the header of a copy."""
    return canonical.decode(Copy.parse(delivery.envelope).header, Header, "header")


async def join(
    broker: MemoryBroker, device: Device, name: str = "", wish: Wish | None = None
) -> RawPeer:
    """Connect a peer, and publish a certificate for the handle it got."""
    peer = RawPeer(broker, device, name or device.anchor)
    broker.tasks.start_soon(peer.read)
    facts = await peer.hello(wish or Wish())
    if facts.handle != peer.certificate.fields.handle:
        await peer.certify()
    return peer
