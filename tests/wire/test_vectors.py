"""The formats as another implementation has them: Node's WebCrypto, as a browser has it.

``vectors/*.json`` were made by ``vectors/make.mjs``, which shares no line with the Python. Here
Python reads them, and Node reads what Python makes.
"""

import hashlib
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from claudemesh_wire import canonical, content, frame, keys
from claudemesh_wire.address import direct_conversation
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.envelope import MembershipHead, Reader, Sealed, open_copy, seal
from claudemesh_wire.exchange import Answered, Asked, Exchange, Noticed
from claudemesh_wire.handshake import (
    Challenge,
    Claims,
    Facts,
    Hello,
    Mode,
    Welcome,
    as_claims,
    check_challenge,
    check_welcome,
    hello_mac,
    is_hello_signed,
    nonce_text,
    sign_hello,
    write_welcome,
)
from claudemesh_wire.keys import KemPrivateKey, SigningKey, VerifyKey, b64, unb64
from claudemesh_wire.membership import Chain, walk
from claudemesh_wire.receipts import (
    ReceiptItem,
    ReceiptStatus,
    Report,
    are_receipts_signed,
    sign_receipts,
)
from tests.wire.tunnel import tunnel_here
from tests.wire.world import (
    ADA,
    ADAS,
    BOB,
    BOBS,
    CLEO,
    CLEOS,
    DAN,
    DAY,
    MESH,
    NOW,
    Log,
    code_of,
    header,
    invite,
    joining,
    seed,
)

FOLDER: Final = Path(__file__).parent / "vectors"
FIRST_NODE: Final = 20


def vectors(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_bytes())


@cache
def node() -> str | None:
    """A Node that has Ed25519 and X25519 in WebCrypto."""
    found = shutil.which("node")
    if found is None:
        return None
    said = subprocess.run([found, "--version"], check=True, capture_output=True, text=True).stdout
    return found if int(said.lstrip("v").partition(".")[0]) >= FIRST_NODE else None


def run(script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    program = node()
    if program is None:
        pytest.skip(f"needs Node {FIRST_NODE} or later: the independent implementation runs in it")
    command = [program, FOLDER / script, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@cache
def chain() -> Chain:
    known = vectors("chain")
    return walk(known["mesh"], [unb64(step["entry"]) for step in known["steps"]])


@pytest.mark.parametrize("known", vectors("hpke")["vectors"], ids=lambda known: known["aead"])
def test_hpke_is_that_of_rfc_9180(known: dict[str, Any]) -> None:
    # The public call knows no additional data, and every published vector has some.
    hpke = openssl.hpke
    aead = {1: hpke.AEAD.AES_128_GCM, 2: hpke.AEAD.AES_256_GCM}[known["aead"]]
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, aead)
    raw = {name: bytes.fromhex(known[name]) for name in known if name != "aead"}
    opened = hpke._decrypt_with_aad(
        suite,
        raw["enc"] + raw["ciphertext"],
        X25519PrivateKey.from_private_bytes(raw["sk_recipient"]),
        raw["info"],
        raw["aad"],
    )
    assert opened == raw["plaintext"]


def test_signatures_proofs_and_ids_are_the_same_bytes() -> None:
    known = vectors("keys")
    for example in known["pae"]:
        assert keys.pae(*example["parts"]).hex() == example["bytes"]
    key, secret = SigningKey(unb64(known["seed"])), unb64(known["machine"])
    assert b64(key.public.raw) == known["public"]
    assert b64(key.sign(*known["signed"])) == known["signature"]
    assert b64(keys.mac(secret, "a", "bc")) == known["mac"]
    assert keys.member_id(key.public) == known["member"]
    assert keys.mesh_id(key.public, unb64(known["salt"])) == known["mesh"]
    assert keys.broker_id(key.public) == known["broker"]
    assert (
        keys.peer_id(known["mesh"], known["member"], keys.anchor_digest(known["anchor"]))
        == known["peer"]
    )
    talk = known["conversation"]
    assert direct_conversation(talk["participants"]) == talk["id"]


def test_a_certificate_made_elsewhere_is_read_and_believed() -> None:
    known = vectors("certificate")
    certificate = Certificate.parse(unb64(known["certificate"]))
    assert b64(certificate.hash) == known["hash"]
    assert certificate.is_signed_by(VerifyKey(unb64(known["member"])))
    assert not certificate.is_signed_by(VerifyKey(unb64(known["other_member"])))
    assert certificate.is_local_to(unb64(known["machine"]))
    said = certificate.fields.model_dump()
    assert said == {name: known["fields"][name] for name in said}


def test_a_chain_made_elsewhere_means_the_same_here() -> None:
    known = vectors("chain")
    walked = Chain(known["mesh"])
    for step in known["steps"]:
        walked = walked.extend([unb64(step["entry"])])
        members = {
            one.name: "removed" if one.removed else one.role for one in walked.members.values()
        }
        assert members == step["members"], step["does"]
        assert b64(walked.head.hash) == step["head"], step["does"]
        assert walked.revoked == {(who, device) for who, device in step["revoked"]}, step["does"]
    assert walked.name == known["name"]
    removed = Certificate.parse(unb64(known["revoked_certificate"]))
    assert code_of(lambda: walked.member_behind(removed)) == "member_removed"


@pytest.mark.parametrize("size", [1, 2, 3, 256])
def test_an_envelope_sealed_elsewhere_is_opened_by_each_reader(size: int) -> None:
    known = vectors(f"envelope_{size}")
    sealed = Sealed.parse(unb64(known["sealed"]))
    assert sealed.to_bytes() == unb64(known["sealed"])
    copies = [sealed.copy_for(position) for position in range(size)]
    every = hashlib.sha256(b"".join(copy.to_bytes() for copy in copies)).digest()
    assert b64(every) == known["copies"]
    kems = [unb64(kem) for kem in known["kems"]]
    while len(kems) < size:
        kems.append(hashlib.sha256(kems[-1]).digest())
    readers = sealed.read_header().to
    for copy, peer, kem in zip(copies, readers, kems, strict=True):
        opened = open_copy(copy, reader(known, peer, kem))
        fields, text = content.unpack(opened.plaintext)
        said = fields.model_dump(mode="json", exclude_unset=True)
        assert (said, text) == (known["content"]["fields"], known["content"]["text"])


def reader(known: dict[str, Any], peer: str, kem: bytes) -> Reader:
    certificate = Certificate.parse(unb64(known["certificate"]))
    chain().member_behind(certificate)
    return Reader(
        mesh=vectors("chain")["mesh"],
        peer=peer,
        now_ms=known["now_ms"],
        certificate=lambda _header: certificate,
        seen_before=lambda _sender, _message: False,
        kem_key=lambda _generation: KemPrivateKey(kem),
    )


def test_receipts_signed_elsewhere_are_believed() -> None:
    known = vectors("receipts")
    certificate = Certificate.parse(unb64(known["certificate"]))
    asked = Exchange().receive(known["frame"])
    assert isinstance(asked, Asked)
    assert isinstance(asked.request, Report)
    (batch,) = asked.request.batches
    assert [item.status for item in batch.items] == ["delivered", "seen", "declined", "withheld"]
    assert are_receipts_signed(known["mesh"], batch, certificate)


def test_a_hello_and_a_welcome_made_elsewhere_are_believed() -> None:
    known = vectors("handshake")
    token = unb64(known["token"])
    exchange, broker = Exchange(), Exchange()
    noticed = exchange.receive(known["challenge"])
    assert isinstance(noticed, Noticed)
    assert isinstance(noticed.notice, Challenge)
    key = check_challenge(noticed.notice, known["broker"])

    asked = broker.receive(known["hello"])
    assert isinstance(asked, Asked)
    hello = asked.request
    assert isinstance(hello, Hello)
    certificate = Certificate.parse(hello.certificate)
    believed = walk(certificate.fields.mesh, hello.log)
    assert believed.member_behind(certificate).name == "ada"
    assert is_hello_signed(hello, certificate.sign_key)
    assert hello.token_mac == hello_mac(token, hello.claims, hello.certificate)
    claims = canonical.decode(hello.claims, Claims, "claims")
    assert (claims.bn, claims.mode) == (nonce_text(noticed.notice.nonce), Mode.ATTACH)

    exchange.ask(hello)
    answered = exchange.receive(known["welcome"])
    assert isinstance(answered, Answered)
    assert isinstance(answered.outcome, Welcome)
    facts = check_welcome(answered.outcome, hello.claims, key, token)
    assert (facts.handle, facts.fence) == ("ada", 3)


def test_the_vectors_are_what_the_independent_implementation_makes(tmp_path: Path) -> None:
    made = run("make.mjs", tmp_path)
    assert made.returncode == 0, made.stderr
    kept = {path.name for path in FOLDER.glob("*.json")} - {"hpke.json"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    for name in kept:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name


def made_here() -> dict[str, Any]:
    """Everything there is, as Python makes it, for ``check.mjs``."""
    log = Log().bring(BOB, "admin")
    shown = invite(BOB, uses=2)
    log.add("add", CLEO, **joining(CLEO, shown)).add("add", DAN, **joining(DAN, shown))
    log.add("role", ADA, member=CLEO.id, role="observer")
    log.add("revoke_device", BOB, member=DAN.id, device=b64(seed("lost")))
    log.add("remove", BOB, member=DAN.id)
    readers = [BOBS, CLEOS]
    fields = content.ContentFields(priority=content.Priority.NOW, thread="Ümzug")
    sealed = keyed(content.pack(fields, "Grüße \u2028 \x00 \U0001f44b"), log)
    return {
        "mesh": MESH,
        "entries": [b64(blob) for blob in log.blobs],
        "certificate": b64(ADAS.certificate().blob),
        "copies": [
            {
                "copy": b64(sealed.copy_for(position).to_bytes()),
                "peer": one.peer,
                "kem": b64(one.kem.raw),
            }
            for position, one in enumerate(readers)
        ],
        "receipts": receipts_here(),
        "handshake": handshake_here(log),
        "tunnel": tunnel_here(),
    }


def keyed(plaintext: bytes, log: Log) -> Sealed:
    head = log.chain.head
    said = header(ADAS, [BOBS, CLEOS], mh=MembershipHead(seq=head.seq, head=b64(head.hash)))
    return seal(said, plaintext, [BOBS.kem.public, CLEOS.kem.public], ADAS.sign, seed("content"))


def receipts_here() -> dict[str, str]:
    items = [
        ReceiptItem(
            id=keys.make_id("msg_", seed(status)),
            header_hash=seed("header"),
            status=status,
            route="channel",
            reason="no_key" if status is ReceiptStatus.DECLINED else "",
            at_ms=NOW,
        )
        for status in (ReceiptStatus.DELIVERED, ReceiptStatus.DECLINED)
    ]
    batch = sign_receipts(MESH, ADAS.peer, items, BOBS.sign, BOBS.certificate())
    return {
        "certificate": b64(BOBS.certificate().blob),
        "frame": frame.encode(1, 0, Report(batches=[batch])),
    }


def handshake_here(log: Log) -> dict[str, str]:
    broker, token, certificate = SigningKey(seed("broker")), seed("token"), ADAS.certificate()
    name, head = keys.broker_id(broker.public), log.chain.head
    challenge = Challenge(
        broker=name, key=broker.public.raw, nonce=seed("bn"), now_ms=NOW, version="1"
    )
    shared = {
        "broker": name,
        "bn": b64(seed("bn")),
        "cn": b64(seed("cn")),
        "peer": ADAS.peer,
        "head_seq": head.seq,
        "head": b64(head.hash),
        "version": "1",
    }
    claims = canonical.encode(
        as_claims({**shared, "v": 1, "mode": "call", "mesh": MESH, "cert": b64(certificate.hash)})
    )
    facts = Facts(
        **shared, handle="ada", fence=1, now=NOW, data_version=1, last_seen=NOW - DAY, lease=9,
        credit=1,
    )  # fmt: skip
    hello = Hello(
        claims=claims,
        certificate=certificate.blob,
        signature=sign_hello(claims, certificate.blob, ADAS.sign),
        token_mac=hello_mac(token, claims, certificate.blob),
    )
    return {
        "broker": name,
        "token": b64(token),
        "challenge": frame.encode(0, 0, challenge),
        "hello": frame.encode(1, 0, hello),
        "welcome": frame.encode(0, 1, write_welcome(facts, claims, broker, token, [])),
    }


def test_what_python_makes_is_read_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "made.json").write_text(json.dumps(made_here()))
    checked = run("check.mjs", tmp_path / "made.json")
    assert checked.returncode == 0, checked.stderr
    opened = {
        "id": keys.make_id("msg_", seed("message")),
        "fields": {"priority": "now", "thread": "Ümzug"},
        "text": "Grüße \u2028 \x00 \U0001f44b",
    }
    assert json.loads(checked.stdout) == {
        "sender": "ada",
        "members": {"ada": "owner", "bob": "admin", "cleo": "observer", "dan": "removed"},
        "opened": [opened, opened],
        "receipts": ["delivered", "declined"],
        "handle": "ada",
        "tunnel": ["one", "two", "Grüße"],
    }


@pytest.mark.parametrize("part", ["certificate", "copies", "entries"])
def test_the_other_reader_refuses_what_was_altered(part: str, tmp_path: Path) -> None:
    made = made_here()
    whole = made[part][-1]["copy"] if part == "copies" else made[part]
    text = whole[-1] if part == "entries" else whole
    altered = bytearray(unb64(text))
    altered[len(altered) // 2] ^= 1
    spoiled = b64(bytes(altered))
    if part == "copies":
        made[part][-1]["copy"] = spoiled
    else:
        made[part] = [*whole[:-1], spoiled] if part == "entries" else spoiled
    (tmp_path / "made.json").write_text(json.dumps(made))
    assert run("check.mjs", tmp_path / "made.json").returncode == 1
