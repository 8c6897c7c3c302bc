"""What stands around every request: authorization, rate class, the change, one line of log.

``session.py`` hands a caller's requests in; the features' handlers, registered by ``@serves``, do
the work through their ``Context``. Errors that nobody meant are caught and named here.
"""

import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeVar, get_type_hints

from claudemesh_broker import registrations
from claudemesh_broker.config import BrokerSettings
from claudemesh_broker.delivery import Attachment, Deliveries, Outlet
from claudemesh_broker.limits import Limits
from claudemesh_broker.lines import Lines
from claudemesh_broker.peers import News, read_certificate
from claudemesh_broker.reach import Reach
from claudemesh_broker.roster import (
    Roster,
    check_expiry,
    delete_mesh,
    entries_after,
    for_others,
    put_chain,
    read_card,
)
from claudemesh_broker.scheduler import Scheduler
from claudemesh_broker.sql import Row, Sql
from claudemesh_broker.store import Store
from claudemesh_broker.tallies import Tallies
from claudemesh_wire.errors import (
    Conflict,
    Forbidden,
    Invalid,
    MeshError,
    ProtocolError,
)
from claudemesh_wire.handshake import Closing, Mode
from claudemesh_wire.membership import NO_HEAD, Chain, Head, Member
from claudemesh_wire.meshes import LogGrew
from claudemesh_wire.message import ALLOWED, Message, ReplyT, Request, Role, Rule
from claudemesh_wire.presence import Change, PeerCard, PresenceChanged
from claudemesh_wire.server_news import ServerChange, ServerChanged

MAX_GROWTH: Final = 200
_REMOVED: Final = Closing(
    code="removed", reason="An admin removed this member or revoked this device."
)
_ENDED: Final = Closing(code="ended", reason="An owner has ended this mesh.")
R = TypeVar("R")
logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who asks, as proved by the hello, and what its connection is for."""

    mode: Mode
    place: Attachment

    @property
    def mesh(self) -> str:
        """The mesh it is in."""
        return self.place.mesh

    @property
    def peer(self) -> str:
        """The peer it is."""
        return self.place.peer

    @property
    def member(self) -> str:
        """The member it belongs to."""
        return self.place.member


@dataclass(frozen=True)
class Parts:
    """What a broker is made of; ``app.py`` puts it together.

    Args:
        now_ms: The broker's clock, in milliseconds since the epoch.
        reach: How other machines reach it; ``None`` on loopback alone.
    """

    store: Store
    roster: Roster
    deliveries: Deliveries
    limits: Limits
    scheduler: Scheduler
    settings: BrokerSettings
    now_ms: Callable[[], int]
    started_ms: int
    reach: Reach | None = None
    tallies: Tallies = field(default_factory=Tallies)
    lines: Lines = field(default_factory=Lines)

    def shown_limits(self) -> dict[str, float]:
        """Give the limits that a client has to know."""
        settings = self.settings
        return {
            "queue_messages": settings.queue_messages,
            "queue_bytes": settings.queue_bytes,
            "queue_ttl_s": settings.queue_ttl_s,
            "lease_s": settings.lease_s,
            "chat_per_s": settings.chat_per_s,
            "chat_burst": settings.chat_burst,
            "rpc_per_s": settings.rpc_per_s,
            "rpc_burst": settings.rpc_burst,
            "tunnel_per_s": settings.tunnel_per_s,
            "tunnel_burst": settings.tunnel_burst,
            "auth_per_s": settings.auth_per_s,
            "auth_burst": settings.auth_burst,
            "frame_bytes": settings.frame_bytes,
            "in_flight": settings.in_flight,
            "connections": settings.connections,
            "connections_per_address": settings.connections_per_address,
        }

    def commit(self, change: Callable[[Sql], R]) -> Awaitable[R]:
        """Commit what a request changes: it is handed in at once, and awaited for its outcome.

        The one way from a request to the disk: the audit log's entry for a request that declares
        ``audited`` belongs here, into the transaction of the change itself.
        """
        return self.store.write(change)

    async def append_log(self, chain: Chain, known: Chain | None) -> Chain:
        """Commit what a verified chain has beyond the known one, and tell its mesh.

        Raises:
            Conflict: ``membership_moved``: the log has grown meanwhile.
        """
        after = known.head if known else Head(0, NO_HEAD)
        await self.commit(partial(put_chain, chain=chain, after=after, now_ms=self.now_ms()))
        longest = self.roster.learn(chain)
        entries = entries_after(chain, after.seq, MAX_GROWTH)
        self.deliveries.tell_mesh(
            chain.mesh,
            LogGrew(entries=entries, head_seq=chain.head.seq, head=chain.head.hash),
        )
        self.deliveries.end(_REMOVED, partial(_is_out, longest))
        return longest

    async def end_mesh(self, chain: Chain, known: Chain | None, besides: str = "") -> None:
        """Delete all of a mesh that an owner has ended but the note of that; tell its peers.

        Args:
            chain: With the entry that ends it.
            known: As it was before.
            besides: A peer whose connection goes on.

        Raises:
            Conflict: ``membership_moved``: the log has grown meanwhile.
        """
        mesh, after, now_ms = chain.mesh, known.head if known else Head(0, NO_HEAD), self.now_ms()

        def change(sql: Sql) -> None:
            put_chain(sql, chain, after, now_ms)
            delete_mesh(sql, mesh, now_ms)

        await self.commit(change)
        self.roster.forget(mesh)
        entries = entries_after(chain, after.seq, MAX_GROWTH)
        grew = LogGrew(entries=entries, head_seq=chain.head.seq, head=chain.head.hash)
        self.deliveries.tell_mesh(mesh, grew)
        self.deliveries.end(_ENDED, lambda place: place.mesh == mesh and place.peer != besides)

    async def tell_presence(self, mesh: str, peer: str, news: News) -> PeerCard:
        """Tell a mesh that a peer came, went or changed; gives the card as its own member sees it.

        Of one that hides others hear that it left, with what they knew of it, and then nothing.
        """
        chain = self.roster.chain(mesh)
        card = await self.store.read(
            partial(read_card, chain=chain, peer=peer, now_ms=self.now_ms())
        )
        shown = news.shown or (card if card.visible else None)
        if shown is not None:
            own, others = (
                PresenceChanged(change=news.change, card=one, away_since_ms=news.away_since_ms)
                for one in (shown, for_others(shown))
            )
            self.deliveries.tell_apart(card.member, own, others, besides=(mesh, peer))
        # One that only hides is still here for who may call it.
        if news.change is Change.LEFT and news.shown is None:
            await self._see_off_servers(mesh, peer)
        return card

    async def _see_off_servers(self, mesh: str, peer: str) -> None:
        """Note that what a peer offers is away, and tell those who may see it."""
        # Most offer nothing: their end is to be no commit.
        if await self.store.read(partial(registrations.of_peer, mesh=mesh, peer=peer)):
            for row in await self.commit(partial(registrations.see_off, mesh=mesh, peer=peer)):
                await self.tell_server(row, ServerChange.OFFLINE)

    async def tell_server(self, row: Row, change: ServerChange) -> None:
        """Tell those who may see a server what happened to it."""
        mesh, chain, now_ms = row["mesh"], self.roster.chain(row["mesh"]), self.now_ms()

        def query(sql: Sql) -> tuple[bytes | None, list[tuple[str, str]]]:
            shown = read_certificate(sql, row["certificate_hash"])
            return shown, registrations.watchers(sql, chain, row, now_ms)

        certificate, watchers = await self.store.read(query)
        notice = ServerChanged(
            change=change,
            peer=row["peer"],
            handle=row["handle"] or "",
            host=row["host"] or "",
            name=row["name"],
            tools=json.loads(row["tools"]),
            certificate=certificate or b"",
        )
        # Of one that hides only its own member learns where it is.
        hidden = notice if row["visible"] else notice.model_copy(update={"host": ""})
        for peer, member in watchers:
            self.deliveries.tell(mesh, peer, notice if member == row["member"] else hidden)


@dataclass(frozen=True)
class Context:
    """What a handler works with: its caller, the broker's parts, and the caller's connection."""

    caller: Caller
    parts: Parts
    outlet: Outlet

    @property
    def now_ms(self) -> int:
        """The broker's time."""
        return self.parts.now_ms()

    @property
    def chain(self) -> Chain:
        """The caller's membership chain, as it stands now."""
        return self.parts.roster.chain(self.caller.mesh)

    @property
    def member(self) -> Member:
        """The caller's member, as the chain has it now; raises Forbidden for a removed one."""
        return check_expiry(self.chain.member(self.caller.member), self.now_ms)

    def write(self, change: Callable[[Sql], R]) -> Awaitable[R]:
        """Commit a handler's change: it is handed in at once, and awaited for its outcome."""
        return self.parts.commit(change)

    async def read(self, query: Callable[[Sql], R]) -> R:
        """Ask the database."""
        return await self.parts.store.read(query)


class Handler(Protocol):
    """A feature's function that serves one kind of request."""

    __name__: str
    __module__: str

    def __call__(self, context: Context, request: Any, /) -> Awaitable[Message]:
        """Do what is asked."""
        ...


HANDLERS: Final[dict[type[Request[Any]], Handler]] = {}
HandlerT = TypeVar("HandlerT", bound=Handler)


def serves(handler: HandlerT) -> HandlerT:
    """Register a handler for the request that its annotations name.

    Raises:
        TypeError: an annotation is missing, the reply is not the request's, or the request has a
            handler already.
    """
    where = f"{handler.__module__}.{handler.__name__}"
    hints = get_type_hints(handler)
    promised = hints.pop("return", None)
    takes = list(hints.values())
    if len(takes) != 2 or takes[0] is not Context:  # noqa: PLR2004 - context and request
        raise TypeError(f"{where} is not annotated as (context: Context, request: …) -> …")
    request = takes[1]
    if not (isinstance(request, type) and issubclass(request, Request)):
        raise TypeError(f"{where}: {request} is not a request")
    if promised is not request.reply:
        raise TypeError(f"{where} promises {promised}, its request {request.reply}")
    if request in HANDLERS:
        taken = HANDLERS[request]
        raise TypeError(f"{request.kind} is served twice: {taken.__module__} and {where}")
    HANDLERS[request] = handler
    return handler


class Service:
    """Answers requests of callers that have proved who they are."""

    def __init__(
        self, parts: Parts, handlers: Mapping[type[Request[Any]], Handler] = HANDLERS
    ) -> None:
        self.parts = parts
        self._handlers = handlers

    async def call(self, context: Context, request: Request[ReplyT]) -> ReplyT:
        """Answer one request.

        Raises:
            MeshError: it was refused; anything unforeseen is ``internal``, with an id to look for.
        """
        began = time.perf_counter()
        outcome = "done"
        try:
            handler = self._admit(context, request)
            return await handler(context, request)  # pyright: ignore[reportReturnType] - @serves
        except MeshError as refusal:
            outcome = refusal.code
            raise
        except Exception as error:
            outcome = "internal"
            raise _internal(request, error) from error
        finally:
            logger.info(
                "request kind=%s caller=%s mode=%s outcome=%s ms=%.1f",
                request.kind,
                context.caller.peer,
                context.caller.mode,
                outcome,
                (time.perf_counter() - began) * 1000,
            )

    def _admit(self, context: Context, request: Request[Any]) -> Handler:
        """Give the handler if this caller may ask this now."""
        handler = self._handlers.get(type(request))
        if handler is None:
            raise Invalid(
                f"{request.kind} is not served here.", "Update the broker.", code="unsupported"
            )
        caller = context.caller
        member = context.member
        if (member.id, caller.place.device) in context.chain.revoked:
            raise Forbidden(
                "The keys of this device were revoked.",
                "It can come back as another peer: start a new session.",
                code="device_revoked",
            )
        if request.rule not in ALLOWED[member.role]:
            raise _not_for(member.role, request.rule)
        if caller.mode is Mode.ATTACH and not self.parts.deliveries.is_current(caller.place):
            raise Conflict(
                "Another session took this peer's place.", "Use that one.", code="replaced"
            )
        # What concerns oneself alone is counted per peer: else a message to many sessions of one
        # member would bring receipts that use up what this member may say.
        key = caller.peer if request.rule is Rule.READ else caller.member
        self.parts.limits.take(request.rate, key)
        return handler


def _is_out(chain: Chain, place: Attachment) -> bool:
    """Tell whether the chain shuts out this peer, which a connection serves."""
    if place.mesh != chain.mesh:
        return False
    member = chain.members.get(place.member)
    return member is None or member.removed or (place.member, place.device) in chain.revoked


def _not_for(role: Role, rule: Rule) -> Forbidden:
    able = [str(one) for one in Role if rule in ALLOWED[one]]
    named = " or ".join(filter(None, (", ".join(able[:-1]), able[-1])))
    return Forbidden(
        f"That takes the role {named}; yours is {role}.",
        f"One who has that role can give it to you: claudemesh role NAME {able[-1]}",
        code="role",
    )


def _internal(request: Request[Any], error: Exception) -> ProtocolError:
    """Log what nobody foresaw, once, and give the id under which it can be found."""
    number = secrets.token_hex(4)
    logger.error("internal error %s in %s", number, request.kind, exc_info=error)
    return ProtocolError(
        f"internal error ({number})",
        "Look for this number in the broker's log.",
        remote=False,
        code="internal",
    )
