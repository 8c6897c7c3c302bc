"""Who a home is: made once, found again after any kill, never replaced; keys that age and go."""

import json
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp import identity as identities
from claudemesh_mcp.config import Paths, Settings, broker_environment
from claudemesh_mcp.home import Home, atomic_write, remove
from claudemesh_mcp.identity import (
    CHECKPOINTS,
    KEM_KEPT_MS,
    KEM_ROTATION_MS,
    Device,
    Identity,
    open_device,
    open_identity,
    read_device,
)
from claudemesh_mcp.keystore import CHECKPOINTS as KEY_CHECKPOINTS
from claudemesh_mcp.sealedfile import SealedFile
from claudemesh_mcp.trust import Trust
from claudemesh_wire.certificate import LIFETIME_MS
from claudemesh_wire.errors import Conflict, Invalid, MeshError, NotFound
from claudemesh_wire.keys import SigningKey, member_id
from claudemesh_wire.membership import Entry, EntryKind, walk
from tests.support import warmstart
from tests.support.warmstart import Start

NOW = 1_790_000_000_000
ANCHOR = "resume:ada"
NO_KEYRING = Settings(keyring=False)

START = """
import json, os, signal, sys
from claudemesh_mcp.config import Settings
from claudemesh_mcp.home import Home
from claudemesh_mcp.identity import open_device, open_identity

def checkpoint(name):
    if name == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

settings = Settings.load()
found = open_identity(Home.open(settings.paths()), settings, checkpoint)
device = open_device(found, "resume:ada", 0)
print(json.dumps({
    "profile": found.wrapping.profile_id,
    "wrapping": found.wrapping.fingerprint.hex(),
    "member": found.member,
    "mesh": found.mesh,
    "machine": found.machine_secret.hex(),
    "device": device.sign.public.raw.hex(),
}))
"""


def start(folder: Path, kill_at: str = "", keyring: str = "on") -> dict[str, Any]:
    """Start once on the home in a folder; gives who it was, or nothing when it was killed."""
    environ = broker_environment() | {
        "HOME": str(folder),
        "CLAUDEMESH_HOME": str(folder / "home"),
        "CLAUDEMESH_KEYRING": keyring,
        "PYTHON_KEYRING_BACKEND": "tests.support.keyring_backends.Kept",
        "TEST_KEYRING": str(folder / "keyring.json"),
    }
    ended = warmstart.run(Start((kill_at,), environ, folder, program=START), limit_s=60)
    if ended.returncode == -signal.SIGKILL:
        return {}
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(Paths.of(tmp_path / "home"))


@pytest.fixture
def identity(home: Home) -> Identity:
    return open_identity(home, NO_KEYRING)


@pytest.fixture
def peer(identity: Identity) -> str:
    return identity.peer(ANCHOR)


def code_of(call: Callable[[], object], kind: type[MeshError]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.hint
    return caught.value.code


def generations(device: Device | None) -> list[int]:
    assert device is not None
    return [kem.generation for kem in device.kems]


@pytest.mark.parametrize("kill_at", [*KEY_CHECKPOINTS, *CHECKPOINTS])
def test_a_start_killed_at_any_step_is_finished_by_the_next(tmp_path: Path, kill_at: str) -> None:
    # Behind the steps of the key it is all one who keeps it.
    keyring = "on" if kill_at in KEY_CHECKPOINTS else "off"
    known = {"keyring.json", "wrapping.key", "member.key", "machine.key", "local.founding"}
    assert start(tmp_path, kill_at, keyring) == {}
    made = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.name in known}
    profile = tmp_path / "home" / "profile.json"
    began_as = json.loads(profile.read_text())["id"] if profile.exists() else None
    second = start(tmp_path, keyring=keyring)
    assert began_as in {None, second["profile"]}
    assert all(path.read_bytes() == data for path, data in made.items())
    assert start(tmp_path, keyring=keyring) == second


def test_eight_that_start_at_once_on_an_empty_home_are_one_member_of_one_mesh(
    tmp_path: Path,
) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: start(tmp_path), range(8)))
    assert all(found)
    assert len({json.dumps(one) for one in found}) == 1
    assert len(json.loads((tmp_path / "keyring.json").read_text())) == 1


def test_the_steps_that_tests_die_at_are_all_passed_in_order(home: Home) -> None:
    passed: list[str] = []
    open_identity(home, NO_KEYRING, passed.append)
    keys = [name for name in KEY_CHECKPOINTS if name != "keyring:set"]
    assert passed == [*keys, *CHECKPOINTS]


def test_the_first_entry_founds_a_mesh_whose_owner_is_this_member(identity: Identity) -> None:
    chain = walk(identity.mesh, [identity.founding])
    assert list(chain.members) == [identity.member]
    assert (chain.name, chain.members[identity.member].role) == ("local", "owner")
    assert identity.member == member_id(identity.key.public)
    assert chain.members[identity.member].name == identity.name


def test_no_private_key_lies_open_in_the_home(home: Home, identity: Identity) -> None:
    device = open_device(identity, ANCHOR, NOW)
    private = [identity.key.seed, device.sign.seed, device.current.key.raw]
    for path in home.data.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not any(secret in content for secret in private)
        assert path.stat().st_mode & 0o077 == 0


def test_two_homes_are_two_members_of_two_meshes(tmp_path: Path, identity: Identity) -> None:
    other = open_identity(Home.open(Paths.of(tmp_path / "other")), NO_KEYRING)
    assert {other.member, other.mesh}.isdisjoint({identity.member, identity.mesh})


def test_another_key_in_the_member_file_is_an_error_and_not_a_new_mesh(
    home: Home, identity: Identity
) -> None:
    SealedFile.write(home.keys / "member.key", bytes(32), identity.wrapping, "member key")
    assert code_of(lambda: open_identity(home, NO_KEYRING), Invalid) == "key_file_damaged"
    assert (home.meshes / "local.founding").read_bytes() == identity.founding


def test_a_member_key_of_another_home_is_an_error(
    tmp_path: Path, home: Home, identity: Identity
) -> None:
    other = Home.open(Paths.of(tmp_path / "other"))
    open_identity(other, NO_KEYRING)
    foreign = (other.keys / "member.key").read_bytes()
    atomic_write(home.keys / "member.key", foreign)
    assert code_of(lambda: open_identity(home, NO_KEYRING), Conflict) == "key_mismatch"
    assert identity.member


@pytest.mark.parametrize("content", [b"", b"no entry", b'{"v":1}' + bytes(64)])
def test_a_damaged_founding_entry_is_an_error_that_names_the_file(
    home: Home, identity: Identity, content: bytes
) -> None:
    atomic_write(home.meshes / "local.founding", content)
    with pytest.raises(Invalid) as caught:
        open_identity(home, NO_KEYRING)
    assert caught.value.code == "key_file_damaged"
    assert "local.founding" in caught.value.reason
    assert identity.mesh


def test_every_changed_byte_of_the_founding_entry_is_noticed(
    home: Home, identity: Identity
) -> None:
    for at in range(0, len(identity.founding), 7):
        altered = bytearray(identity.founding)
        altered[at] ^= 1
        atomic_write(home.meshes / "local.founding", bytes(altered))
        with pytest.raises(MeshError):
            open_identity(home, NO_KEYRING)


def test_the_founding_entry_of_another_member_is_an_error(home: Home, identity: Identity) -> None:
    stranger = identities.found(SigningKey(bytes(32)), "local", "eve", 0)
    atomic_write(home.meshes / "local.founding", stranger.blob)
    assert code_of(lambda: open_identity(home, NO_KEYRING), Invalid) == "key_file_damaged"
    assert Entry.parse(identity.founding).fields.kind == EntryKind.FOUND


@pytest.mark.parametrize("lost", ["keys/member.key", "meshes/local.founding"])
def test_a_home_that_lost_a_part_is_refused_and_nothing_is_made_anew(
    home: Home, identity: Identity, lost: str
) -> None:
    Trust.open(identity)
    remove(home.data / lost)
    before = sorted(home.data.rglob("*"))
    assert code_of(lambda: open_identity(home, NO_KEYRING), NotFound) == "identity_incomplete"
    assert sorted(home.data.rglob("*")) == before


def test_a_peer_is_found_again_by_what_it_is_anchored_on(identity: Identity) -> None:
    assert identity.peer("claude:one") == identity.peer("claude:one")
    assert identity.peer("claude:one") != identity.peer("resume:one")


def test_a_peer_that_the_home_has_kept_is_resumed_by_its_id(identity: Identity, peer: str) -> None:
    identity.folder(peer)
    assert identity.peer(peer) == peer


def test_a_peer_id_that_the_home_has_not_kept_is_an_error(identity: Identity, peer: str) -> None:
    assert code_of(lambda: identity.peer(peer), NotFound) == "unknown_peer"


@pytest.mark.parametrize("anchor", ["p_short", "p_../../keys", "p_", "p_" + "A" * 26])
def test_what_only_begins_like_a_peer_id_never_becomes_a_path(
    identity: Identity, anchor: str
) -> None:
    named = identity.peer(anchor)
    assert identities.PEER_ID.fullmatch(named)


def test_device_keys_stay_from_start_to_start(identity: Identity) -> None:
    first = open_device(identity, ANCHOR, NOW)
    again = open_device(identity, ANCHOR, NOW + KEM_ROTATION_MS - 1)
    assert again == first
    assert again.kem_key(1) == first.current.key


def test_device_keys_are_on_disk_before_they_are_used(identity: Identity, peer: str) -> None:
    device = open_device(identity, ANCHOR, NOW)
    assert read_device(identity, peer) == device
    rotated = open_device(identity, ANCHOR, NOW + KEM_ROTATION_MS)
    assert read_device(identity, peer) == rotated


def test_a_peer_without_keys_has_none_to_read(identity: Identity, peer: str) -> None:
    assert read_device(identity, peer) is None


def test_an_opening_key_is_renewed_after_a_day_and_the_signing_key_stays(
    identity: Identity,
) -> None:
    first = open_device(identity, ANCHOR, NOW)
    second = open_device(identity, ANCHOR, NOW + KEM_ROTATION_MS)
    assert generations(second) == [1, 2]
    assert second.sign == first.sign
    assert second.kem_key(1) == first.current.key
    assert second.current.key != first.current.key
    assert second.certify("ada", NOW).fields.kem_generation == 2


def test_a_superseded_key_is_erased_after_eight_days_and_not_before(
    home: Home, identity: Identity, peer: str
) -> None:
    open_device(identity, ANCHOR, NOW)
    superseded = NOW + KEM_ROTATION_MS
    open_device(identity, ANCHOR, superseded)
    kept = open_device(identity, ANCHOR, superseded + KEM_KEPT_MS)
    assert generations(kept) == [1, 2, 3]
    erased = open_device(identity, ANCHOR, superseded + KEM_KEPT_MS + 1)
    assert generations(erased) == generations(read_device(identity, peer)) == [2, 3]
    assert erased.kem_key(1) is None
    assert list((home.sessions / peer).iterdir()) == [home.sessions / peer / "device.key"]


def test_an_envelope_to_a_peer_absent_for_six_days_finds_its_key_after_two_rotations(
    identity: Identity,
) -> None:
    day = KEM_ROTATION_MS
    sealed_to = open_device(identity, ANCHOR, NOW).current
    open_device(identity, ANCHOR, NOW + day)
    device = open_device(identity, ANCHOR, NOW + 6 * day)
    assert device.current.generation == 3
    assert device.kem_key(sealed_to.generation) == sealed_to.key


def test_a_certificate_is_signed_by_the_member_and_valid_for_a_day(
    identity: Identity, peer: str
) -> None:
    device = open_device(identity, ANCHOR, NOW)
    certificate = device.certify("ada", NOW)
    fields = certificate.fields
    assert certificate.is_signed_by(identity.key.public)
    assert (fields.peer, fields.handle, fields.mesh) == (peer, "ada", identity.mesh)
    assert fields.not_before < NOW < fields.not_after == NOW + LIFETIME_MS
    assert certificate.is_local_to(identity.machine_secret)
    assert not certificate.is_local_to(bytes(32))


def test_peers_of_one_home_do_not_share_keys(identity: Identity) -> None:
    one, other = (open_device(identity, name, NOW) for name in ("a:1", "a:2"))
    assert one.sign != other.sign
    assert one.current.key != other.current.key


def test_the_key_file_of_another_peer_is_refused(identity: Identity, peer: str) -> None:
    other = identity.peer("resume:bob")
    open_device(identity, "resume:bob", NOW)
    folder = identity.folder(peer)
    atomic_write(folder / "device.key", (identity.folder(other) / "device.key").read_bytes())
    assert code_of(lambda: open_device(identity, ANCHOR, NOW), Invalid) == "key_file_damaged"


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"sign": "AA", "kems": []}', b'{"v": 1, "sign": 5, "kems": [[1]]}'],
)
def test_a_key_file_without_device_keys_is_refused_and_kept(
    identity: Identity, peer: str, content: bytes
) -> None:
    path = identity.folder(peer) / "device.key"
    SealedFile.write(path, content, identity.wrapping, f"device {peer}")
    before = path.read_bytes()
    assert code_of(lambda: open_device(identity, ANCHOR, NOW), Invalid) == "key_file_damaged"
    assert path.read_bytes() == before


def test_a_user_without_a_name_founds_a_mesh_as_well(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("no passwd entry")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert open_identity(home, NO_KEYRING).name == "me"
