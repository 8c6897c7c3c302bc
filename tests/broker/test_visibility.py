"""What others see of a peer, cell by cell: a hidden one nothing, another member's no path."""

import pytest

from claudemesh_wire.groups import JoinGroup
from claudemesh_wire.meshes import AskMesh
from claudemesh_wire.presence import Depart, PresenceChanged, Status, UpdatePresence
from claudemesh_wire.receipts import AskStatus, ReceiptStatus
from claudemesh_wire.search import SearchPeers
from tests.broker.test_audience import two_that_begin_alike
from tests.support.broker import MemoryBroker
from tests.support.people import Device, Mesh
from tests.support.rawpeer import ABOUT, RawPeer, Wish, join


@pytest.fixture
async def own(broker: MemoryBroker, mesh: Mesh, ada: RawPeer) -> RawPeer:
    """Another peer of ada's member."""
    assert ada
    return await join(broker, Device(mesh, mesh.founder, "own"))


@pytest.fixture
async def bob(broker: MemoryBroker, mesh: Mesh, own: RawPeer) -> RawPeer:
    """A peer of another member."""
    assert own
    return await join(broker, Device(mesh, mesh.add("bob"), "bob"))


@pytest.fixture
async def hidden(ada: RawPeer, bob: RawPeer) -> RawPeer:
    """Ada, a member of @ops, hidden."""
    await ada.call(JoinGroup(group="ops"))
    await bob.call(JoinGroup(group="ops"))
    await ada.call(UpdatePresence(visible=False))
    return ada


def told(peer: RawPeer, of: str) -> list[str]:
    return [one.change.value for one in peer.of(PresenceChanged) if one.card.handle == of]


async def test_a_hidden_peer_is_in_no_list_no_count_and_no_audience(
    hidden: RawPeer, own: RawPeer, bob: RawPeer
) -> None:
    for other in (own, bob):
        for query in ("", "ada", hidden.peer, "ops"):
            found = await other.call(SearchPeers(query=query))
            assert hidden.peer not in {card.peer for card in found.peers}
            assert found.total == len(found.peers)
        assert (await other.call(AskMesh())).peers == 2
        assert hidden.peer not in {one.peer for one in (await other.resolve("*")).recipients}
    assert (await bob.refusal("@ops")).code == "not_found"
    assert (await bob.call(JoinGroup(group="ops", role="x"))).members == 1
    assert [one.peer for one in (await own.resolve("@ops")).recipients] == [bob.peer]


async def test_a_hidden_name_is_refused_as_an_unknown_one(
    hidden: RawPeer, own: RawPeer, bob: RawPeer
) -> None:
    assert hidden
    for other in (own, bob):
        for address in ("{}", "ada/{}", "bob/{}"):
            there = await other.refusal(address.format("ada"))
            nowhere = await other.refusal(address.format("axa"))
            assert there.as_dict() == {
                **nowhere.as_dict(),
                "message": nowhere.reason.replace("axa", "ada"),
            }
        assert "ada" not in (await other.refusal("adaa")).hint


async def test_only_the_whole_id_reaches_a_hidden_peer_and_tells_nothing_of_it(
    hidden: RawPeer, bob: RawPeer
) -> None:
    assert (await bob.refusal(hidden.peer[:12])).code == "not_found"
    (reached,) = (await bob.resolve(hidden.peer)).recipients
    assert (reached.peer, reached.online) == (hidden.peer, False)
    await bob.send(hidden.peer)
    assert len(await hidden.receive(1)) == 1


async def test_an_answer_to_a_sender_does_not_tell_that_a_hidden_peer_is_here(
    hidden: RawPeer, own: RawPeer, bob: RawPeer
) -> None:
    for other in (own, bob):
        accepted = await other.send(hidden.peer)
        (found,) = (await other.call(AskStatus(id=accepted.id))).recipients
        assert (accepted.recipients[0].status, found.status) == (ReceiptStatus.QUEUED,) * 2
    assert len(await hidden.receive(2)) == 2


async def test_a_hidden_peer_is_no_candidate(broker: MemoryBroker, ada: RawPeer) -> None:
    one, two = [await join(broker, device) for device in two_that_begin_alike(ada.device)]
    await one.call(UpdatePresence(visible=False))
    assert [found.peer for found in (await ada.resolve(two.peer[:8])).recipients] == [two.peer]


async def test_hiding_looks_like_leaving_and_then_nothing_is_told(
    broker: MemoryBroker, hidden: RawPeer, own: RawPeer, bob: RawPeer
) -> None:
    device = hidden.device
    await hidden.call(UpdatePresence(summary="secret plans"))
    await hidden.call(JoinGroup(group="secret"))
    await hidden.call(Depart())
    await hidden.leave()
    broker.clock.pass_ms(1)
    back = await join(broker, device)
    for other in (own, bob):
        await other.resolve_nobody()
        assert told(other, "ada")[-1] == "left"
        assert told(other, "ada").count("left") == 1
        left = other.of(PresenceChanged)[-1].card
        assert (left.online, left.summary) == (False, "")
    await back.call(UpdatePresence(visible=True))
    for other in (own, bob):
        await other.resolve_nobody()
        assert told(other, "ada")[-2:] == ["left", "joined"]


async def test_what_is_written_as_one_hides_is_told_to_nobody(
    ada: RawPeer, own: RawPeer, bob: RawPeer
) -> None:
    await ada.call(UpdatePresence(summary="tests", profile={"title": "T"}, role="lead"))
    card = await ada.call(
        UpdatePresence(
            visible=False,
            summary="secret plans",
            profile={"title": "secret"},
            role="spy",
            status=Status.WORKING,
            share_cwd=True,
        )
    )
    assert card.card.summary == "secret plans"
    for other, cwd in ((own, "/work"), (bob, "")):
        await other.resolve_nobody()
        left = other.of(PresenceChanged)[-1]
        assert (left.change, left.card.online, left.card.handle) == ("left", False, "ada")
        assert (left.card.summary, left.card.profile) == ("tests", {"title": "T"})
        assert (left.card.role, left.card.status, left.card.cwd) == ("lead", "idle", cwd)


async def test_a_hidden_peer_sees_itself(hidden: RawPeer) -> None:
    (card,) = (await hidden.call(SearchPeers(query=hidden.peer))).peers
    assert (card.peer, card.visible) == (hidden.peer, False)
    assert (await hidden.call(AskMesh())).peers == 3


# Paths.


@pytest.mark.parametrize("shares", [False, True])
async def test_only_its_own_member_sees_the_folder_unless_it_is_shared(
    broker: MemoryBroker, ada: RawPeer, own: RawPeer, bob: RawPeer, *, shares: bool
) -> None:
    await ada.call(UpdatePresence(share_cwd=shares, summary="x"))
    for other, sees in ((ada, True), (own, True), (bob, shares)):
        (card,) = (await other.call(SearchPeers(query=ada.peer))).peers
        assert (card.cwd, card.project, card.host) == ("/work" if sees else "", "mesh", "desk")
        news = [one.card for one in other.of(PresenceChanged) if one.card.peer == ada.peer]
        assert bool(news) == (other is not ada)
        assert {one.cwd for one in news[-1:]} <= {"/work" if sees else ""}
    one, two = [await join(broker, device) for device in two_that_begin_alike(ada.device)]
    await one.call(UpdatePresence(share_cwd=shares))
    for other, sees in ((own, True), (bob, shares)):
        candidates = (await other.refusal(two.peer[:8])).details["candidates"]
        seen = {found["peer"]: found["cwd"] for found in candidates}
        hidden_path = "/work" if other is own else ""
        assert seen == {one.peer: "/work" if sees else "", two.peer: hidden_path}
        assert {found["host"] for found in candidates} == {"desk"}


async def test_a_folder_that_is_shared_no_more_is_taken_out_of_sight(
    ada: RawPeer, bob: RawPeer
) -> None:
    for shares in (True, False):
        await ada.call(UpdatePresence(share_cwd=shares))
        await bob.resolve_nobody()
        assert bool(bob.of(PresenceChanged)[-1].card.cwd) == shares


async def test_what_goes_to_many_leaves_out_a_run_of_one_prompt_which_can_be_written_to(
    broker: MemoryBroker, mesh: Mesh, own: RawPeer, bob: RawPeer
) -> None:
    about = ABOUT.model_copy(update={"multicast": False})
    run = await join(broker, Device(mesh, mesh.founder, "run"), wish=Wish(about=about))
    for peer in (run, bob):
        await peer.call(JoinGroup(group="ops"))
    assert [one.peer for one in (await own.resolve("@ops")).recipients] == [bob.peer]
    assert run.peer not in {one.peer for one in (await own.resolve("*")).recipients}
    # It is no secret: it is listed, and reached by its name.
    (card,) = (await own.call(SearchPeers(query="run"))).peers
    assert (card.peer, card.multicast) == (run.peer, False)
    assert [one.peer for one in (await own.resolve("run")).recipients] == [run.peer]


async def test_a_session_that_goes_on_at_a_terminal_is_reached_by_what_goes_to_many_again(
    broker: MemoryBroker, mesh: Mesh, own: RawPeer
) -> None:
    device = Device(mesh, mesh.founder, "run")
    about = ABOUT.model_copy(update={"multicast": False})
    run = await join(broker, device, wish=Wish(about=about))
    await run.leave()
    run = await join(broker, device, wish=Wish(certificate=run.certificate))
    assert run.peer in {one.peer for one in (await own.resolve("*")).recipients}
