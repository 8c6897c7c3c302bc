"""Whom a home believes: certificates under its history, senders, and signers of receipts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.trust import Trust
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.envelope import Header, MembershipHead, Refusal
from claudemesh_wire.errors import Forbidden, MeshError
from claudemesh_wire.keys import b64
from claudemesh_wire.receipts import ReceiptItem, ReceiptStatus, SignedReceipts, sign_receipts
from tests.support.trusting import believing, head_of
from tests.wire.world import (
    ADA,
    ADAS,
    BOB,
    BOBS,
    CLEO,
    CLEOS,
    DAY,
    MESH,
    NOW,
    OTHER_MESH,
    Log,
    header,
    letter,
    seed,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / MESH
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def log() -> Log:
    """Ada founded the mesh and added bob."""
    return Log().bring(BOB)


@pytest.fixture
def trust(folder: Path, log: Log) -> Trust:
    return believing(folder, log)


def code_of(call: Callable[[], object], kind: type[MeshError] = MeshError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return caught.value.code


def said_under(log: Log, sender: Any = BOBS) -> Header:
    """The header of a message whose sender saw this log."""
    head = head_of(log)
    return header(sender, [ADAS], mh=MembershipHead(seq=head.seq, head=b64(head.hash)))


def refusal_of(trust: Trust, said: Header) -> Refusal:
    with pytest.raises(Refusal) as caught:
        trust.sender_of(said)
    return caught.value


def receipts(*items: ReceiptItem, **changes: Any) -> SignedReceipts:
    """What bob signed for ada."""
    told = list(items) or [item()]
    return sign_receipts(MESH, ADAS.peer, told, BOBS.sign, BOBS.certificate()).model_copy(
        update=changes
    )


def item(**changes: Any) -> ReceiptItem:
    sealed = letter(ADAS, [BOBS])
    said: dict[str, Any] = {
        "id": header(ADAS, [BOBS]).id,
        "header_hash": sealed.header_hash,
        "status": ReceiptStatus.SEEN,
        "at_ms": NOW,
    }
    return ReceiptItem(**{**said, **changes})


def test_a_member_s_certificate_is_believed_and_remembered(trust: Trust) -> None:
    certificate = BOBS.certificate()
    assert trust.known(certificate.hash) is None
    assert trust.verify(certificate.blob) == certificate
    assert trust.known(certificate.hash) == certificate
    assert trust.member_of(certificate).name == "bob"
    assert trust.verify(certificate.blob) == certificate


@pytest.mark.parametrize(
    ("certificate", "code"),
    [
        (Certificate.issue(BOBS.fields(), ADA.key), "certificate_forged"),
        (CLEOS.certificate(), "not_a_member"),
    ],
)
def test_a_certificate_that_the_log_does_not_bear_out_is_not_believed(
    trust: Trust, certificate: Certificate, code: str
) -> None:
    assert code_of(lambda: trust.verify(certificate.blob), Forbidden) == code
    assert trust.known(certificate.hash) is None


@pytest.mark.parametrize("blob", [b"", bytes(65), BOBS.certificate().blob[:-1]])
def test_what_is_no_certificate_is_refused(trust: Trust, blob: bytes) -> None:
    with pytest.raises(MeshError):
        trust.verify(blob)


def test_of_certificates_that_came_along_the_genuine_are_kept(trust: Trust) -> None:
    refused = trust.learn([CLEOS.certificate().blob, b"junk", BOBS.certificate().blob])
    assert len(refused) == 2
    assert trust.known(BOBS.certificate().hash) is not None


def test_no_more_certificates_are_kept_than_there_is_room_for(
    trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claudemesh_mcp.trust._MOST_CERTIFICATES", 2)
    ones = [BOBS.certificate(handle=f"bob-{number}") for number in range(3)]
    trust.learn(one.blob for one in ones)
    assert [trust.known(one.hash) is not None for one in ones] == [False, True, True]
    strangers = [CLEOS.certificate(handle=f"cleo-{number}") for number in range(3)]
    assert len(trust.learn(one.blob for one in strangers)) == 3
    assert len(trust._refused) == 2


def test_a_sender_whose_certificate_was_not_fetched_may_be_believed_later(
    log: Log, trust: Trust
) -> None:
    refusal = refusal_of(trust, said_under(log))
    assert (refusal.code, refusal.permanent) == ("unknown_certificate", False)
    trust.verify(BOBS.certificate().blob)
    assert trust.sender_of(said_under(log)) == BOBS.certificate()


def test_a_sender_that_knows_more_of_the_log_is_waited_for(log: Log, trust: Trust) -> None:
    trust.verify(BOBS.certificate().blob)
    refusal = refusal_of(trust, said_under(log.bring(CLEO)))
    assert (refusal.code, refusal.permanent) == ("membership_behind", False)
    trust.extend(log.blobs)
    assert trust.sender_of(said_under(log)) == BOBS.certificate()


def test_a_sender_that_was_shown_another_log_is_declined(trust: Trust) -> None:
    trust.verify(BOBS.certificate().blob)
    refusal = refusal_of(trust, said_under(Log().bring(CLEO)))
    assert (refusal.code, refusal.permanent) == ("membership_fork", True)


@pytest.mark.parametrize("known", [True, False])
def test_a_sender_that_was_removed_is_declined(log: Log, trust: Trust, known: bool) -> None:  # noqa: FBT001
    if known:
        trust.verify(BOBS.certificate().blob)
    trust.extend(log.add("remove", ADA, member=BOB.id).blobs)
    trust.learn([] if known else [BOBS.certificate().blob])
    refusal = refusal_of(trust, said_under(log))
    assert (refusal.code, refusal.permanent) == ("revoked", True)


def test_a_device_that_was_revoked_is_declined_and_the_member_s_others_are_not(
    log: Log, trust: Trust
) -> None:
    other = replace(BOBS, handle="bob-2")
    trust.learn([BOBS.certificate().blob, other.certificate().blob])
    device = b64(BOBS.certificate().sign_key.fingerprint)
    trust.extend(log.add("revoke_device", ADA, member=BOB.id, device=device).blobs)
    assert refusal_of(trust, said_under(log)).code == "revoked"
    assert trust.sender_of(said_under(log, other)) == other.certificate()


def test_a_sender_with_a_forged_certificate_is_declined_for_good(log: Log, trust: Trust) -> None:
    forged = Certificate.issue(BOBS.fields(), ADA.key)
    trust.learn([forged.blob])
    said = said_under(log).model_copy(update={"cert": b64(forged.hash)})
    refusal = refusal_of(trust, said)
    assert (refusal.code, refusal.permanent) == ("certificate_forged", True)


def test_somebody_who_becomes_a_member_is_believed_from_then_on(log: Log, trust: Trust) -> None:
    trust.learn([CLEOS.certificate().blob])
    trust.extend(log.bring(CLEO).blobs)
    trust.learn([CLEOS.certificate().blob])
    assert trust.sender_of(said_under(log, CLEOS)) == CLEOS.certificate()


def test_a_log_that_grows_forgets_no_certificate_that_it_still_bears_out(
    log: Log, trust: Trust
) -> None:
    trust.verify(BOBS.certificate().blob)
    trust.extend(log.bring(CLEO).blobs)
    assert trust.known(BOBS.certificate().hash) is not None


def test_a_genuine_receipt_is_believed(trust: Trust) -> None:
    trust.verify(BOBS.certificate().blob)
    trust.check_receipts(receipts())
    trust.check_receipts(receipts(item(), item(status=ReceiptStatus.DELIVERED)))


@pytest.mark.parametrize(
    "forged",
    [
        receipts(signature=bytes(64)),
        receipts(items=[item(status=ReceiptStatus.DELIVERED)]),
        receipts(items=[item(header_hash=seed("another"))]),
        receipts(items=[item(at_ms=NOW + 1)]),
        receipts(items=[item(route="hook")]),
        receipts(items=[item(), item()]),
        receipts(recipient=CLEOS.peer),
        receipts(certificate=ADAS.certificate().hash),
        receipts(certificate=seed("nowhere")),
        receipts(item(status=ReceiptStatus.ACCEPTED)),
        receipts(item(at_ms=NOW + DAY)),
    ],
)
def test_a_receipt_that_its_recipient_did_not_sign_is_named(
    trust: Trust, forged: SignedReceipts
) -> None:
    trust.learn([BOBS.certificate().blob, ADAS.certificate().blob])
    assert code_of(lambda: trust.check_receipts(forged), Forbidden) == "forged_receipt"


def test_a_receipt_signed_in_another_mesh_is_named(trust: Trust) -> None:
    trust.verify(BOBS.certificate().blob)
    other = sign_receipts(OTHER_MESH, ADAS.peer, [item()], BOBS.sign, BOBS.certificate())
    assert code_of(lambda: trust.check_receipts(other), Forbidden) == "forged_receipt"


def test_the_word_of_a_member_removed_since_is_no_proof_and_no_forgery(
    log: Log, trust: Trust
) -> None:
    trust.verify(BOBS.certificate().blob)
    trust.extend(log.add("remove", ADA, member=BOB.id).blobs)
    assert code_of(lambda: trust.check_receipts(receipts()), Forbidden) == "revoked"


def test_the_word_of_a_member_whose_time_was_over_counts_for_nothing(folder: Path) -> None:
    """A broker that keeps it all the same changes nothing about that."""
    log = Log().add("add", ADA, **BOB.named(), role="member", expires=NOW)
    trust = believing(folder, log)
    certificate = trust.verify(BOBS.certificate().blob)
    late, early = (said_under(log).model_copy(update={"ts": at}) for at in (NOW, NOW - 1))
    assert refusal_of(trust, late).code == "revoked"
    assert trust.sender_of(early) == certificate
    assert code_of(lambda: trust.check_receipts(receipts()), Forbidden) == "revoked"
    trust.check_receipts(receipts(item(at_ms=NOW - 1)))
    assert code_of(lambda: trust.member_of(certificate, NOW), Forbidden) == "member_expired"
    assert trust.member_of(certificate, NOW - 1).id == BOB.id
