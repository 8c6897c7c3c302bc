"""The exchange: requests and replies find each other, whatever the other side does."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claudemesh_wire import frame
from claudemesh_wire.errors import Invalid, MeshError, NotFound, ProtocolError, TooMuch
from claudemesh_wire.exchange import (
    MAX_PENDING,
    Answered,
    Asked,
    Exchange,
    Malformed,
    Noticed,
)
from claudemesh_wire.groups import JoinGroup, MyGroups
from claudemesh_wire.handshake import Challenge, Closing, Hello, Welcome
from claudemesh_wire.meshes import AskMesh, LogEntries, LogGrew, ReadLog
from claudemesh_wire.message import Message, Refused
from claudemesh_wire.messages import Accepted, Deliver, Delivery, RecipientState, Resolve, Send
from claudemesh_wire.presence import (
    Change,
    Depart,
    PeerCard,
    PresenceChanged,
    Status,
    UpdatePresence,
)
from claudemesh_wire.receipts import BrokerNews, ReceiptStatus
from claudemesh_wire.search import PeerFilters, PeersFound, SearchPeers
from tests.wire.world import ADA, ADAS, BOBS, NOW, code_of, seed

MSG = "msg_" + "a" * 26
CARD = PeerCard(peer=ADAS.peer, handle="ada", member=ADA.id, member_name="ada", profile={"a": [1]})
SAMPLES: list[tuple[int, int, Message]] = [
    (1, 0, AskMesh()),
    (2, 0, SearchPeers(query="bäcker", filters=PeerFilters(online=True, group="x"), limit=3)),
    (3, 0, Resolve(to=["bob", "@backend"])),
    (4, 0, Send(envelope=seed("envelope") * 9, resolved_ms=NOW)),
    (5, 0, UpdatePresence(status=Status.DND, profile={"deep": [{"a": None}]})),
    (6, 0, JoinGroup(group="backend", role="lead")),
    (7, 0, Hello(claims=b"{}", certificate=b"c", signature=bytes(64), log=[b"e"])),
    (8, 0, ReadLog(after_seq=5)),
    (0, 0, Challenge(broker="b_x", key=seed("k"), nonce=seed("n"), now_ms=NOW, version="1")),
    (0, 0, Closing(code="replaced", reason="Another connection took over.")),
    (0, 0, LogGrew(entries=[b"e"], head_seq=2, head=seed("head"))),
    (0, 0, PresenceChanged(change=Change.JOINED, card=CARD)),
    (0, 0, Deliver(deliveries=[Delivery(row=1, envelope=b"x", queued_ms=NOW)])),
    (0, 0, BrokerNews(id=MSG, recipient=BOBS.peer, status=ReceiptStatus.EXPIRED, at_ms=NOW)),
    (0, 1, PeersFound(peers=[CARD], total=1)),
    (0, 1, Welcome(facts=b"{}", signature=bytes(64))),
    (0, 1, MyGroups(groups=[], changed=True, members=0)),
    (0, 1, Refused.of(NotFound("No such peer.", details={"candidates": ["ada"]}))),
    (
        0,
        1,
        Accepted(
            id=MSG,
            accepted_ms=NOW,
            expires_ms=NOW,
            recipients=[RecipientState(peer=BOBS.peer, status="queued", at_ms=NOW)],
        ),
    ),
]
FRAMES = [frame.encode(number, answers, message) for number, answers, message in SAMPLES]


def pair() -> tuple[Exchange, Exchange]:
    return Exchange(), Exchange()


def asked(text: str) -> Asked:
    event = Exchange().receive(text)
    assert isinstance(event, Asked)
    return event


def test_a_request_gets_its_reply() -> None:
    client, broker = pair()
    number, text = client.ask(ReadLog(after_seq=3))
    question = broker.receive(text)
    assert question == Asked(number, ReadLog(after_seq=3))
    reply = LogEntries(entries=[b"e"], head_seq=4, head=seed("head"))
    assert client.receive(broker.answer(number, reply)) == Answered(number, reply)
    assert client.pending == 0


def test_a_request_that_is_refused_gets_the_error() -> None:
    client, broker = pair()
    number, text = client.ask(AskMesh())
    assert isinstance(broker.receive(text), Asked)
    answer = client.receive(broker.answer(number, NotFound("Gone.", "Look.", code="no_mesh")))
    assert isinstance(answer, Answered)
    assert isinstance(answer.outcome, NotFound)
    assert (answer.outcome.code, answer.outcome.hint) == ("no_mesh", "Look.")


def test_a_notice_is_answered_by_nobody() -> None:
    client, broker = pair()
    closing = Closing(code="draining", reason="It restarts.")
    assert client.receive(broker.notify(closing)) == Noticed(closing)


@given(st.data())
def test_replies_in_any_order_and_again_find_their_requests(data: st.DataObject) -> None:
    client, broker = pair()
    count = data.draw(st.integers(1, 8))
    numbers: list[int] = []
    replies: list[str] = []
    for at in range(count):
        number, text = client.ask(ReadLog(after_seq=at))
        assert isinstance(broker.receive(text), Asked)
        numbers.append(number)
        reply = LogEntries(entries=[], head_seq=at, head=b"")
        replies.append(broker.answer(number, reply))
    forgotten = data.draw(st.sets(st.sampled_from(numbers)))
    for number in forgotten:
        client.forget(number)
    unknown = [broker.answer(number, AskMesh()) for number in (10**14, max(numbers) + 1)]
    arriving = data.draw(st.permutations([*replies, *replies, *unknown]))
    got: dict[int, Any] = {}
    for text in arriving:
        event = client.receive(text)
        if event is not None:
            assert isinstance(event, Answered)
            assert event.number not in got
            got[event.number] = event.outcome
    expected = {number: at for at, number in enumerate(numbers) if number not in forgotten}
    assert {number: outcome.head_seq for number, outcome in got.items()} == expected
    assert client.pending == 0


def test_an_answer_of_another_kind_is_the_other_sides_mistake() -> None:
    client, broker = pair()
    number, _ = client.ask(Depart())
    answer = client.receive(broker.answer(number, MyGroups(groups=[], changed=False, members=1)))
    assert isinstance(answer, Answered)
    assert isinstance(answer.outcome, ProtocolError)
    assert answer.outcome.remote


@pytest.mark.parametrize("body", ["", "[]", '{"entries":5}', "{}"])
@pytest.mark.parametrize("kind", ["meshes.log_entries", "refused"])
def test_an_answer_that_cannot_be_read_is_the_other_sides_mistake(kind: str, body: str) -> None:
    client = Exchange()
    number, _ = client.ask(ReadLog())
    answer = client.receive(f"0 {number} {kind} {body}")
    assert isinstance(answer, Answered)
    assert isinstance(answer.outcome, ProtocolError)
    assert client.pending == 0


@pytest.mark.parametrize(
    "text",
    [
        "3 0 topics.later {}",
        "3 0 meshes.facts {}",
        "3 0 handshake.closing {}",
        "3 0 refused {}",
    ],
)
def test_a_request_of_an_unknown_kind_is_answered_unsupported(text: str) -> None:
    event = Exchange().receive(text)
    assert isinstance(event, Malformed)
    assert event.error.code == "unsupported"
    assert event.answer is not None
    assert event.answer.startswith("0 3 refused ")


@pytest.mark.parametrize("text", ["0 0 topics.later {}", "0 0 meshes.info {}", "0 0 refused {}"])
def test_a_notice_of_an_unknown_kind_is_not_answered(text: str) -> None:
    event = Exchange().receive(text)
    assert isinstance(event, Malformed)
    assert (event.error.code, event.answer) == ("unsupported", None)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7 0 search.peers []", 7),
        ("7 0 search.peers", 7),
        ("7 0 Search {}", 7),
        ("7 9 search.peers {}", 7),
        ("999999999999999 x", 999999999999999),
        ("7 0 search.peers " + "[" * 40, 7),
        ("7 0 search.peers " + " " * 1024 * 1024, 7),
        ("07 0 search.peers {}", None),
        ("1000000000000000 0 search.peers {}", None),
        ("12345678901234567890123 0 x {}", None),
        ("\u0667 0 search.peers {}", None),
        ("0 0 search.peers", None),
        ("0 0 handshake.closing {}", None),
        ("7", None),
        ("junk", None),
        ("", None),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_broken_frame_is_answered_where_its_number_can_be_read(
    text: str, number: int | None
) -> None:
    event = Exchange().receive(text)
    assert isinstance(event, Malformed)
    assert event.error.code in {"invalid", "frame_too_large"}
    if number is None:
        assert event.answer is None
    else:
        assert frame.decode(event.answer or "").answers == number


def test_too_many_open_requests_are_refused_and_numbers_never_used_twice() -> None:
    client = Exchange()
    numbers = [client.ask(AskMesh())[0] for _ in range(MAX_PENDING)]
    assert numbers == list(range(1, MAX_PENDING + 1))
    assert code_of(lambda: client.ask(AskMesh())) == "too_much"
    client.forget(1)
    client.forget(1)
    assert client.ask(AskMesh())[0] == MAX_PENDING + 1


def test_a_request_that_is_too_large_waits_for_nothing() -> None:
    client = Exchange()
    with pytest.raises(TooMuch):
        client.ask(UpdatePresence(profile={"x": "y" * frame.MAX_FRAME_BYTES}))
    assert client.pending == 0
    assert client.ask(AskMesh())[0] == 1


def judge(text: str) -> None:
    """Whatever arrives becomes an event, or nothing; what is answered can be read."""
    exchange = Exchange()
    exchange.ask(SearchPeers())
    event = exchange.receive(text)
    if isinstance(event, Malformed):
        assert isinstance(event.error, MeshError)
        assert event.error.code
        if event.answer is not None:
            answer = frame.decode(event.answer)
            assert (answer.number, answer.kind) == (0, "refused")
            assert answer.answers > 0
    else:
        assert event is None or isinstance(event, Asked | Answered | Noticed)


def test_every_sample_is_understood() -> None:
    for text in FRAMES:
        exchange = Exchange()
        exchange.ask(SearchPeers())
        assert not isinstance(exchange.receive(text), Malformed)


@pytest.mark.unmeasured
def test_ten_thousand_mutants_are_answered_or_ignored() -> None:
    chance = random.Random(20_260_101)  # noqa: S311 - the same mutants each time
    junk = ' 0123456789.{}[]"\\:,-eE\x00\n\u202e\ud800\U0001f600nulltruefalse'
    for _ in range(10_000):
        text = chance.choice(FRAMES)
        for _ in range(chance.randint(1, 4)):
            at, until = sorted(chance.randint(0, len(text)) for _ in range(2))
            piece = chance.choice(
                [chance.choice(junk), text[at:until], "", chance.choice(junk) * 50]
            )
            until = chance.choice([at, at + 1, until])
            text = text[:at] + piece + text[until:]
        judge(text)


@settings(max_examples=300)
@given(st.sampled_from(FRAMES), st.integers(0, 400), st.text(max_size=5), st.integers(0, 3))
def test_a_mutant_is_answered_or_ignored(text: str, at: int, piece: str, cut: int) -> None:
    judge(text[:at] + piece + text[at + cut :])


def test_what_is_asked_is_what_is_read() -> None:
    for (number, answers, message), text in zip(SAMPLES, FRAMES, strict=True):
        if number and not answers:
            assert asked(text) == Asked(number, message)  # type: ignore[arg-type]


def test_a_refusal_in_a_reply_of_junk_names_no_secret() -> None:
    event = Exchange().receive('7 0 messages.send {"envelope":"secret!","resolved_ms":"x"}')
    assert isinstance(event, Malformed)
    assert isinstance(event.error, Invalid)
    assert "secret" not in (event.answer or "")


def test_a_notice_that_the_owner_does_not_hear_is_not_even_read() -> None:
    deaf = Exchange(unheard=[BrokerNews.kind])
    news = BrokerNews(id=MSG, recipient=BOBS.peer, status=ReceiptStatus.EXPIRED, at_ms=NOW)
    assert deaf.receive(Exchange().notify(news)) is None
    assert deaf.receive("0 0 receipts.broker_news nonsense") is None
    grew = LogGrew(entries=[], head_seq=1, head=bytes(32))
    assert isinstance(deaf.receive(Exchange().notify(grew)), Noticed)
