"""A whole broker in memory: real SQLite, a clock that stands, links instead of sockets.

``a_broker`` gives a ``MemoryBroker``; its ``dial`` is a link as a client sees one, and ``RawPeer``
a client that speaks frames and believes everything, for tests of the broker itself.
"""

import itertools
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from claudemesh_broker import features, upkeep
from claudemesh_broker.admission import Admission, Identity, Origin
from claudemesh_broker.bus import LocalBus
from claudemesh_broker.config import BrokerSettings
from claudemesh_broker.delivery import Credit, Deliveries
from claudemesh_broker.limits import Limits
from claudemesh_broker.outgoing import LinkClosed
from claudemesh_broker.roster import Roster
from claudemesh_broker.scheduler import Clock, Scheduler
from claudemesh_broker.service import Parts, Service
from claudemesh_broker.session import Session
from claudemesh_broker.store import Store
from claudemesh_broker.upkeep import Upkeep
from claudemesh_wire import canonical
from claudemesh_wire.certificate import LIFETIME_MS, Certificate, CertificateFields
from claudemesh_wire.envelope import Copy, Header, MembershipHead, Sealed, seal
from claudemesh_wire.errors import MeshError, NotFound
from claudemesh_wire.exchange import Answered, Exchange, Noticed
from claudemesh_wire.handshake import (
    Challenge,
    Claims,
    Facts,
    Hello,
    Mode,
    hello_mac,
    nonce_text,
    sign_hello,
)
from claudemesh_wire.handshake import Session as About
from claudemesh_wire.keys import (
    KemPrivateKey,
    SigningKey,
    anchor_digest,
    b64,
    make_id,
    member_id,
    mesh_id,
    peer_id,
)
from claudemesh_wire.membership import Chain, Entry, EntryFields, walk
from claudemesh_wire.message import Message, Notice, ReplyT, Request, Role
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

NOW: Final = 1_790_000_000_000
DAY: Final = 24 * 3600 * 1000
TOKEN: Final = bytes(range(32))
BROKER_KEY: Final = SigningKey(bytes(31) + b"\x07")
LOCAL: Final = Origin("127.0.0.1", is_local=True)
ABOUT: Final = About(type="claude", project="mesh", cwd="/work", host="desk")
LIMIT_S: Final = 10
NoticeT = TypeVar("NoticeT", bound=Notice)
assert features


@dataclass
class StandingClock:
    """A clock that moves when it is told to."""

    now_ms: int = NOW

    def __call__(self) -> int:
        """Give the time."""
        return self.now_ms

    def pass_ms(self, milliseconds: int) -> None:
        """Let time pass."""
        self.now_ms += milliseconds


class MemoryLink:
    """One end of a pair; what is sent at one is received at the other, in order."""

    def __init__(self) -> None:
        self.other: MemoryLink
        self.close_code: int | None = None
        self.close_reason = ""
        self.served = anyio.Event()
        self._stuck = False
        self._texts: deque[str] = deque()
        self._is_closed = False
        self._changed = anyio.Event()

    async def send(self, text: str) -> None:
        """Write one frame; waits while the other end takes nothing."""
        while self.other._stuck and not self._is_closed:
            await self._changed.wait()
        self.send_now(text)
        await checkpoint()

    def send_now(self, text: str) -> None:
        """Write one frame, however many wait."""
        if self._is_closed:
            raise LinkClosed
        self.other._texts.append(text)
        self.other._tell()

    async def receive(self) -> str:
        """Wait for one frame."""
        while not self._texts:
            if self._is_closed:
                raise LinkClosed
            await self._changed.wait()
        return self._texts.popleft()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close both directions; what was sent before is still received."""
        if not self._is_closed:
            self.close_code, self.close_reason = code, reason
        for end in (self, self.other):
            end._is_closed = True
            end._tell()

    def stop_taking(self, stuck: bool = True) -> None:  # noqa: FBT001, FBT002 - says so
        """Take nothing more from the other end, as a reader that hangs; or take again."""
        self._stuck = stuck
        self.other._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def link_pair() -> tuple[MemoryLink, MemoryLink]:
    """Give the two ends of a connection."""
    one, two = MemoryLink(), MemoryLink()
    one.other, two.other = two, one
    return one, two


def settings(folder: Path, **changed: Any) -> BrokerSettings:
    """Give settings that no test runs into unless it wants to."""
    generous = {
        "data": folder / "broker",
        "run": folder / "run",
        "chat_per_s": 10**6,
        "chat_burst": 10**6,
        "rpc_per_s": 10**6,
        "rpc_burst": 10**6,
        "auth_per_s": 10**6,
        "auth_burst": 10**6,
    }
    return BrokerSettings(**{**generous, **changed})


@dataclass
class MemoryBroker:
    """A broker without a socket."""

    parts: Parts
    admission: Admission
    service: Service
    upkeep: Upkeep
    clock: StandingClock
    tasks: TaskGroup
    origin: Origin = LOCAL

    def dial(self) -> MemoryLink:
        """Open a connection; gives the client's end."""
        here, there = link_pair()
        session = Session(here, self.service, self.admission, self.origin)
        self.tasks.start_soon(self._serve, session, there)
        return there

    async def _serve(self, session: Session, link: MemoryLink) -> None:
        try:
            await session.run(secrets.token_bytes)
        finally:
            link.served.set()

    async def run_due(self) -> None:
        """Run what is due at the clock's time."""
        await self.parts.scheduler.run_due(self.clock.now_ms)

    async def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Look into the tables."""
        rows = await self.parts.store.read(lambda sql: sql.all(statement, *values))
        return [tuple(row) for row in rows]


@asynccontextmanager
async def a_broker(
    folder: Path, clock: StandingClock | None = None, token: bytes | None = TOKEN, **changed: Any
) -> AsyncIterator[MemoryBroker]:
    """Start a broker on a folder; leaving stops it as SIGKILL would, short of the disk."""
    told = settings(folder, **changed)
    now = clock or StandingClock()

    def fatal(error: BaseException) -> None:
        raise AssertionError(error)

    async with await Store.open(told.data / "broker.sqlite3", fatal) as store:
        deliveries = Deliveries(
            store, LocalBus(), "local", Credit(told.window_messages, told.window_bytes)
        )
        parts = Parts(
            store=store,
            roster=Roster(store),
            deliveries=deliveries,
            limits=Limits(told.allowances(), lambda: now() / 1000),
            scheduler=Scheduler(store, Clock(now)),
            settings=told,
            now_ms=now,
            started_ms=now(),
        )
        handlers = Upkeep(parts)
        handlers.register()
        await store.write(lambda sql: upkeep.recover(sql, "local", now(), told.lease_ms))
        admission = Admission(parts, Identity(BROKER_KEY, token, "local"))
        async with anyio.create_task_group() as tasks:
            yield MemoryBroker(parts, admission, Service(parts), handlers, now, tasks)
            tasks.cancel_scope.cancel()


@dataclass(frozen=True)
class Person:
    """A member and its root key."""

    name: str
    key: SigningKey = field(default_factory=lambda: SigningKey(secrets.token_bytes(32)))

    @property
    def id(self) -> str:
        """Its id."""
        return member_id(self.key.public)


class Mesh:
    """A membership log in the making; the first person founds it."""

    def __init__(self, founder: Person) -> None:
        salt = secrets.token_bytes(16)
        self.id = mesh_id(founder.key.public, salt)
        self.founder = founder
        self.log: list[bytes] = []
        self.say(
            founder,
            "found",
            member=founder.id,
            key=b64(founder.key.public.raw),
            name=founder.name,
            salt=b64(salt),
            mesh_name="home",
        )

    @property
    def chain(self) -> Chain:
        """What the log comes to."""
        return walk(self.id, self.log)

    def entry(self, by: Person, kind: str, **fields: Any) -> bytes:
        """Sign what would be the next entry."""
        head = self.chain.head
        said = EntryFields(
            mesh=self.id,
            seq=head.seq + 1,
            prev=b64(head.hash),
            at=NOW,
            kind=kind,
            by=by.id,
            **fields,
        )
        return Entry.issue(said, by.key).blob

    def say(self, by: Person, kind: str, **fields: Any) -> bytes:
        """Append an entry."""
        blob = self.entry(by, kind, **fields)
        self.log.append(blob)
        return blob

    def add(self, name: str, role: Role = Role.MEMBER, **fields: Any) -> Person:
        """Append a new member."""
        newcomer = Person(name)
        key = b64(newcomer.key.public.raw)
        self.say(self.founder, "add", member=newcomer.id, key=key, name=name, role=role, **fields)
        return newcomer


@dataclass(frozen=True)
class Device:
    """The keys of one peer."""

    mesh: Mesh
    owner: Person
    anchor: str
    sign: SigningKey = field(default_factory=lambda: SigningKey(secrets.token_bytes(32)))
    kem: KemPrivateKey = field(default_factory=lambda: KemPrivateKey(secrets.token_bytes(32)))
    generation: int = 1

    @property
    def peer(self) -> str:
        """Its peer's id."""
        return peer_id(self.mesh.id, self.owner.id, anchor_digest(self.anchor))

    def certificate(self, handle: str, now_ms: int = NOW, **changed: Any) -> Certificate:
        """Sign a certificate for a handle."""
        said: dict[str, Any] = {
            "mesh": self.mesh.id,
            "member": self.owner.id,
            "peer": self.peer,
            "anchor": b64(anchor_digest(self.anchor)),
            "handle": handle,
            "sign": b64(self.sign.public.raw),
            "kem": b64(self.kem.public.raw),
            "kem_generation": self.generation,
            "not_before": now_ms,
            "not_after": now_ms + LIFETIME_MS,
        }
        return Certificate.issue(CertificateFields(**{**said, **changed}), self.owner.key)

    def renewed(self) -> "Device":
        """Give the same device with a new opening key."""
        kem = KemPrivateKey(secrets.token_bytes(32))
        return replace(self, kem=kem, generation=self.generation + 1)


@dataclass(frozen=True)
class Wish:
    """How a peer connects; what is left out is what an honest client would say."""

    mode: Mode = Mode.ATTACH
    handles: tuple[str, ...] = ()
    about: About = ABOUT
    token: bytes | None = TOKEN
    log: Sequence[bytes] | None = None
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
        claims = canonical.encode({**said, **wish.claims})
        hello = Hello(
            claims=claims,
            certificate=certificate.blob,
            signature=sign_hello(claims, certificate.blob, self.device.sign),
            token_mac=hello_mac(wish.token, claims, certificate.blob) if wish.token else b"",
            log=list(self.device.mesh.log if wish.log is None else wish.log),
        )
        welcome = await self.call(hello)
        self.certificate = certificate
        self.entries = welcome.entries
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


def parse_sent(send: Send) -> Sealed:
    """Read the envelope of a send."""
    return Sealed.parse(send.envelope)


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
