"""One connection: challenge, hello, then requests answered as they come, until either side ends it.

``websocket.py`` hands in a ``Link``; requests go to ``service.py`` in the order they arrived and
are answered in the order they finish. While too many are unanswered nothing more is read, so that
the sender's own socket holds it back.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from claudemesh_broker import peers, upkeep
from claudemesh_broker.admission import Admission, Admitted, Origin
from claudemesh_broker.delivery import Feed
from claudemesh_broker.offered import Offered
from claudemesh_broker.outgoing import Link, LinkClosed, Outgoing
from claudemesh_broker.peers import News
from claudemesh_broker.service import Caller, Context, Service
from claudemesh_broker.sql import Sql
from claudemesh_broker.strangers import Strangers, is_served
from claudemesh_broker.tallies import Tally
from claudemesh_wire import VERSION
from claudemesh_wire.errors import Conflict, MeshError, ProtocolError
from claudemesh_wire.exchange import Asked, Exchange, Malformed
from claudemesh_wire.handshake import (
    NONCE_BYTES,
    Challenge,
    Closing,
    Hello,
    Mode,
    State,
    Step,
    after,
)
from claudemesh_wire.message import Message, Rate, Request

MAX_MALFORMED: Final = 32
MAX_HELLOS: Final = 3
MAX_STRANGERS: Final = 32
WS_NORMAL: Final = 1000
WS_POLICY: Final = 1008
WS_RESTART: Final = 1012
logger: Final = logging.getLogger(__name__)


class Session:
    """The broker's end of one connection.

    Args:
        link: The transport.
        service: What answers requests.
        admission: What lets peers in.
        origin: Where the connection comes from.
    """

    def __init__(self, link: Link, service: Service, admission: Admission, origin: Origin) -> None:
        self._link = link
        self._service = service
        self._admission = admission
        self._strangers = Strangers(admission)
        self._origin = origin
        self._settings = service.parts.settings
        self._outgoing = Outgoing(link, self._settings.send_deadline_s)
        self._exchange = Exchange()
        self._state = State.CHALLENGED
        self._context: Context | None = None
        self._feed: Feed | None = None
        self._malformed = 0
        self._hellos = 0
        self._strange = 0
        self._offered = Offered()
        self._nonce = b""
        self._reading = anyio.CancelScope()
        self._asked: asyncio.Queue[tuple[int, Request[Any]] | None] = asyncio.Queue()
        self._answered = asyncio.Event()
        self._unanswered = 0
        self._workers = 0
        self._idle = 0

    async def run(self, token_bytes: Callable[[int], bytes]) -> None:
        """Serve the connection to its end; requests that were begun are finished.

        Args:
            token_bytes: Gives random bytes; the challenge's nonce is made of them.
        """
        self._nonce = token_bytes(NONCE_BYTES)
        self._outgoing.put(self._exchange.notify(self._challenge()))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen, tasks)
                await self._outgoing.write()
                self._reading.cancel()
                if self._feed is not None:
                    self._feed.close()
        except Exception:
            logger.exception("a session failed")
        finally:
            with anyio.CancelScope(shield=True):
                await self._leave()

    def end(self, closing: Closing) -> None:
        """Say why and close, once what waits is written."""
        self._outgoing.end(closing)

    def _challenge(self) -> Challenge:
        identity, parts = self._admission.identity, self._service.parts
        return Challenge(
            broker=identity.id,
            key=identity.key.public.raw,
            nonce=self._nonce,
            now_ms=parts.now_ms(),
            version=VERSION,
        )

    async def _listen(self, tasks: TaskGroup) -> None:
        """Read until the connection ends."""
        with self._reading:
            try:
                with anyio.fail_after(self._settings.auth_timeout_s):
                    while self._context is None:
                        await self._greet(await self._link.receive(), tasks)
                while True:
                    await self._hear(await self._link.receive(), tasks)
            except LinkClosed:
                self._outgoing.abandon()
            except TimeoutError:
                self.end(Closing(code="protocol", reason="No hello came in time."))
            except ProtocolError as error:
                self.end(Closing(code="protocol", reason=error.reason))
        for _ in range(self._workers):
            self._asked.put_nowait(None)

    async def _greet(self, text: str, tasks: TaskGroup) -> None:
        """Take what comes before the connection is admitted: few requests, and then a hello."""
        event = self._exchange.receive(text)
        if isinstance(event, Malformed):
            self._refuse(event)
            raise ProtocolError("The connection did not begin with a hello.")
        if not isinstance(event, Asked):
            return
        first = event.request
        try:
            if isinstance(first, Hello):
                self._hellos += 1
                await self._admit(event.number, first, tasks)
            elif is_served(first):
                await self._answer_stranger(event.number, first)
            else:
                self._hellos = MAX_HELLOS + self._offered.parts
                after(self._state, Step.REQUEST)
        except MeshError as refusal:
            self._outgoing.put(self._exchange.answer(event.number, refusal))
            # A joiner is refused as often as others join meanwhile; a hello is right or wrong,
            # but a log that takes several of them is not held against who offers it.
            hellos = self._hellos - self._offered.parts
            if hellos >= MAX_HELLOS or self._strange > MAX_STRANGERS:
                raise ProtocolError("The connection did not begin with a valid hello.") from refusal

    async def _answer_stranger(self, number: int, request: Request[Any]) -> None:
        """Answer who is no member yet, or not at the moment; the hello is still to come."""
        self._strange += 1
        if self._strange > MAX_STRANGERS:
            raise ProtocolError("Too many requests came before the hello.")
        self._service.parts.limits.take(Rate.AUTH, self._origin.rated_as)
        with anyio.CancelScope(shield=True):
            answer = await self._strangers.answer(request, self._nonce)
            self._outgoing.put(self._exchange.answer(number, answer))

    async def _admit(self, number: int, hello: Hello, tasks: TaskGroup) -> None:
        parts = self._service.parts
        parts.limits.take(Rate.AUTH, self._origin.rated_as)
        # Not to be cut off between the commit and its outcome: who is attached must be known here.
        with anyio.CancelScope(shield=True):
            admitted = await self._admission.admit(hello, self._nonce, self._origin, self._offered)
            self._context = Context(admitted.caller, parts, self._outgoing)
            if admitted.arrived.news is not None:
                await self._announce(admitted.caller, admitted.arrived.news)
            self._welcome(number, admitted, tasks)

    def _welcome(self, number: int, admitted: Admitted, tasks: TaskGroup) -> None:
        caller, step = admitted.caller, Step.HELLO_CALL
        if caller.mode is Mode.ATTACH:
            step = Step.HELLO_ATTACH
            if not self._attach(caller, tasks):
                return
        self._state = after(self._state, step)
        # Nothing may come before the welcome: the client believes nothing else until it has it.
        self._outgoing.put(self._exchange.answer(number, admitted.welcome))
        self._outgoing.feed = self._feed
        logger.info(
            "connected peer=%s mode=%s fence=%d", caller.peer, caller.mode, caller.place.fence
        )

    def _attach(self, caller: Caller, tasks: TaskGroup) -> bool:
        """Take the peer's place, unless a later attach has it already."""
        try:
            self._feed = self._service.parts.deliveries.attach(caller.place, self._outgoing)
        except Conflict as late:
            self.end(Closing(code=late.code, reason=late.reason))
            return False
        tasks.start_soon(self._serve_feed, self._feed)
        return True

    async def _announce(self, caller: Caller, news: News) -> None:
        try:
            await self._service.parts.tell_presence(caller.mesh, caller.peer, news)
        except MeshError as error:
            logger.warning("a change of presence was not told: %s", error)

    async def _serve_feed(self, feed: Feed) -> None:
        try:
            await feed.run()
        except MeshError as error:
            self.end(Closing(code=error.code, reason=error.reason))

    async def _hear(self, text: str, tasks: TaskGroup) -> None:
        """Take one frame of an admitted connection; waits when too many are unanswered."""
        event = self._exchange.receive(text)
        if isinstance(event, Malformed):
            self._refuse(event)
        elif isinstance(event, Asked):
            if isinstance(event.request, Hello):
                after(self._state, Step.HELLO_ATTACH)
            while self._unanswered >= self._settings.in_flight:
                self._answered.clear()
                await self._answered.wait()
            self._unanswered += 1
            self._asked.put_nowait((event.number, event.request))
            if self._asked.qsize() > self._idle:
                self._workers += 1
                tasks.start_soon(self._work)

    async def _work(self) -> None:
        """Answer one request after the other.

        Workers stay for the next request, since a task costs more than many an answer. Each takes
        the oldest and runs it up to its first wait, so that changes are handed in as they came.
        """
        while True:
            self._idle += 1
            asked = await self._asked.get()
            self._idle -= 1
            if asked is None:
                return
            await self._answer(*asked)
            self._unanswered -= 1
            self._answered.set()

    def _refuse(self, event: Malformed) -> None:
        self._malformed += 1
        if event.answer is not None:
            self._outgoing.put(event.answer)
        if self._malformed > MAX_MALFORMED:
            raise ProtocolError("Too many frames of this connection could not be understood.")

    async def _answer(self, number: int, request: Request[Any]) -> None:
        outcome = await self._outcome(request)
        try:
            text = self._exchange.answer(number, outcome)
        except MeshError as error:
            text = self._exchange.answer(number, error)
        self._outgoing.put(text)

    async def _outcome(self, request: Request[Any]) -> Message | MeshError:
        if self._context is None:
            return ProtocolError(
                "A request was heard before the hello.", "Say hello first.", remote=False
            )
        try:
            return await self._service.call(self._context, request)
        except MeshError as refusal:
            return refusal

    async def _leave(self) -> None:
        """Close the link; the peer's lease runs from now."""
        self._state = after(self._state, Step.CLOSE)
        closing = self._outgoing.closing
        await self._link.close(_close_code(closing), closing.code if closing else "")
        if self._context is None:
            return
        caller = self._context.caller
        self._service.parts.lines.drop(self._outgoing)
        logger.info("disconnected peer=%s why=%s", caller.peer, closing.code if closing else "gone")
        if self._feed is not None:
            self._service.parts.deliveries.detach(self._feed)
        await self._write_off(caller)

    async def _write_off(self, caller: Caller) -> None:
        """Start the peer's lease, if it was attached, and write down what it did.

        The end of a connection can't be refused. What can't be stored is logged: the counts are
        written with the peer's next connection, and the lease begins at the broker's next start.
        """
        parts = self._service.parts
        now_ms, lease_ms = parts.now_ms(), parts.settings.lease_ms
        if caller.mode is Mode.CALL and parts.tallies.look(caller.mesh, caller.peer) == Tally():
            return
        try:
            with parts.tallies.written_off(caller.mesh, caller.peer) as tally:

                def change(sql: Sql) -> None:
                    peers.count(sql, caller.mesh, caller.peer, tally)
                    if caller.mode is Mode.ATTACH:
                        upkeep.start_lease(sql, caller.place, now_ms, lease_ms)

                await parts.store.write(change)
        except MeshError as error:
            logger.warning("a lease was not begun: %s", error)
        else:
            parts.scheduler.wake()


def _close_code(closing: Closing | None) -> int:
    if closing is None:
        return WS_NORMAL
    return WS_RESTART if closing.code == "draining" else WS_POLICY
