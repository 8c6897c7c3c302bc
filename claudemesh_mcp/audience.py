"""Checks that the peers a broker resolved are the ones that were asked for.

``sending.py`` asks before it seals. A certificate proves peer, handle and member; this proves that
they answer to the addresses, that nobody was added, and that a name still means the member it
meant before.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from claudemesh_mcp.peer import Peer
from claudemesh_wire.address import Address, AddressKind, direct_conversation, parse
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Conflict, Forbidden, MeshError
from claudemesh_wire.messages import Resolved

_HINT: Final = "Nothing was sent. The broker may be lying; write to a peer id you trust."


def check_audience(
    sql: sqlite3.Connection,
    peer: Peer,
    to: Sequence[str],
    resolved: Resolved,
    certificates: Sequence[Certificate],
) -> dict[str, str]:
    """Refuse an audience that is not the one asked for.

    Args:
        sql: The peer file, which keeps the names seen.
        peer: Who sends.
        to: The addresses as written.
        resolved: The broker's answer.
        certificates: Those of its recipients, verified, in its order.

    Returns:
        The names that were not used before, each with the member behind it: to be pinned.

    Raises:
        Forbidden: ``audience_forged``: somebody was added, swapped or left out.
        Conflict: ``name_changed``: a handle stands for another member than before.
    """
    for recipient, certificate in zip(resolved.recipients, certificates, strict=True):
        if certificate.fields.peer != recipient.peer:
            raise _forged("The broker shows one peer under the certificate of another.")
    peers = [certificate.fields.peer for certificate in certificates]
    if peer.id in peers or len(set(peers)) != len(peers) or not peers:
        raise _forged("The broker resolved to oneself, to nobody, or to one peer twice.")
    addresses = list(dict.fromkeys(parse(one) for one in to))
    named = [one for one in addresses if not one.is_multicast]
    handles = by_handle(certificates)
    answered = {
        certificates[_answer(peer, one, certificates, handles)].fields.peer for one in named
    }
    if len(named) == len(addresses) and answered != set(peers):
        raise _forged("The broker added recipients that nobody named.")
    if resolved.conversation != _conversation(peer, addresses, peers):
        raise _forged("The broker names another conversation.")
    members = {
        one.name: certificates[handles[one.name][0]].fields.member
        for one in named
        if one.kind is AddressKind.HANDLE
    }
    return {
        name: member for name, member in members.items() if not _is_pinned(sql, peer, name, member)
    }


def pin(sql: sqlite3.Connection, peer: Peer, names: Mapping[str, str]) -> None:
    """Hold handles to the members they stood for when they were first used.

    Raises:
        Conflict: ``name_changed``: another process of this peer has just held one to another.
    """
    now_ms = peer.now_ms()
    for name, member in names.items():
        sql.execute(
            "INSERT OR IGNORE INTO names (name, member, first_ms) VALUES (?, ?, ?)",
            (name, member, now_ms),
        )
        _is_pinned(sql, peer, name, member)


def by_handle(certificates: Sequence[Certificate]) -> dict[str, list[int]]:
    """Give the places of those who have each handle: many are looked for among many."""
    places: dict[str, list[int]] = {}
    for place, certificate in enumerate(certificates):
        places.setdefault(certificate.fields.handle, []).append(place)
    return places


def one_who_answers(
    peer: Peer,
    address: str,
    certificates: Sequence[Certificate],
    handles: Mapping[str, Sequence[int]],
) -> int | None:
    """Give the place of the only peer among the resolved that answers to a direct address."""
    fitting = _fitting(peer, parse(address), certificates, handles)
    return fitting[0] if len(fitting) == 1 else None


def direct(peer: Peer, peers: Sequence[str]) -> str:
    """Name the conversation that a peer has with some others."""
    return direct_conversation([peer.id, *peers])


def _answer(
    peer: Peer,
    address: Address,
    certificates: Sequence[Certificate],
    handles: Mapping[str, Sequence[int]],
) -> int:
    """Give the place of the first peer among the resolved that answers to a direct address."""
    for place in _fitting(peer, address, certificates, handles):
        return place
    raise _forged(f"Nobody the broker resolved answers to {address}.")


def _fitting(
    peer: Peer,
    address: Address,
    certificates: Sequence[Certificate],
    handles: Mapping[str, Sequence[int]],
) -> Sequence[int]:
    if address.kind is AddressKind.HANDLE:
        return handles.get(address.name, ())
    return [place for place, one in enumerate(certificates) if _fits(peer, address, one)]


def _fits(peer: Peer, address: Address, certificate: Certificate) -> bool:
    fields = certificate.fields
    if address.kind is AddressKind.PEER_ID:
        return fields.peer.startswith(address.name)
    member = peer.trust.member_of(certificate)
    return address.member in {member.name, member.id} and fields.handle == address.name


def _conversation(peer: Peer, addresses: list[Address], peers: list[str]) -> str:
    if len(addresses) == 1 and addresses[0].is_multicast:
        return str(addresses[0])
    return direct(peer, peers)


def _is_pinned(sql: sqlite3.Connection, peer: Peer, name: str, member: str) -> bool:
    """Tell whether a handle was used before; it must have stood for the same member."""
    found = sql.execute("SELECT member FROM names WHERE name = ?", (name,)).fetchone()
    if found is not None and found[0] != member:
        now = peer.trust.chain.member(member).name
        raise Conflict(
            f"{name} is now a peer of {now}, and was another member's before.",
            f"Nothing was sent. If that is right, write to {now}/{name}.",
            code="name_changed",
        )
    return found is not None


def _forged(reason: str) -> MeshError:
    return Forbidden(reason, _HINT, code="audience_forged")
