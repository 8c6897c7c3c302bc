"""Whoever a broker resolves is checked against who was asked for, and against earlier names."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from claudemesh_mcp.audience import check_audience, pin
from claudemesh_mcp.peer import Peer
from claudemesh_wire.address import direct_conversation
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import MeshError
from claudemesh_wire.messages import Recipient, Resolved
from tests.support.trusting import a_peer
from tests.wire.world import BOB, BOBS, CLEO, CLEOS, DAN, DANS, NOW, Device, Log

GROUP = "@team"


@pytest.fixture
async def ada(tmp_path: Path) -> AsyncGenerator[Peer]:
    """Ada's peer, in a mesh with bob, cleo and dan."""
    async with a_peer(tmp_path / "home", Log().bring(BOB).bring(CLEO).bring(DAN)) as peer:
        yield peer


def shown(device: Device, handle: str | None = None) -> Certificate:
    return device.certificate(handle=handle or device.handle)


def resolved(ada: Peer, *certificates: Certificate, conversation: str = "") -> Resolved:
    """What an honest broker answers: these peers, in their direct conversation."""
    peers = [one.fields.peer for one in certificates]
    return Resolved(
        recipients=[
            Recipient(
                peer=one.fields.peer,
                handle=one.fields.handle,
                member=one.fields.member,
                certificate=one.blob,
            )
            for one in certificates
        ],
        conversation=conversation or direct_conversation([ada.id, *peers]),
        resolved_ms=NOW,
        head_seq=ada.trust.head.seq,
        head=ada.trust.head.hash,
    )


async def check(ada: Peer, to: Sequence[str], answer: Resolved) -> str:
    """Check an answer as the sender does; gives the code of what is wrong with it."""
    certificates = [ada.trust.verify(one.certificate) for one in answer.recipients]
    try:
        new = await ada.file.read(lambda sql: check_audience(sql, ada, to, answer, certificates))
        await ada.file.write(lambda sql: pin(sql, ada, new))
    except MeshError as error:
        return error.code
    return ""


async def pinned(ada: Peer) -> dict[str, str]:
    rows = await ada.file.write(
        lambda sql: sql.execute("SELECT name, member FROM names").fetchall()
    )
    return {row["name"]: row["member"] for row in rows}


@pytest.mark.parametrize(
    "address",
    ["bob", "BOB", BOBS.peer, BOBS.peer[:8], "bob/bob", f"{BOB.id}/bob"],
)
async def test_every_way_to_name_a_peer_is_answered_by_that_peer(ada: Peer, address: str) -> None:
    assert not await check(ada, [address], resolved(ada, shown(BOBS)))


async def test_a_list_is_answered_by_all_of_it(ada: Peer) -> None:
    answer = resolved(ada, shown(BOBS), shown(CLEOS))
    assert not await check(ada, ["bob", "cleo"], answer)
    assert not await check(ada, ["cleo", "bob", "bob", BOBS.peer], answer)


@pytest.mark.parametrize("address", [GROUP, "*", "@all"])
async def test_who_is_in_a_group_is_the_broker_s_word(ada: Peer, address: str) -> None:
    conversation = GROUP if address == GROUP else "*"
    answer = resolved(ada, shown(BOBS), shown(CLEOS), conversation=conversation)
    assert not await check(ada, [address], answer)
    assert not await check(ada, [address, address], answer)
    assert await pinned(ada) == {}


async def test_a_list_with_a_group_may_hold_others_than_those_it_names(ada: Peer) -> None:
    answer = resolved(ada, shown(BOBS), shown(CLEOS), shown(DANS))
    assert not await check(ada, [GROUP, "bob"], answer)


async def test_nobody_is_no_audience(ada: Peer) -> None:
    assert await check(ada, [GROUP], resolved(ada, conversation=GROUP)) == "audience_forged"


async def test_one_peer_under_the_certificate_of_another_is_named(ada: Peer) -> None:
    honest = resolved(ada, shown(BOBS))
    swapped = honest.recipients[0].model_copy(update={"certificate": shown(CLEOS).blob})
    forged = honest.model_copy(update={"recipients": [swapped]})
    assert await check(ada, ["bob"], forged) == "audience_forged"


async def test_another_peer_in_the_place_of_the_one_named_is_found_out(ada: Peer) -> None:
    assert await check(ada, ["bob"], resolved(ada, shown(CLEOS))) == "audience_forged"
    assert await check(ada, [BOBS.peer], resolved(ada, shown(CLEOS))) == "audience_forged"


async def test_another_member_s_peer_under_the_handle_is_found_out_by_the_member_s_name(
    ada: Peer,
) -> None:
    impostor = shown(CLEOS, "bob")
    for address in ("bob/bob", f"{BOB.id}/bob"):
        assert await check(ada, [address], resolved(ada, impostor)) == "audience_forged"
    assert not await check(ada, ["cleo/bob"], resolved(ada, impostor))


async def test_a_peer_that_nobody_named_is_found_out(ada: Peer) -> None:
    answer = resolved(ada, shown(BOBS), shown(CLEOS))
    assert await check(ada, ["bob"], answer) == "audience_forged"


async def test_a_peer_left_out_is_found_out(ada: Peer) -> None:
    answer = resolved(ada, shown(BOBS))
    assert await check(ada, ["bob", "cleo"], answer) == "audience_forged"
    assert await check(ada, ["cleo", GROUP], answer) == "audience_forged"


async def test_a_peer_shown_twice_is_found_out(ada: Peer) -> None:
    answer = resolved(ada, shown(BOBS), shown(BOBS, "robert"))
    assert await check(ada, ["bob"], answer) == "audience_forged"


async def test_oneself_is_never_one_s_audience(ada: Peer) -> None:
    own = ada.device.certify("ada", NOW)
    for address in ("ada", GROUP):
        conversation = GROUP if address == GROUP else ""
        answer = resolved(ada, own, conversation=conversation)
        assert await check(ada, [address], answer) == "audience_forged"


@pytest.mark.parametrize("conversation", ["d_" + "a" * 26, GROUP, "*"])
async def test_a_direct_message_belongs_to_the_conversation_of_its_peers(
    ada: Peer, conversation: str
) -> None:
    answer = resolved(ada, shown(BOBS), conversation=conversation)
    assert await check(ada, ["bob"], answer) == "audience_forged"


async def test_a_group_s_message_belongs_to_that_group_s_conversation(ada: Peer) -> None:
    direct = resolved(ada, shown(BOBS))
    other = resolved(ada, shown(BOBS), conversation="@others")
    for answer in (direct, other):
        assert await check(ada, [GROUP], answer) == "audience_forged"


async def test_a_handle_is_held_to_the_member_it_first_stood_for(ada: Peer) -> None:
    assert not await check(ada, ["bob"], resolved(ada, shown(BOBS)))
    assert await pinned(ada) == {"bob": BOB.id}
    impostor = resolved(ada, shown(CLEOS, "bob"))
    assert await check(ada, ["bob"], impostor) == "name_changed"
    assert await pinned(ada) == {"bob": BOB.id}
    assert not await check(ada, ["cleo/bob"], impostor)


async def test_another_peer_of_the_same_member_may_take_its_handle(ada: Peer) -> None:
    assert not await check(ada, ["bob"], resolved(ada, shown(BOBS)))
    second = replace(BOBS, handle="bob-2")
    assert not await check(ada, ["bob"], resolved(ada, shown(second, "bob")))


async def test_a_refused_audience_teaches_no_name(ada: Peer) -> None:
    assert not await check(ada, ["dan"], resolved(ada, shown(DANS)))
    answer = resolved(ada, shown(BOBS), shown(CLEOS, "dan"))
    assert await check(ada, ["bob", "dan"], answer) == "name_changed"
    assert await pinned(ada) == {"dan": DAN.id}


async def test_a_name_used_beside_a_group_is_held_too(ada: Peer) -> None:
    answer = resolved(ada, shown(BOBS), shown(CLEOS))
    assert not await check(ada, ["bob", GROUP], answer)
    assert await pinned(ada) == {"bob": BOB.id}


@pytest.mark.parametrize("address", ["bob/bob", BOBS.peer])
async def test_a_proven_address_needs_no_memory(ada: Peer, address: str) -> None:
    assert not await check(ada, [address], resolved(ada, shown(BOBS)))
    assert await pinned(ada) == {}
