"""Receipts: whose word they are, and for what."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_wire.keys import make_id
from claudemesh_wire.receipts import (
    MAX_BATCH,
    SIGNED,
    ReceiptItem,
    ReceiptStatus,
    Report,
    SignedReceipts,
    are_receipts_signed,
    receipt_parts,
    sign_receipts,
)
from tests.wire.world import (
    ADAS,
    BOBS,
    CLEOS,
    MESH,
    NOW,
    OTHER_MESH,
    Device,
    code_of,
    seed,
)

REASONS = {"declined": "no_key", "withheld": "superseded"}


def item(label: str = "message", **changes: Any) -> ReceiptItem:
    said: dict[str, Any] = {
        "id": make_id("msg_", seed(label)),
        "header_hash": seed(f"header of {label}"),
        "status": ReceiptStatus.SEEN,
        "route": "tool",
        "at_ms": NOW,
    }
    return ReceiptItem(**{**said, **changes})


def batch(*items: ReceiptItem, device: Device = BOBS) -> SignedReceipts:
    listed = list(items) or [item()]
    return sign_receipts(MESH, ADAS.peer, listed, device.sign, device.certificate())


def believed(receipts: SignedReceipts, device: Device = BOBS, mesh: str = MESH) -> bool:
    return are_receipts_signed(mesh, receipts, device.certificate())


@pytest.mark.parametrize("status", sorted(SIGNED))
def test_the_recipients_word_is_believed(status: ReceiptStatus) -> None:
    receipts = batch(item(status=status, reason=REASONS.get(status, "")))
    (received,) = Report.from_json(Report(batches=[receipts]).model_dump_json()).batches
    assert received == receipts
    assert believed(received)


@pytest.mark.parametrize("status", sorted(set(ReceiptStatus) - SIGNED))
def test_the_brokers_word_is_not_the_recipients(status: ReceiptStatus) -> None:
    assert not believed(batch(item(status=status)))
    assert not believed(batch(item(), item("other", status=status)))


@pytest.mark.parametrize(
    "changes",
    [
        {"id": make_id("msg_", seed("other"))},
        {"header_hash": seed("other")},
        {"status": ReceiptStatus.DELIVERED},
        {"status": ReceiptStatus.DECLINED},
        {"route": "channel"},
        {"reason": "no_key"},
        {"at_ms": NOW + 1},
    ],
    ids=str,
)
def test_no_field_of_a_receipt_can_be_changed(changes: dict[str, Any]) -> None:
    receipts = batch()
    altered = receipts.model_copy(update={"items": [item(**changes)]})
    assert believed(receipts)
    assert not believed(altered)


def test_receipts_cannot_be_added_left_out_or_reordered() -> None:
    one, two = item("one"), item("two")
    receipts = batch(one, two)
    assert believed(receipts)
    for items in ([one], [two, one], [one, two, two], [one, one]):
        assert not believed(receipts.model_copy(update={"items": items}))


def test_receipts_count_in_their_mesh() -> None:
    elsewhere = sign_receipts(OTHER_MESH, ADAS.peer, [item()], BOBS.sign, BOBS.certificate())
    assert not believed(elsewhere)
    assert not believed(batch(), mesh=OTHER_MESH)


def test_the_word_of_one_recipient_is_not_that_of_another() -> None:
    bobs = batch()
    assert not believed(bobs, CLEOS)
    assert not believed(bobs.model_copy(update={"recipient": CLEOS.peer}))
    assert not believed(bobs.model_copy(update={"recipient": CLEOS.peer}), CLEOS)
    named = {"recipient": CLEOS.peer, "certificate": CLEOS.certificate().hash}
    assert not believed(bobs.model_copy(update=named), CLEOS)


def test_a_receipt_names_the_certificate_it_was_signed_under() -> None:
    renewed = BOBS.certificate(not_after=NOW + 1)
    assert not are_receipts_signed(MESH, batch(), renewed)


def test_one_signature_covers_at_most_256_receipts() -> None:
    most = [item(str(at)) for at in range(MAX_BATCH)]
    assert believed(Report.from_json(Report(batches=[batch(*most)]).model_dump_json()).batches[0])
    body = batch(*most).model_dump_json()
    again = body.replace('"items":[', '"items":[' + item().model_dump_json() + ",")
    assert code_of(lambda: Report.from_json(f'{{"batches":[{again}]}}')) == "invalid"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("header_hash", '"AAAA"'),
        ("at_ms", "-1"),
        ("at_ms", "99999999999999999999"),
        ("status", '"read"'),
        ("id", '"m1"'),
        ("route", f'"{"r" * 41}"'),
    ],
)
def test_a_receipt_of_another_shape_is_refused(field: str, value: str) -> None:
    fields = {
        "id": f'"{make_id("msg_", seed("x"))}"',
        "header_hash": f'"{"A" * 43}"',
        "status": '"seen"',
        "at_ms": "1",
    }
    written = ",".join(f'"{name}":{said}' for name, said in {**fields, field: value}.items())
    body = (
        f'{{"batches":[{{"sender":"{ADAS.peer}","recipient":"{BOBS.peer}","certificate":"AA",'
        f'"signature":"AA","items":[{{{written}}}]}}]}}'
    )
    assert code_of(lambda: Report.from_json(body)) == "invalid"


WORDS = st.text("ab() \x00", max_size=4)
ITEMS = st.lists(
    st.builds(
        item,
        label=st.sampled_from("ab"),
        status=st.sampled_from(sorted(SIGNED)),
        route=WORDS,
        reason=WORDS,
        at_ms=st.sampled_from([1, 11]),
    ),
    max_size=2,
)


@given(ITEMS, ITEMS)
def test_no_two_lists_of_receipts_are_signed_as_the_same_bytes(
    left: list[ReceiptItem], right: list[ReceiptItem]
) -> None:
    same = receipt_parts(MESH, left) == receipt_parts(MESH, right)
    assert same == (left == right)
