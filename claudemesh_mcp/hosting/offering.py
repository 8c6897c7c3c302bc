"""Offers servers of this session to the mesh: starts them, says what they can do, answers calls.

``servers.py`` has one for each ``Mesh``. What is offered is said anew on each connection, and again
when a server's definitions change; a server that fails is started again, and its owner is told.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import anyio
from anyio.abc import TaskGroup, TaskStatus

from claudemesh_mcp.attachment import Attachment
from claudemesh_mcp.client import Client
from claudemesh_mcp.hosting.announcing import Announcing
from claudemesh_mcp.hosting.backend import Terms
from claudemesh_mcp.hosting.callers import Caller
from claudemesh_mcp.hosting.functions import Functions
from claudemesh_mcp.hosting.keeping import Condition, Kept, State, log_of
from claudemesh_mcp.hosting.ownnews import OwnNews
from claudemesh_mcp.hosting.serving import Hosted, Serving
from claudemesh_mcp.hosting.standing import (
    Announced,
    Hosting,
    Registered,
    Standing,
    sign,
)
from claudemesh_mcp.hosting.wishes import ServerWish
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.suggestions import did_you_mean, quoted
from claudemesh_wire.errors import (
    Conflict,
    Invalid,
    MeshError,
    NotFound,
    Unavailable,
)
from claudemesh_wire.handshake import Mode
from claudemesh_wire.mcp_servers import UnregisterServer

logger: Final = logging.getLogger(__name__)

_TOLD_WITHIN_S: Final = 2.0


class Offering:
    """What one peer offers.

    Args:
        peer: The peer.
        attachment: Its connection.
        ready: Gives the client of it, waiting a little for one.
    """

    def __init__(
        self, peer: Peer, attachment: Attachment, ready: Callable[[], Awaitable[Client]]
    ) -> None:
        self._peer = peer
        self._attachment = attachment
        self._ready = ready
        self._standing: dict[str, Standing] = {}
        self._beginning: set[str] = set()
        self._live: dict[str, Hosted] = {}
        self._serving = Serving(peer, self._live, ready, self._note_change)
        self._news = OwnNews(peer)
        self._announcing = Announcing(peer, self._standing, self._beginning)
        self._runs = anyio.Event()
        self._group: TaskGroup | None = None

    async def run(self) -> None:
        """Run what is offered, and say it on each connection, until cancelled."""
        async with anyio.create_task_group() as self._group:
            self._runs.set()
            client, scope = None, anyio.CancelScope()
            while True:
                try:
                    client = await self._attachment.another(client)
                except Conflict:
                    break
                scope.cancel()
                scope = anyio.CancelScope()
                self._group.start_soon(self._announcing.run, client, scope)
            scope.cancel()
            await self._end_all()
            await anyio.sleep_forever()

    async def _end_all(self) -> None:
        """End what is the business of another process now, which continues this peer."""
        while self._standing:
            _, one = self._standing.popitem()
            await self._stop(one)

    # ---- What is offered ---------------------------------------------------------------------

    def hosted(self) -> list[Hosting]:
        """Say of each server that is offered, or is to be, how it stands."""
        return [one.hosting() for one in self._standing.values()]

    async def register(self, wish: ServerWish) -> Registered:
        """Start a server and offer it; when that fails nothing stays.

        Raises:
            Conflict: ``name_taken``: this session offers a server by that name.
            Invalid: ``bad_server``, ``bad_viewer``, ``unknown_tool``, ``bad_definitions`` …
            MeshError: it could not be started (see ``Backend.run``), or the broker refused.
        """
        return await self._offer(self._kept(wish))

    async def offer(self, functions: Functions) -> Registered:
        """Offer functions of this program; raises as ``register``."""
        return await self._offer(Standing(functions, functions))

    async def restore(self, wish: ServerWish) -> None:
        """Offer a server as soon as it runs, and go on trying until then.

        Raises:
            Conflict: ``name_taken``.
            Invalid: ``bad_server``, ``bad_viewer``.
        """
        one = self._kept(wish)
        one.is_restored = True
        self._check(one.announced)
        self._standing[one.name] = one
        await self._start(one)
        self._tasks.start_soon(self._follow, one)

    def say_again(self) -> None:
        """Say what is offered under the handle that this session has now, if that is another."""
        for one in self._standing.values():
            if one.certificate is not self._peer.certified():
                one.client = None
        self._announcing.look()

    async def unregister(self, name: str) -> None:
        """Offer a server no more, and end it.

        Raises:
            NotFound: ``unknown_server``: this session offers none by that name.
            MeshError: the broker did not confirm it: then it is offered as before.
        """
        one = self._standing.get(name)
        if one is None:
            raise self._unknown(name)
        client = await self._ready()
        async with self._announcing.turn:
            if self._standing.get(name) is not one:
                raise self._unknown(name)
            # Whatever comes of it: if the server stays, the mesh is told of it again.
            one.told = None
            try:
                with suppress(NotFound):
                    await client.call(UnregisterServer(name=name))
            except BaseException:
                self._announcing.look()
                raise
            self._standing.pop(name, None)
        await self._stop(one)

    async def withdraw(self, name: str) -> None:
        """End a server, whether or not the broker confirms now that it is offered no more."""
        with suppress(MeshError), anyio.move_on_after(_TOLD_WITHIN_S):
            await self.unregister(name)
        one = self._standing.pop(name, None)
        if one is not None:
            self._announcing.take_back(name)
            await self._stop(one)

    async def drop(self, name: str) -> None:
        """End a server without a word to the mesh; nothing happens where there is none."""
        one = self._standing.pop(name, None)
        if one is not None:
            await self._stop(one)

    def _unknown(self, name: str) -> NotFound:
        return NotFound(
            f"This session offers no server {quoted(name)}.",
            did_you_mean(name, self._standing),
            code="unknown_server",
        )

    def _kept(self, wish: ServerWish) -> Standing:
        errors = log_of(self._peer.home.logs, self._peer.id, wish.name)
        kept = Kept(wish.name, wish.launch)
        one = Standing(wish, kept)
        kept.terms = Terms(errors=errors, list_changed=lambda _: one.due.set())
        kept.report = partial(self._hear, one)
        return one

    def _check(self, announced: Announced) -> None:
        """Refuse what could not be offered, before anything is started."""
        if self._attachment.mode is not Mode.ATTACH:
            raise Invalid(
                "Only a session that is present in the mesh can offer a server.",
                "Connect with attach=True.",
                code="not_attached",
            )
        sign(self._peer, announced)
        name = announced.name
        if name in self._standing or name in self._beginning:
            raise Conflict(
                f"This session offers a server by the name {name} already.",
                "Take another name, or unregister that one first.",
                code="name_taken",
            )

    async def _offer(self, one: Standing) -> Registered:
        self._check(one.announced)
        self._beginning.add(one.name)
        try:
            # Without a broker there is no use in starting it.
            await self._ready()
            await self._start(one)
            try:
                await self._introduce(one)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._stop(one)
                if one.may_be_known:
                    self._announcing.take_back(one.name)
                raise
        finally:
            self._beginning.discard(one.name)
            self._announcing.look()
        return one.registered()

    async def _introduce(self, one: Standing) -> None:
        """Say for the first time what a server that runs can do."""
        one.due = anyio.Event()
        await one.read(self._peer)
        # Before the mesh hears of it: the first call may be here before the broker's answer.
        self._show(one)
        client = await self._ready()
        async with self._announcing.turn:
            await self._announcing.tell(client, one)
            self._standing[one.name] = one
        self._tasks.start_soon(self._follow, one)

    def _show(self, one: Standing) -> None:
        """Let calls through to what a server can do now."""
        if one.registration is not None:
            self._live[one.name] = Hosted(one.registration, one.server)
            self._attachment.tunnels.taker = self._serving.take

    # ---- Its life ----------------------------------------------------------------------------

    @property
    def _tasks(self) -> TaskGroup:
        if self._group is None:
            raise Unavailable("This session is just being opened or closed.", "Try again.")
        return self._group

    async def _start(self, one: Standing) -> None:
        await self._runs.wait()
        await self._tasks.start(self._keep, one)

    async def _keep(
        self, one: Standing, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        try:
            with one.scope:
                await one.server.run(patient=one.is_restored, task_status=task_status)
        finally:
            one.ended.set()

    async def _stop(self, one: Standing) -> None:
        """End a server, and wait until it has ended."""
        hosted = self._live.get(one.name)
        if hosted is not None and hosted.server is one.server:
            del self._live[one.name]
        one.scope.cancel()
        await one.ended.wait()
        one.due.set()
        self._news.forget(one.name)

    async def _follow(self, one: Standing) -> None:
        """Read again what a server can do whenever that may have changed, until it is ended."""
        while True:
            await one.due.wait()
            if one.ended.is_set():
                return
            one.due = anyio.Event()
            await self._read_again(one)

    async def _read_again(self, one: Standing) -> None:
        before, left_out = one.definitions, one.left_out
        try:
            has_changed = await one.read(self._peer)
        except Invalid as error:
            self._news.unfit(one.name, error)
            return
        except MeshError as error:
            # It ends, or hangs: then it is read again once it runs again, or says more.
            logger.warning("the server %s could not be read: %s", one.name, error.code)
            return
        if one.left_out and one.left_out != left_out:
            self._news.left_out(one.name, one.left_out)
        if has_changed and self._standing.get(one.name) is one:
            if before:
                self._news.changed(one.name, before["tools"], one.definitions["tools"])
            self._show(one)
            self._announcing.look()

    def _hear(self, one: Standing, condition: Condition) -> None:
        """Take note of how a server is."""
        if condition.state is State.RUNNING:
            one.due.set()
        self._news.condition(one.name, condition)

    def _note_change(self, server: str, tool: str, caller: Caller) -> None:
        """Take note that somebody's human has to look at a tool again."""
        one = self._standing.get(server)
        # Who calls may say anything: only what is offered is worth a word.
        if one is not None and tool in one.tools:
            self._news.mistrusted(server, tool, caller)
