"""Search at the broker: what is found, in which order, and how many there are."""

from typing import Any

import pytest

from claudemesh_wire.certificate import Certificate
from claudemesh_wire.groups import JoinGroup
from claudemesh_wire.handshake import Mode, Session
from claudemesh_wire.presence import Status, UpdatePresence
from claudemesh_wire.search import PeerFilters, SearchPeers
from tests.support.broker import MemoryBroker
from tests.support.people import Device, Mesh
from tests.support.rawpeer import RawPeer, Wish, join


@pytest.fixture
async def ada(broker: MemoryBroker, mesh: Mesh) -> RawPeer:
    """Ada, who sees a reviewer, a docs writer who is away, and a shell."""
    peer = await join(broker, Device(mesh, mesh.founder, "ada"))
    reviewer = await join(broker, Device(mesh, mesh.founder, "api-review"))
    await reviewer.call(UpdatePresence(summary="reading the Parser", status=Status.WORKING))
    await reviewer.call(JoinGroup(group="backend"))
    about = Session(type="claude", project="handbook")
    docs = await join(broker, Device(mesh, mesh.add("bob"), "docs"), wish=Wish(about=about))
    await docs.call(UpdatePresence(summary="the api chapter"))
    await docs.leave()
    broker.clock.pass_ms(90_000)
    await broker.run_due()
    shell = Wish(mode=Mode.ATTACH, about=Session(type="human"))
    await join(broker, Device(mesh, mesh.founder, "api"), wish=shell)
    return peer


async def found(peer: RawPeer, query: str = "", **filters: Any) -> list[str]:
    asked = SearchPeers(query=query, filters=PeerFilters(**filters))
    answer = await peer.call(asked)
    assert answer.total == len(answer.peers)
    return [card.handle for card in answer.peers]


async def test_an_empty_query_finds_everybody_online_first(ada: RawPeer) -> None:
    handles = await found(ada)
    assert sorted(handles[:3]) == ["ada", "api", "api-review"]
    assert handles[3:] == ["docs"]


async def test_exact_comes_before_prefix_before_substring(ada: RawPeer) -> None:
    assert await found(ada, "api") == ["api", "api-review", "docs"]
    assert await found(ada, "API ") == ["api", "api-review", "docs"]


@pytest.mark.parametrize(
    ("query", "handles"),
    [
        ("parser", ["api-review"]),
        ("@backend", ["api-review"]),
        ("handbook", ["docs"]),
        ("bob", ["docs"]),
        ("nothing-like-it", []),
    ],
)
async def test_every_shown_field_is_searched(ada: RawPeer, query: str, handles: list[str]) -> None:
    assert await found(ada, query) == handles


@pytest.mark.parametrize(
    ("filters", "handles"),
    [
        ({"online": False}, {"docs"}),
        ({"online": True}, {"ada", "api", "api-review"}),
        ({"status": "working"}, {"api-review"}),
        ({"type": "human"}, {"api"}),
        ({"member": "bob"}, {"docs"}),
        ({"group": "backend"}, {"api-review"}),
        ({"project": "handbook"}, {"docs"}),
        ({"project": "handbook", "online": True}, set()),
    ],
)
async def test_filters_admit_what_they_name(
    ada: RawPeer, filters: dict[str, Any], handles: set[str]
) -> None:
    assert set(await found(ada, **filters)) == handles


async def test_a_member_may_be_named_by_its_id(mesh: Mesh, ada: RawPeer) -> None:
    bob = next(one for one in mesh.chain.members.values() if one.name == "bob")
    assert await found(ada, member=bob.id) == ["docs"]
    assert await found(ada, bob.id) == ["docs"]


async def test_an_id_is_found_by_its_beginning_and_never_by_a_word_that_it_holds_by_chance(
    ada: RawPeer, mesh: Mesh
) -> None:
    for written in (ada.peer, mesh.founder.id):
        beginning, behind = written[:-8], written.partition("_")[2]
        assert "ada" in await found(ada, beginning)
        assert await found(ada, behind) == await found(ada, behind[3:11]) == []
    assert await found(ada, ada.peer[:8]) == ["ada"]


async def test_pages_tell_how_many_there_are(ada: RawPeer) -> None:
    handles: list[str] = []
    for offset in range(4):
        page = await ada.call(SearchPeers(limit=1, offset=offset))
        assert page.total == 4
        handles += [card.handle for card in page.peers]
    assert sorted(handles) == ["ada", "api", "api-review", "docs"]


async def test_a_card_carries_the_certificate(ada: RawPeer) -> None:
    (card,) = (await ada.call(SearchPeers(query="docs", limit=1))).peers
    assert Certificate.parse(card.certificate).fields.peer == card.peer


async def test_a_removed_members_peers_are_not_found(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = next(one for one in mesh.chain.members.values() if one.name == "bob")
    mesh.say(mesh.founder, "remove", member=bob.id)
    await join(broker, ada.device)
    again = await join(broker, ada.device)
    assert "docs" not in await found(again)


async def test_cards_that_fit_into_no_frame_are_left_to_the_next_page(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    large = {"x": "y" * 4000}
    for number in range(150):
        device = Device(mesh, mesh.founder, f"large{number}")
        peer = await join(broker, device, wish=Wish(mode=Mode.CALL))
        await peer.call(UpdatePresence(profile=large))
    first = await ada.call(SearchPeers(query="large", limit=200))
    assert first.total == 150
    assert 50 < len(first.peers) < 150
    rest = await ada.call(SearchPeers(query="large", limit=200, offset=len(first.peers)))
    assert len(first.peers) + len(rest.peers) == 150
