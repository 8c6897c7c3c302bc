"""What a home believes: a membership history that only grows, whatever a broker or disk shows."""

import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from claudemesh_mcp.config import Paths, Settings
from claudemesh_mcp.home import Home, atomic_write, remove
from claudemesh_mcp.identity import open_identity
from claudemesh_mcp.trust import Trust
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, MeshError
from claudemesh_wire.membership import Chain
from tests.support.trusting import believing, head_of
from tests.wire.world import ADA, BOB, CLEO, MESH, OTHER_MESH, Log


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


def test_a_home_begins_with_its_own_founding_entry(tmp_path: Path) -> None:
    identity = open_identity(Home.open(Paths.of(tmp_path)), Settings(keyring=False))
    trust = Trust.open(identity)
    assert (trust.mesh, trust.head.seq) == (identity.mesh, 1)
    assert trust.chain.entries == (identity.founding,)
    kept = identity.home.meshes / identity.mesh / "log"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert Trust.open(identity).head == trust.head


def test_what_was_verified_is_known_to_the_next_session(folder: Path, trust: Trust) -> None:
    again = Trust(folder, Chain(MESH))
    again.extend([])
    assert again.chain == trust.chain


def test_another_session_s_knowledge_is_taken_over(folder: Path, log: Log, trust: Trust) -> None:
    believing(folder, log.bring(CLEO))
    trust.extend([])
    assert trust.head == head_of(log)


def test_entries_known_already_may_come_first(log: Log, trust: Trust) -> None:
    log.bring(CLEO)
    trust.extend(log.blobs)
    trust.extend(log.blobs[1:])
    assert trust.head == head_of(log)


def test_of_entries_that_do_not_hold_together_none_is_kept(
    folder: Path, log: Log, trust: Trust
) -> None:
    before = (folder / "log").read_bytes()
    good = log.entry("add", ADA, **CLEO.named(), role="member")
    foreign = log.bring(CLEO).entry("remove", BOB, member=ADA.id)
    assert code_of(lambda: trust.extend([good, foreign]), Forbidden) == "membership_forbidden"
    assert trust.head.seq == 2
    assert (folder / "log").read_bytes() == before


def test_a_gap_is_refused(log: Log, trust: Trust) -> None:
    later = log.bring(CLEO).entry("role", ADA, member=CLEO.id, role="admin")
    assert code_of(lambda: trust.extend([later]), Conflict) == "membership_gap"


def test_another_history_is_refused_and_what_is_known_stays(log: Log, trust: Trust) -> None:
    other = Log().bring(CLEO).bring(BOB)
    with pytest.raises(MeshError):
        trust.extend(other.blobs)
    assert trust.head == head_of(log)
    assert CLEO.id not in trust.chain.members


def test_two_sessions_can_not_continue_one_history_in_two_ways(folder: Path, log: Log) -> None:
    tails = [
        log.entry("add", ADA, **CLEO.named(), role="member"),
        log.entry("role", ADA, member=BOB.id, role="admin"),
    ]
    sessions = [believing(folder, log) for _ in tails]
    refused: list[str] = []

    def extend(session: Trust, tail: bytes) -> None:
        try:
            session.extend([tail])
        except MeshError as error:
            refused.append(error.code)

    threads = [
        threading.Thread(target=extend, args=pair) for pair in zip(sessions, tails, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(refused) == 1
    for session in sessions:
        session.extend([])
    assert sessions[0].head == sessions[1].head


def test_a_broker_that_knows_more_is_asked_for_it(log: Log, trust: Trust) -> None:
    head = head_of(log.bring(CLEO))
    assert trust.check_head(head.seq, head.hash)


def test_a_broker_that_knows_the_same_has_nothing_to_tell(log: Log, trust: Trust) -> None:
    head = head_of(log)
    assert not trust.check_head(head.seq, head.hash, least=head.seq)


def test_a_broker_that_was_told_more_than_it_shows_is_found_out(trust: Trust) -> None:
    before = trust.chain.head_at(1)
    assert before is not None
    call = lambda: trust.check_head(1, before.hash, least=2)  # noqa: E731
    assert code_of(call, Conflict) == "membership_rollback"


def test_an_answer_older_than_the_newest_entry_is_no_lie(trust: Trust) -> None:
    before = trust.chain.head_at(1)
    assert before is not None
    assert not trust.check_head(1, before.hash)


@pytest.mark.parametrize("seq", [0, 1, 2])
def test_a_broker_that_shows_another_history_is_found_out(trust: Trust, seq: int) -> None:
    call = lambda: trust.check_head(seq, bytes(32))  # noqa: E731
    assert code_of(call, Conflict) == "membership_rollback"


def test_a_log_cut_or_altered_anywhere_is_refused_or_shorter_and_never_more(
    folder: Path, trust: Trust
) -> None:
    whole = (folder / "log").read_bytes()
    ends = {0, 4 + len(trust.chain.entries[0])}
    for cut in range(0, len(whole), 13):
        atomic_write(folder / "log", whole[:cut])
        again = Trust(folder, Chain(MESH))
        if cut in ends:
            again.extend([])
            assert again.head.seq == sorted(ends).index(cut)
        else:
            assert code_of(lambda again=again: again.extend([]), Invalid) == "log_damaged"
    for at in range(0, len(whole), 17):
        altered = bytearray(whole)
        altered[at] ^= 1
        atomic_write(folder / "log", bytes(altered))
        again = Trust(folder, Chain(MESH))
        with pytest.raises(MeshError) as caught:
            again.extend([])
        assert caught.value.hint


def test_a_log_cut_while_a_session_runs_is_not_forgotten_but_written_again(
    folder: Path, log: Log, trust: Trust
) -> None:
    whole = (folder / "log").read_bytes()
    atomic_write(folder / "log", whole[: 4 + len(log.blobs[0])])
    trust.extend([])
    assert trust.head == head_of(log)
    assert (folder / "log").read_bytes() == whole
    remove(folder / "log")
    trust.extend([])
    assert (folder / "log").read_bytes() == whole


def test_a_log_replaced_by_another_history_is_refused(folder: Path, trust: Trust) -> None:
    other = folder.parent / "other"
    other.mkdir(mode=0o700)
    believing(other, Log().bring(CLEO))
    atomic_write(folder / "log", (other / "log").read_bytes())
    assert code_of(lambda: trust.extend([]), Invalid) == "log_damaged"
    assert BOB.id in trust.chain.members


def test_the_log_of_another_mesh_is_refused(folder: Path, trust: Trust) -> None:
    stranger = Trust(folder, Chain(OTHER_MESH))
    assert code_of(lambda: stranger.extend([]), Invalid) == "log_damaged"
    assert trust.mesh == MESH


def test_a_log_of_a_newer_version_asks_for_an_update(folder: Path, log: Log) -> None:
    newer = log.entry("coronation", ADA)
    parts = [*log.blobs, newer]
    atomic_write(folder / "log", b"".join(len(one).to_bytes(4, "big") + one for one in parts))
    again = Trust(folder, Chain(MESH))
    assert code_of(lambda: again.extend([]), Invalid) == "unsupported_version"
