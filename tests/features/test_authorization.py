"""Who may ask what, cell by cell: a table written by hand, not made from the code it checks."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from claudemesh_broker.service import HANDLERS
from claudemesh_wire.errors import MeshError
from claudemesh_wire.grants import ListGrants, PutGrant, SetBlock
from claudemesh_wire.groups import JoinGroup, LeaveGroup
from claudemesh_wire.invites import ListInvites, PutInvite, WithdrawInvite
from claudemesh_wire.keys import make_id
from claudemesh_wire.meshes import AppendEntry, AskMesh, EndMesh, ReadLog
from claudemesh_wire.message import Request, Role
from claudemesh_wire.messages import Fetch, Resolve, Send
from claudemesh_wire.presence import Certify, Depart, FetchCertificates, UpdatePresence
from claudemesh_wire.receipts import AskStatus, ReceiptItem, ReceiptStatus, Report, SignedReceipts
from claudemesh_wire.search import SearchPeers
from claudemesh_wire.succession import FetchInheritance, ListPredecessors
from tests.support.broker import a_broker
from tests.support.people import Device, Mesh, Person
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

TABLE: list[tuple[Request[Any], set[Role]]] = [
    (ReadLog(), ALL),
    (AppendEntry(entry=b"x"), ALL),  # the chain decides who may change what
    (AskMesh(), ALL),
    (PutGrant(grant=b"x"), ALL),  # about one's own peers, whatever one is in the mesh
    (ListGrants(), ALL),
    (EndMesh(entry=b"x"), {OWNER}),
    (PutInvite(invite=b"x"), ADMINS),
    (ListInvites(), ADMINS),
    (WithdrawInvite(code="a" * 26), ADMINS),
    (SetBlock(member="mem_" + "a" * 26, blocked=True), ALL),
    (Certify(certificate=b"x"), ALL),
    (UpdatePresence(), ALL),
    (Depart(), ALL),
    (FetchCertificates(hashes=[]), ALL),
    (SearchPeers(), ALL),
    (JoinGroup(group="ops"), WRITERS),
    (LeaveGroup(group="ops"), ALL),
    (Resolve(to=["nobody"]), WRITERS),
    (Send(envelope=b"x", resolved_ms=1), WRITERS),
    (Fetch(), ALL),
    (Report(batches=[RECEIPTS]), ALL),
    (AskStatus(id=make_id("msg_", bytes(16))), ALL),
    (FetchInheritance(), ALL),
    (ListPredecessors(), ALL),
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
    assert {type(request) for request, _ in TABLE} == set(HANDLERS)


@pytest.mark.parametrize(("request_", "allowed"), TABLE, ids=lambda one: getattr(one, "kind", ""))
async def test_a_request_is_for_these_roles(
    peers: dict[Role, RawPeer], request_: Request[Any], allowed: set[Role]
) -> None:
    for role, peer in peers.items():
        assert (await code(peer, request_) != "role") == (role in allowed), role


async def code(peer: RawPeer, request: Request[Any]) -> str:
    try:
        await peer.call(request)
    except MeshError as error:
        return error.code
    return ""
