"""Hands out what the inbox of a peer holds, and takes note of what was shown and what was not.

``sdk.py`` asks it for every look into the inbox; ``openrows.py`` has the changes of the file.
"""

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from claudemesh_mcp import held, openrows, shown, staleness
from claudemesh_mcp.attachment import Attachment
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.peerfile import changes_elsewhere
from claudemesh_mcp.policy import Policy
from claudemesh_mcp.receiving import Receiving
from claudemesh_mcp.routes import facts
from claudemesh_wire.handshake import Mode

if TYPE_CHECKING:
    from claudemesh_mcp import results

READY_S: Final = 10.0
_POLL_S: Final = 0.5
_ROUTE: Final = "tool"
R = TypeVar("R")


class Watch:
    """What one waiter knows of an inbox; made before its first look, so that nothing is missed.

    Args:
        arrival: The next arrival sets it.
    """

    def __init__(self, arrival: anyio.Event) -> None:
        self.arrival = arrival
        self.changes = 0
        """The number of changes of other processes at the waiter's own last look."""


class Hatch:
    """The way of one peer's messages to whoever reads them.

    Args:
        peer: The peer.
        receiving: What takes messages in.
        attachment: Its connection.
        mode: Attach, or call only: then messages are fetched first.
    """

    def __init__(
        self, peer: Peer, receiving: Receiving, attachment: Attachment, mode: Mode
    ) -> None:
        self._peer = peer
        self._receiving = receiving
        self._attachment = attachment
        self._mode = mode
        self._shown: list[int] = []

    def watch(self) -> Watch:
        """Begin to watch for what arrives."""
        return Watch(self._receiving.arrival())

    async def take(
        self, watch: Watch, limit: int, thread: str | None, *, peek: bool
    ) -> "tuple[results.InboxResult, list[str]]":
        """Take what is there, from the broker first when no attached process brings it."""
        await self._look()
        policy = Policy(self._peer)

        def look(
            sql: sqlite3.Connection, holder: str, now_ms: int
        ) -> tuple[list[sqlite3.Row], int, int]:
            there = policy.review(sql, now_ms, thread)
            if peek:
                rows = openrows.peek(sql, limit, thread, now_ms)
            else:
                rows = openrows.hand_out(sql, limit, thread, holder, now_ms)
            return rows, there - len(rows), held.count(sql)

        rows, *counts = await self._handed(watch, look)
        left = shown.messages.Left(*counts)
        result = shown.messages.inbox_result(self._peer, rows, left, 0 if peek else 1)
        self._report_news(policy)
        return result, [] if peek else [str(row["row"]) for row in rows]

    async def read_on(self, message: str, offset: int) -> "results.InboxResult":
        """Give a part of one message, from a byte offset on."""
        policy = Policy(self._peer)
        try:
            return await shown.messages.chunk(policy, message, offset)
        finally:
            self._report_news(policy)

    async def take_next(
        self, watch: Watch, limit: int
    ) -> "tuple[list[results.InboxMessage], list[int]]":
        """Take what is there for one who follows, and does not ask what is left behind it."""
        await self._look()
        policy = Policy(self._peer)

        def hand_out(sql: sqlite3.Connection, holder: str, now_ms: int) -> list[sqlite3.Row]:
            policy.review_next(sql, now_ms, limit)
            return openrows.hand_out(sql, limit, None, holder, now_ms)

        rows = await self._handed(watch, hand_out)
        self._report_news(policy)
        return shown.messages.inbox_messages(self._peer, rows), [row["row"] for row in rows]

    async def _look(self) -> None:
        """See that this process may hand out, and has what an attached process would bring."""
        self._attachment.refuse_if_replaced()
        if self._mode is Mode.CALL:
            await shown.messages.fetch(await self._attachment.ready(READY_S), self._receiving)

    def _report_news(self, policy: Policy) -> None:
        if policy.has_news:
            self._receiving.reports_are_due()

    async def waiting(self) -> dict[str, Any]:
        """Say for any result how many messages wait, unless this session wants to hear nothing."""
        policy, now_ms = Policy(self._peer), self._peer.now_ms()

        def count(sql: sqlite3.Connection) -> dict[str, int]:
            is_quiet = facts.mode(sql) is facts.Mode.OFF or facts.is_dnd(sql)
            return {} if is_quiet else policy.waiting(sql, now_ms)

        counts = {} if self._attachment.is_replaced else await self._peer.file.read(count)
        return {"waiting": {**counts, "hint": "call inbox"}} if counts else {}

    async def next_arrival(self, watch: Watch) -> Watch:
        """Wait for something to arrive, or until it is time to look again; gives the next watch."""
        await self._wait(watch)
        return self.watch()

    async def _wait(self, watch: Watch) -> None:
        arrival = watch.arrival
        # An attached process elsewhere, a release, or a lease's end gives no sign of its own here.
        if self._mode is Mode.CALL:
            with anyio.move_on_after(_POLL_S):
                await arrival.wait()
            return
        with anyio.move_on_after(openrows.LEASE_MS / 1000):
            while not arrival.is_set():
                with anyio.move_on_after(_POLL_S):
                    await arrival.wait()
                if await self._peer.file.changes_elsewhere() != watch.changes:
                    # Its own is what the other process noted to be reported.
                    self._receiving.look_again()
                    return

    async def _handed(
        self, watch: Watch, hand_out: Callable[[sqlite3.Connection, str, int], R]
    ) -> R:
        """Hand rows out; a caller that is cancelled in between has them given back.

        Args:
            watch: Of who looks.
            hand_out: Hands them on the file's connection, to a holder, at a time.
        """
        peer, holder = self._peer, f"{self._attachment.holder}:{secrets.token_hex(4)}"
        now_ms = peer.now_ms()

        def change(sql: sqlite3.Connection) -> R:
            # What is released behind it, by another process, makes another number.
            watch.changes = changes_elsewhere(sql)
            # The command line's peer works in another folder with each command.
            staleness.stand_in(sql, peer.setup.folder)
            return hand_out(sql, holder, now_ms)

        handed = False
        try:
            given = await peer.file.write(change)
            handed = True
        finally:
            if not handed:
                peer.file.post(lambda sql: openrows.give_back(sql, holder))
        return given

    def shown_one(self, row: int) -> None:
        """Take note that one row was shown."""
        # Not waited for, and what is shown within one turn of the loop is one change.
        if not self._shown:
            asyncio.get_running_loop().call_soon(self.mark_shown)
        self._shown.append(row)

    def mark_shown(self) -> None:
        """Mark what was shown in this turn of the loop."""
        rows, self._shown = self._shown, []
        if rows:
            now_ms = self._peer.now_ms()
            self._peer.file.post(lambda sql: openrows.mark_seen(sql, rows, _ROUTE, now_ms))
            self._receiving.reports_are_due()

    def not_shown(self, rows: list[int]) -> None:
        """Give rows back that were not shown, without waiting."""
        holder = self._attachment.holder
        self._peer.file.post(lambda sql: openrows.give_back(sql, holder, rows))

    async def evidence(self, tokens: Iterable[str]) -> None:
        """Take evidence that rows were shown: they are seen, and their senders are told."""
        rows, now_ms = [int(token) for token in tokens], self._peer.now_ms()
        await self._peer.file.write(lambda sql: openrows.mark_seen(sql, rows, _ROUTE, now_ms))
        self._receiving.reports_are_due()

    async def withdrawn(self, tokens: Iterable[str]) -> None:
        """Give rows back that were not shown."""
        rows, holder = [int(token) for token in tokens], self._attachment.holder
        await self._peer.file.write(lambda sql: openrows.give_back(sql, holder, rows))
