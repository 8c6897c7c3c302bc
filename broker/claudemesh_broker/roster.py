"""Who is in a mesh: the verified membership chain, and the cards that are shown of its peers.

``admission.py`` and the features ask it. Chains are walked once and kept, extended as entries are
appended; a role is looked up here at every request, so that a removed member is out at once.
"""

import json
from collections.abc import Sequence
from functools import partial
from typing import Final

from claudemesh_broker.peers import is_here, read_certificate
from claudemesh_broker.sql import Row, Sql
from claudemesh_broker.store import Store
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.entries import Entry
from claudemesh_wire.envelope import MAX_AHEAD_MS
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from claudemesh_wire.membership import NO_HEAD, Chain, Head, Member, walk
from claudemesh_wire.presence import GroupRole, PeerCard, Stats

MAX_CERTIFICATES: Final = 4096
MAX_LOG_LOAD_BYTES: Final = 512 * 1024


class Roster:
    """The chains of all meshes served here, and the certificates seen lately.

    Args:
        store: Where the entries are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._chains: dict[str, Chain] = {}
        self._certificates: dict[bytes, Certificate] = {}

    async def load(self, mesh: str) -> Chain | None:
        """Give the chain of a mesh, or ``None`` when this broker does not know it."""
        return self._chains.get(mesh) or await self.reload(mesh)

    async def reload(self, mesh: str) -> Chain | None:
        """Read the chain of a mesh again: somebody else may have appended to it."""
        blobs, is_ended = await self._store.read(partial(read_entries, mesh=mesh))
        if is_ended:
            raise mesh_ended()
        return self.learn(walk(mesh, blobs)) if blobs else None

    def forget(self, mesh: str) -> None:
        """Drop the chain of a mesh that has ended."""
        self._chains.pop(mesh, None)

    def chain(self, mesh: str) -> Chain:
        """Give the chain of a mesh that was loaded before.

        Raises:
            NotFound: ``unknown_mesh``.
        """
        chain = self._chains.get(mesh)
        if chain is None:
            raise unknown_mesh(mesh)
        return chain

    def learn(self, chain: Chain) -> Chain:
        """Remember a chain that is committed; gives the longest that is known."""
        known = self._chains.get(chain.mesh)
        if known is None or known.head.seq < chain.head.seq:
            self._chains[chain.mesh] = chain
        return self._chains[chain.mesh]

    def remember(self, certificate: Certificate) -> None:
        """Keep a verified certificate at hand."""
        self._certificates.pop(certificate.hash, None)
        self._certificates[certificate.hash] = certificate
        if len(self._certificates) > MAX_CERTIFICATES:
            del self._certificates[next(iter(self._certificates))]

    def known_certificate(self, name: bytes) -> Certificate | None:
        """Give a verified certificate by its hash, if it is at hand."""
        return self._certificates.get(name)

    async def certificate(self, name: bytes) -> Certificate | None:
        """Give a verified certificate by its hash."""
        known = self._certificates.get(name)
        if known is None:
            blob = await self._store.read(partial(read_certificate, name=name))
            if blob is not None:
                known = Certificate.parse(blob)
                self.remember(known)
        return known


def check_expiry(member: Member, now_ms: int) -> Member:
    """Give a member that may act now.

    Raises:
        Forbidden: ``member_expired``.
    """
    if member.has_expired(now_ms):
        raise Forbidden(
            f"The membership of {member.name} has ended.",
            "An admin can add it again.",
            code="member_expired",
        )
    return member


def check_certificate(chain: Chain, certificate: Certificate, now_ms: int) -> Member:
    """Believe a certificate under which something is to be signed now; gives its member.

    Raises:
        Unauthenticated: ``certificate_expired``.
        Forbidden: as ``Chain.member_behind`` lists, and ``member_expired``.
    """
    member = check_expiry(chain.member_behind(certificate), now_ms)
    if not certificate.covers(now_ms):
        raise Unauthenticated(
            "The certificate does not hold at the broker's time.",
            "Compare the clocks, and sign a new certificate.",
            code="certificate_expired",
            details={"now_ms": now_ms},
        )
    return member


def check_moment(entry: Entry, now_ms: int) -> None:
    """Refuse an entry that claims another time than now: invites and returns depend on it.

    Raises:
        Invalid: ``clock``; ``details.now_ms`` is the broker's time.
    """
    if abs(entry.fields.at - now_ms) > MAX_AHEAD_MS:
        raise Invalid(
            "The entry's time is not the broker's.",
            "Put this machine's clock right.",
            code="clock",
            details={"now_ms": now_ms},
        )


def entries_after(chain: Chain, seq: int, most: int) -> list[bytes]:
    """Give entries behind a number, as many as fit into one frame."""
    chosen: list[bytes] = []
    load = 0
    for entry in chain.entries[seq : seq + most]:
        load += len(entry)
        if load > MAX_LOG_LOAD_BYTES:
            break
        chosen.append(entry)
    return chosen


def unknown_mesh(mesh: str) -> NotFound:
    """Say that this broker has never seen the log of a mesh."""
    return NotFound(
        f"This broker does not know {mesh}.",
        "Say hello again with the membership log.",
        code="unknown_mesh",
    )


def mesh_ended() -> Forbidden:
    """Say that an owner has ended the mesh."""
    return Forbidden(
        "An owner has ended this mesh.",
        "claudemesh mesh leave takes it off your list; claudemesh mesh create makes another.",
        code="mesh_ended",
    )


def read_entries(sql: Sql, mesh: str) -> tuple[list[bytes], bool]:
    """Give all entries of a mesh, in order, and whether it has ended."""
    rows = sql.all("SELECT entry FROM membership WHERE mesh = ? ORDER BY seq", mesh)
    ended = sql.value("SELECT 1 FROM ended_meshes WHERE mesh = ?", mesh)
    return [row["entry"] for row in rows], ended is not None


def put_chain(sql: Sql, chain: Chain, after: Head, now_ms: int) -> None:
    """Append to the log of a mesh, which is made if there is none.

    Args:
        sql: The change's.
        chain: The whole, verified chain.
        after: Where the log must end now; it is compared and set in one.
        now_ms: The broker's time.

    Raises:
        Conflict: ``membership_moved``: the log has grown meanwhile.
    """
    if sql.value("SELECT 1 FROM ended_meshes WHERE mesh = ?", chain.mesh):
        raise mesh_ended()
    last = sql.one(
        "SELECT seq, hash FROM membership WHERE mesh = ? ORDER BY seq DESC LIMIT 1", chain.mesh
    )
    end = (last["seq"], last["hash"]) if last else (0, NO_HEAD)
    if end != (after.seq, after.hash):
        raise Conflict(
            "The membership log has grown meanwhile.",
            "Read it, and sign the entry anew on its end.",
            code="membership_moved",
        )
    sql.execute(
        "INSERT INTO meshes (mesh, name, created_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        chain.mesh,
        chain.name,
        now_ms,
    )
    heads = [chain.head_at(seq) for seq in range(after.seq + 1, chain.head.seq + 1)]
    sql.many(
        "INSERT INTO membership (mesh, seq, hash, entry) VALUES (?, ?, ?, ?)",
        [
            (chain.mesh, head.seq, head.hash, chain.entries[head.seq - 1])
            for head in heads
            if head is not None
        ],
    )


_DELETIONS: Final = (
    "DELETE FROM deliveries WHERE seq IN (SELECT seq FROM messages WHERE mesh = ?)",
    "DELETE FROM envelopes WHERE seq IN (SELECT seq FROM messages WHERE mesh = ?)",
    *(
        f"DELETE FROM {table} WHERE mesh = ?"  # noqa: S608 - names from here
        for table in (
            "messages",
            "queues",
            "receipts",
            "groups",
            "blocks",
            "grants",
            "invites",
            "kept_handles",
            "mcp_servers",
            "certificates",
            "peers",
            "membership",
            "meshes",
        )
    ),
)


def delete_mesh(sql: Sql, mesh: str, now_ms: int) -> None:
    """Delete all of a mesh but the note that it has ended."""
    for statement in _DELETIONS:
        sql.execute(statement, mesh)
    sql.execute("INSERT INTO ended_meshes (mesh, ended_ms) VALUES (?, ?)", mesh, now_ms)


_CARD: Final = (
    "SELECT p.*, c.blob AS certificate FROM peers AS p"
    " LEFT JOIN certificates AS c ON c.hash = p.certificate_hash WHERE p.mesh = ? AND p.peer = ?"
)


def read_card(sql: Sql, chain: Chain, peer: str, now_ms: int) -> PeerCard:
    """Give what the mesh shows of a peer to its own member; ``for_others`` has the rest.

    Raises:
        NotFound: there is no such peer.
    """
    row = sql.one(_CARD, chain.mesh, peer)
    if row is None:
        raise NotFound(
            f"There is no peer {peer} in this mesh.",
            "search_peers shows who is here; who is missing there has to connect again.",
            code="unknown_peer",
        )
    groups = sql.all(
        "SELECT name, role FROM groups WHERE mesh = ? AND peer = ? ORDER BY name", chain.mesh, peer
    )
    return _card(row, groups, chain, now_ms)


def for_others(card: PeerCard) -> PeerCard:
    """Give what a peer's card is for other members: without its folder, unless it shares that."""
    return card if card.share_cwd else card.model_copy(update={"cwd": ""})


def _card(row: Row, groups: Sequence[Row], chain: Chain, now_ms: int) -> PeerCard:
    member = chain.members.get(row["member"])
    here = is_here(row, now_ms)
    return PeerCard(
        peer=row["peer"],
        handle=row["handle"] or "",
        member=row["member"],
        member_name=member.name if member else "",
        type=row["type"],
        channel=row["channel"] or "",
        model=row["model"] or "",
        host=row["host"] or "",
        project=row["project"] or "",
        cwd=row["cwd"] or "",
        status=row["status"],
        summary=row["summary"],
        role=row["role"],
        profile=json.loads(row["profile"]),
        groups=[GroupRole(name=group["name"], role=group["role"] or "") for group in groups],
        online=here,
        first_seen_ms=row["first_seen_ms"],
        last_seen_ms=now_ms if row["attached"] else row["last_seen_ms"],
        visible=bool(row["visible"]),
        share_cwd=bool(row["share_cwd"]),
        routes=row["routes"].split(",") if row["routes"] else [],
        multicast=bool(row["multicast"]),
        stats=Stats(
            sessions=row["sessions"],
            sent=row["sent"],
            received=row["received"],
            online_ms=row["online_ms"] + max(0, now_ms - (row["attached_ms"] or now_ms)),
        ),
        certificate=row["certificate"] or b"",
    )
