"""Takes in what the broker hands over: open, verify, keep, then acknowledge by signed receipts.

``attachment.py`` feeds it the deliveries of a connection and runs its reporter; ``sdk.py`` waits on
its arrivals. A receipt leaves only after the inbox has committed what it speaks of; one that was
not taken by the broker stays in the file and is reported on the next connection.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio

from claudemesh_mcp import inbox, reports
from claudemesh_mcp.catchup import catch_up
from claudemesh_mcp.client import Client
from claudemesh_mcp.inbox import Checks, Ruling, Sender, Taken
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.policy import Policy
from claudemesh_wire.envelope import Copy, Header, Opened, Reader, Refusal
from claudemesh_wire.errors import MeshError
from claudemesh_wire.keys import KemPrivateKey, public_hash
from claudemesh_wire.meshes import ReadLog
from claudemesh_wire.messages import Delivery
from claudemesh_wire.presence import FetchCertificates
from claudemesh_wire.receipts import ReceiptItem, Report, SignedReceipts, sign_receipts

logger: Final = logging.getLogger(__name__)

_MOST_BATCHES: Final = 64
_MOST_DEFERRED: Final = 256
_MOST_HASHES: Final = 64
_FETCHABLE: Final = frozenset({"unknown_certificate", "membership_behind"})
_PAUSE_S: Final = 1.0
_GATHER_S: Final = 0.01
_LONG_GATHER_S: Final = 0.5
_QUIET_S: Final = 1.0
# The broker hands over no more than 256 messages that it has no receipt of.
_MANY: Final = 64


@dataclass(frozen=True)
class Keys:
    """Which peer something is sealed to, and its opening keys by generation."""

    peer: str
    kem_key: Callable[[int], KemPrivateKey | None]


class Receiving:
    """The recipient's side of one peer.

    Args:
        peer: The peer.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._policy = Policy(peer)
        self._reports = anyio.Event()
        self._many = anyio.Event()
        self._untold = 0
        self._arrived = anyio.Event()
        self._deferred: dict[tuple[str, str], Copy] = {}

    async def take(
        self,
        client: Client,
        deliveries: Iterable[Delivery],
        certificates: Iterable[bytes],
        keys: Keys | None = None,
    ) -> bool:
        """Take in deliveries; fetch once what is lacking to believe some of them.

        Those that may be believed later stay unacknowledged, and are tried again with the next;
        what another peer's keys open stays with the broker until it is fetched again. Junk, of
        which not even the sender can be read, is noted and left out: there is nobody to sign a
        receipt for, so its row stays with the broker until it expires.

        Args:
            client: The connection.
            deliveries: What the broker handed over.
            certificates: Those that came along.
            keys: What opens them, if they are sealed to another peer than this.

        Returns:
            Whether none was left to be believed later; junk is not.
        """
        peer = self._peer
        for refused in peer.trust.learn(certificates):
            peer.detect(refused)
        parsed = [copy for one in deliveries if (copy := self._parse(one)) is not None]
        deferred: dict[tuple[str, str], Copy] = {}
        if keys is None:
            deferred, self._deferred = self._deferred, {}
        copies = [*deferred.values(), *parsed]
        # Before any is kept: all of them are one change then, in their order.
        if lacking := [header for copy in copies if (header := self._lacking(copy))]:
            await self._fetch_what_lacks(client, lacking)
        results = await self._keep(copies, keys or Keys(peer.id, peer.kem_key))
        for copy, taken in zip(copies, results, strict=True):
            # The broker has those that find no room here, and hands them over again.
            has_room = keys is None and len(self._deferred) < _MOST_DEFERRED
            if taken.is_deferred and taken.header and has_room:
                self._deferred[taken.header.sender, taken.header.id] = copy
        self._tell(results)
        return not any(taken.is_deferred for taken in results)

    def _lacking(self, copy: Copy) -> Header | None:
        """Give the header of a copy for which something is to be fetched first."""
        try:
            header = copy.fields
        except Refusal:
            return None
        try:
            self._peer.trust.sender_of(header)
        except Refusal as refusal:
            return header if refusal.code in _FETCHABLE else None
        return None

    async def report(self, client: Client) -> None:
        """Hand over receipts as they come due, until the connection ends."""
        while True:
            self._reports, self._many, self._untold = anyio.Event(), anyio.Event(), 0
            try:
                await self.flush_reports(client)
            except MeshError as error:
                if error.code == "connection_lost":
                    return
                await anyio.sleep(error.retry_after_s or _PAUSE_S)
                continue
            told_s = anyio.current_time()
            await self._reports.wait()
            # What is read as it arrives is delivered and seen in one: one signature, one request.
            # Where messages keep coming, those of several are.
            keeps_coming = anyio.current_time() - told_s < _QUIET_S
            with anyio.move_on_after(_LONG_GATHER_S if keeps_coming else _GATHER_S):
                await self._many.wait()

    async def flush_reports(self, client: Client) -> None:
        """Hand over what is due now."""
        due = await self._peer.file.read(reports.due)
        while due:
            groups = list(due.items())[:_MOST_BATCHES]
            await client.call(Report(batches=[self._signed(*group) for group in groups]))
            rows = [row for _, group in groups for row, _ in group]
            # Lazily: a receipt that is reported twice is no news to the broker.
            due = await self._peer.file.write(
                lambda sql, rows=rows: reports.reported(sql, rows), lazily=True
            )

    def _signed(self, sender: str, group: list[tuple[int, ReceiptItem]]) -> SignedReceipts:
        peer = self._peer
        items = [item for _, item in group]
        return sign_receipts(peer.trust.mesh, sender, items, peer.device.sign, peer.certified())

    def reports_are_due(self) -> None:
        """Wake the reporter: something was marked seen."""
        self._reports.set()

    def look_again(self) -> None:
        """Learn that something held may have been released: by another process, into the file."""
        self.something_arrived()
        self._reports.set()

    def arrival(self) -> anyio.Event:
        """Give the event that the next arrival sets; take it before looking into the inbox."""
        return self._arrived

    def _parse(self, delivery: Delivery) -> Copy | None:
        try:
            return Copy.parse(delivery.envelope)
        except Refusal as refusal:
            # Its sender can't be told: not even who that is can be read.
            self._peer.note("malformed_delivery", f"The broker delivered junk: {refusal.reason}")
            return None

    async def _keep(self, copies: list[Copy], keys: Keys) -> list[Taken]:
        peer = self._peer
        now_ms = peer.now_ms()

        def keep(sql: sqlite3.Connection) -> list[Taken]:
            return [take(sql, copy) for copy in copies]

        def take(sql: sqlite3.Connection, copy: Copy) -> Taken:
            judge = partial(self._judge, sql, now_ms)
            checks = Checks(partial(_reader, peer, keys, now_ms), self._prove, judge)
            try:
                return inbox.take_in(sql, copy, checks, now_ms)
            except (MeshError, sqlite3.OperationalError):
                raise
            except Exception:
                # One that hits a mistake of ours must not keep all the others out.
                logger.exception("a delivery could not be taken in")
                return Taken(
                    None,
                    Refusal(
                        "It could not be taken in.",
                        "The log of this session says more.",
                        code="internal",
                    ),
                )

        return await peer.file.write(keep) if copies else []

    def _judge(self, sql: sqlite3.Connection, now_ms: int, sender: Sender, priority: str) -> Ruling:
        return self._policy.judge(sql, sender, priority, now_ms)

    def _prove(self, opened: Opened) -> Sender:
        peer = self._peer
        member = peer.trust.member_of(opened.certificate)
        return Sender(
            opened.certificate.hash,
            opened.certificate.fields.handle,
            member.id,
            member.name,
            peer.proven_e2e(member),
        )

    async def _fetch_what_lacks(self, client: Client, headers: list[Header]) -> None:
        peer = self._peer
        try:
            ahead = max(header.mh.seq for header in headers)
            if ahead > peer.trust.head.seq:
                log = await client.call(ReadLog(after_seq=peer.trust.head.seq, limit=1))
                await catch_up(peer, client, log.head_seq, log.head)
                if ahead > peer.trust.head.seq:
                    peer.note(
                        "membership_hidden",
                        "A sender knows membership entries that the broker does not show.",
                    )
            await self._fetch_certificates(client, {public_hash(header.cert) for header in headers})
        except MeshError as error:
            if error.code != "connection_lost":
                peer.detect(error)

    async def _fetch_certificates(self, client: Client, hashes: set[bytes]) -> None:
        peer = self._peer
        unknown = [digest for digest in hashes if peer.trust.known(digest) is None]
        for start in range(0, len(unknown), _MOST_HASHES):
            asked = FetchCertificates(hashes=unknown[start : start + _MOST_HASHES])
            found = await client.call(asked)
            for refused in peer.trust.learn(found.certificates):
                peer.detect(refused)

    def _tell(self, results: list[Taken]) -> None:
        """Make known what arrived and what was wrong with it."""
        for taken in results:
            if taken.refusal is not None:
                sender = taken.header.sender if taken.header else "an unknown sender"
                self._peer.note(
                    taken.refusal.code, f"A message from {sender}: {taken.refusal.reason}"
                )
            if taken.missed and taken.header is not None:
                self._peer.note(
                    "message_gap",
                    f"{taken.missed} message(s) from {taken.header.sender} before"
                    f" {taken.header.id} did not arrive: refused, expired or withheld.",
                )
        if any(taken.fresh for taken in results):
            self.something_arrived()
        self._untold += len(results)
        if self._untold >= _MANY:
            self._many.set()
        self._reports.set()

    def something_arrived(self) -> None:
        """Wake whoever waits for what comes into the inbox, and the reporter."""
        arrived, self._arrived = self._arrived, anyio.Event()
        arrived.set()
        self._reports.set()


def _reader(peer: Peer, keys: Keys, now_ms: int, seen_before: Callable[[str, str], bool]) -> Reader:
    return Reader(
        mesh=peer.trust.mesh,
        peer=keys.peer,
        now_ms=now_ms,
        certificate=peer.trust.sender_of,
        seen_before=seen_before,
        kem_key=keys.kem_key,
    )
