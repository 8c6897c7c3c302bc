"""Who may ask what, cell by cell: a table written by hand, not made from the code it checks."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from claudemesh_broker.service import HANDLERS
from claudemesh_wire.errors import MeshError
from claudemesh_wire.grants import Grant, GrantFields, ListGrants, PutGrant, SetBlock
from claudemesh_wire.groups import JoinGroup, LeaveGroup
from claudemesh_wire.invites import ListInvites, PutInvite, WithdrawInvite
from claudemesh_wire.keys import make_id
from claudemesh_wire.mcp_servers import ListServers, RegisterServer, UnregisterServer
from claudemesh_wire.meshes import AppendEntry, AskMesh, EndMesh, ReadLog
from claudemesh_wire.message import CATALOGUE, Request, Role, Rule
from claudemesh_wire.messages import Fetch, Outbound, Resolve, Send, SendBundle
from claudemesh_wire.presence import Certify, Depart, FetchCertificates, UpdatePresence
from claudemesh_wire.receipts import AskStatus, ReceiptItem, ReceiptStatus, Report, SignedReceipts
from claudemesh_wire.search import SearchPeers
from claudemesh_wire.succession import FetchInheritance, ListPredecessors
from claudemesh_wire.tunnels import CloseTunnel, OpenTunnel, PassData
from tests.support.broker import a_broker
from tests.support.people import NOW, Device, Mesh, Person
from tests.support.rawpeer import RawPeer, join

OWNER, ADMIN, MEMBER, OBSERVER = Role.OWNER, Role.ADMIN, Role.MEMBER, Role.OBSERVER
ALL = {OWNER, ADMIN, MEMBER, OBSERVER}
ADMINS = {OWNER, ADMIN}
WRITERS = {OWNER, ADMIN, MEMBER}
PEER = "p_" + "a" * 26
ITEM = ReceiptItem(
    id=make_id("msg_", bytes(16)), header_hash=bytes(32), status=ReceiptStatus.SEEN, at_ms=1
)
RECEIPTS = SignedReceipts(
    sender=PEER, recipient=PEER, certificate=bytes(32), items=[ITEM], signature=bytes(64)
)

# The last column is what comes of it for those who may ask: the code of a refusal, or nothing.
TABLE: list[tuple[Request[Any], set[Role], str]] = [
    (ReadLog(), ALL, ""),
    (AppendEntry(entry=b"x"), ALL, "malformed"),  # the chain decides who may change what
    (AskMesh(), ALL, ""),
    (PutGrant(grant=b"x"), ALL, "malformed"),  # about one's own peers, whatever one is in the mesh
    (ListGrants(), ALL, ""),
    (EndMesh(entry=b"x"), {OWNER}, "malformed"),
    (PutInvite(invite=b"x"), ADMINS, "loopback_only"),
    (ListInvites(), ADMINS, ""),
    (WithdrawInvite(code="a" * 26), ADMINS, "unknown_invite"),
    (SetBlock(member="mem_" + "a" * 26, blocked=True), ALL, "unknown_member"),
    (Certify(certificate=b"x"), ALL, "malformed"),
    (UpdatePresence(), ALL, ""),
    (Depart(), ALL, ""),
    (FetchCertificates(hashes=[]), ALL, ""),
    (SearchPeers(), ALL, ""),
    (JoinGroup(group="ops"), WRITERS, ""),
    (LeaveGroup(group="ops"), ALL, "not_in_group"),
    (Resolve(to=["nobody"]), WRITERS, "not_found"),
    (Send(envelope=b"x", resolved_ms=1), WRITERS, "malformed"),
    (SendBundle(messages=[Outbound(envelope=b"x", resolved_ms=1)]), WRITERS, ""),
    (Fetch(), ALL, ""),
    (Report(batches=[RECEIPTS]), ALL, "wrong_recipient"),
    (AskStatus(id=make_id("msg_", bytes(16))), ALL, "unknown_message"),
    (FetchInheritance(), ALL, ""),
    (ListPredecessors(), ALL, ""),
    (RegisterServer(registration=b"x", certificate=b"x"), WRITERS, "registration_too_large"),
    (UnregisterServer(name="x"), ALL, "unknown_server"),
    (ListServers(), ALL, ""),
    (OpenTunnel(peer=PEER, offer=b"x", certificate=b"x"), WRITERS, "not_found"),
    (PassData(tunnel=1, data=b"x"), ALL, "no_tunnel"),  # whoever is at one of its ends
    (CloseTunnel(tunnel=1), ALL, ""),
]


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[dict[Role, RawPeer]]:
    """One peer of a member of each role."""
    mesh = Mesh(Person("owner"))
    people = {OWNER: mesh.founder}
    for role in (ADMIN, MEMBER, OBSERVER):
        people[role] = mesh.add(role.value, role)
    async with a_broker(tmp_path) as broker:
        yield {
            role: await join(broker, Device(mesh, person, role.value))
            for role, person in people.items()
        }


def test_the_table_has_a_row_for_every_request() -> None:
    assert {type(request) for request, _, _ in TABLE} == set(HANDLERS)


@pytest.mark.parametrize(
    ("request_", "allowed", "outcome"), TABLE, ids=lambda one: getattr(one, "kind", "")
)
async def test_a_request_is_for_these_roles(
    peers: dict[Role, RawPeer], request_: Request[Any], allowed: set[Role], outcome: str
) -> None:
    for role, peer in peers.items():
        assert await code(peer, request_) == (outcome if role in allowed else "role"), role


def test_what_anybody_may_ask_is_asked_before_a_session_and_is_these_four() -> None:
    requests = [one for one in CATALOGUE.values() if issubclass(one, Request)]
    # Tests declare some of their own.
    ours = [one for one in requests if one.__module__.startswith("claudemesh_wire.")]
    served = {one.kind for one in ours if one.rule is Rule.OPEN}
    assert served == {"handshake.hello", "invites.open", "invites.enter", "meshes.return"}
    assert not served & {one.kind for one in HANDLERS}


async def test_nobody_speaks_for_another_member_or_peer(peers: dict[Role, RawPeer]) -> None:
    owner, member = peers[OWNER].device, peers[MEMBER].device
    said = GrantFields(
        mesh=member.mesh.id,
        by=member.owner.id,
        to=owner.owner.id,
        seq=1,
        at=NOW,
        allow=["message"],
        deny=[],
    )
    theirs = PutGrant(grant=Grant.issue(said, member.owner.key).blob)
    assert await code(peers[OWNER], theirs) == "wrong_member"
    assert await code(peers[MEMBER], theirs) == ""
    others = await peers[MEMBER].seal(await peers[MEMBER].resolve("owner"))
    assert await code(peers[ADMIN], others) == "wrong_sender"
    assert await code(peers[MEMBER], others) == ""


async def code(peer: RawPeer, request: Request[Any]) -> str:
    try:
        await peer.call(request)
    except MeshError as error:
        return error.code
    return ""
