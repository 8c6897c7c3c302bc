"""Peers that offer MCP servers at a broker and look at what is offered, frame by frame."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from claudemesh_wire.grants import Grant, GrantFields, PutGrant
from claudemesh_wire.keys import b64
from claudemesh_wire.mcp_servers import (
    ListServers,
    RegisterServer,
    Registration,
    RegistrationFields,
    ServerCard,
)
from claudemesh_wire.message import Role
from claudemesh_wire.server_news import ServerChanged
from tests.support.broker import MemoryBroker, StandingClock, a_broker
from tests.support.people import Device, Mesh, Person
from tests.support.rawpeer import RawPeer, join

DEFINITIONS: Final = json.dumps(
    {"tools": [{"name": "add", "inputSchema": {"type": "object", "maximum": 2**70}}]}
)


@dataclass
class World:
    """Ada and her second session, and bob and cleo of other members."""

    broker: MemoryBroker
    mesh: Mesh
    ada: RawPeer
    desk: RawPeer
    bob: RawPeer
    cleo: RawPeer


@asynccontextmanager
async def a_world(folder: Path) -> AsyncIterator[World]:
    """Open all of it in a folder."""
    mesh = Mesh(Person("ada"))
    bob, cleo = mesh.add("bob"), mesh.add("cleo", Role.ADMIN)
    async with a_broker(folder, StandingClock()) as broker:
        yield World(
            broker,
            mesh,
            await join(broker, Device(mesh, mesh.founder, "ada")),
            await join(broker, Device(mesh, mesh.founder, "desk")),
            await join(broker, Device(mesh, bob, "bob")),
            await join(broker, Device(mesh, cleo, "cleo")),
        )


def offer(peer: RawPeer, name: str = "sums", **said: Any) -> RegisterServer:
    """Sign a registration of a server, or something near to one."""
    replaces = said.pop("replaces", None)
    signer = said.pop("signer", peer)
    fields: dict[str, Any] = {
        "mesh": peer.device.mesh.id,
        "peer": peer.peer,
        "cert": b64(peer.certificate.hash),
        "name": name,
        "at": peer.certificate.fields.not_before,
        "visible_to": ["own"],
        "definitions": DEFINITIONS,
    }
    made = Registration.make(RegistrationFields(**{**fields, **said}), signer.device.sign.sign)
    return RegisterServer(
        registration=made.blob, certificate=peer.certificate.blob, replaces=replaces
    )


async def seen(peer: RawPeer, **asked: Any) -> list[ServerCard]:
    """Give what is shown to a peer."""
    return (await peer.call(ListServers(**asked))).servers


async def names(peer: RawPeer) -> list[str]:
    """Give the names of what is shown to a peer."""
    return [one.name for one in await seen(peer)]


async def let(owner: RawPeer, other: RawPeer, seq: int = 1, *, allow: bool = True) -> None:
    """Let another member call tools, or not any more."""
    await grant(owner, other, *(["tool"] if allow else []), seq=seq)


async def grant(owner: RawPeer, other: RawPeer, *allow: str, seq: int = 1) -> bytes:
    """Have a member sign what another may do; gives the grant."""
    said = GrantFields(
        mesh=owner.device.mesh.id,
        by=owner.device.owner.id,
        to=other.device.owner.id,
        seq=seq,
        at=owner.certificate.fields.not_before,
        allow=list(allow),
        deny=[],
    )
    made = Grant.issue(said, owner.device.owner.key).blob
    await owner.call(PutGrant(grant=made))
    return made


async def told(peer: RawPeer, count: int) -> list[tuple[str, str]]:
    """Wait until a peer heard so much of servers, and give it."""
    await peer.until(lambda: len(peer.of(ServerChanged)) >= count)
    await peer.resolve_nobody()
    return [(one.change, one.name) for one in peer.of(ServerChanged)]
