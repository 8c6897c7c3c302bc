"""Servers that come back: sealed, one file each, hosted by one process at a time."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from claudemesh_mcp.config import Settings
from claudemesh_mcp.home import Home, atomic_write, try_lock
from claudemesh_mcp.hosting.launch import Launch
from claudemesh_mcp.hosting.registry import Entry, Holder, Registry, name_of, place_of
from claudemesh_mcp.hosting.wishes import Scope, ServerWish
from claudemesh_mcp.identity import Identity, open_identity
from claudemesh_mcp.sealedfile import SealedFile, WrappingKey
from claudemesh_wire.errors import MeshError
from tests.support.stores import run_program, start_program

NOW = 1_790_000_000_000
SECRET = "hunter2-and-more"
LAUNCH = Launch("python3", ("srv.py", "--für", "a b"), {"TOKEN": SECRET}, cwd=r"C:\Users\Ada\Läden")
WISH = ServerWish("sums", LAUNCH, "adds up", ("mesh", "@team"), ("add",), persistent=True)
HOSTING = """
import json, sys
from claudemesh_mcp.config import Settings
from claudemesh_mcp.home import Home
from claudemesh_mcp.hosting.registry import Registry
from claudemesh_mcp.identity import open_identity
from pathlib import Path
settings = Settings(home=Path(sys.argv[1]), keyring=False)
registry = Registry(open_identity(Home.open(settings.paths()), settings))
entry = registry.read().entries[0]
"""


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    settings = Settings(home=tmp_path / "home", keyring=False)
    return open_identity(Home.open(settings.paths()), settings)


@pytest.fixture
def registry(identity: Identity) -> Registry:
    return Registry(identity)


def entry(folder: str = "/work/shop", scope: Scope = Scope.PROJECT, name: str = "sums") -> Entry:
    return Entry(replace(WISH, name=name, scope=scope), folder, "p_ada", "ada", NOW)


def file_of(registry: Registry) -> Path:
    [file] = registry.folder.glob("*.entry")
    return file


def fault(registry: Registry) -> MeshError:
    """Why the one file that there is can't be read."""
    kept = registry.read()
    [found] = kept.faults
    assert kept.entries == []
    assert str(found.path) in found.error.reason
    assert found.error.hint
    return found.error


def test_what_is_added_is_read_again_until_it_is_removed(registry: Registry) -> None:
    assert (registry.read().entries, registry.has(entry())) == ([], False)
    registry.add(entry())
    assert registry.read().entries == [entry()]
    assert registry.has(entry())
    assert registry.remove(entry())
    assert (registry.read().entries, registry.remove(entry())) == ([], False)


@pytest.mark.parametrize(
    "folder",
    [
        r"C:\Users\Ada\Läden",
        r"\\server\share\läden",
        "/work/läden 🏪/سوق",
        "/work/\udcff\udcfe",
        "/" + "x" * 3000,
        "/work/new\nline",
    ],
)
def test_any_folder_is_kept_as_it_is(registry: Registry, folder: str) -> None:
    kept = entry(folder)
    registry.add(kept)
    assert registry.read().entries == [kept]
    assert kept.fits(folder)
    assert not kept.fits(folder + "2")


def test_a_url_is_kept_with_its_headers(registry: Registry) -> None:
    launch = Launch(url="https://example.org/mcp", headers={"Authorization": f"Bearer {SECRET}"})
    kept = replace(entry(), wish=replace(WISH, launch=launch, tools_allowed=None))
    registry.add(kept)
    assert registry.read().entries == [kept]


def test_nothing_is_in_clear_and_nobody_else_can_read_it(registry: Registry) -> None:
    registry.add(entry())
    registry.note(entry().key, Holder("p_ada", "ada", "failed", NOW, f"It said {SECRET}"))
    files = list(registry.folder.iterdir())
    assert len(files) == 2
    for file in files:
        assert SECRET.encode() not in file.read_bytes()
        assert file.stat().st_mode & 0o777 == 0o600
    assert registry.folder.stat().st_mode & 0o777 == 0o700
    assert SECRET not in repr(entry())


def test_one_name_is_a_server_of_its_own_in_each_folder_and_scope(registry: Registry) -> None:
    several = [entry(), entry("/work/other"), entry(scope=Scope.USER), entry(scope=Scope.BROKER)]
    for one in several:
        registry.add(one)
    assert sorted(one.key for one in registry.read().entries) == sorted(one.key for one in several)
    with pytest.raises(MeshError) as refused:
        registry.add(entry("/elsewhere", Scope.USER))
    assert refused.value.code == "name_taken"
    assert len(registry.read().entries) == 4


def test_a_server_comes_back_in_its_folder_or_for_the_whole_user(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    (shop / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(shop)
    kept = entry(place_of(str(tmp_path / "link")))
    assert kept.fits(str(shop))
    assert kept.fits(str(tmp_path / "link"))
    assert kept.fits(str(shop / "inner" / ".."))
    assert not kept.fits(str(shop / "inner"))
    assert not kept.fits(str(tmp_path))
    assert not kept.fits(str(shop), is_resident=True)
    assert entry(scope=Scope.USER).fits(str(tmp_path))
    assert not entry(scope=Scope.USER).fits(str(tmp_path), is_resident=True)
    assert not entry(scope=Scope.BROKER).fits(str(shop))
    assert entry(scope=Scope.BROKER).fits(str(tmp_path), is_resident=True)


def test_a_damaged_file_is_told_and_costs_no_other(registry: Registry) -> None:
    registry.add(entry())
    path = file_of(registry)
    data = path.read_bytes()
    for damaged in (data[:-1], data[:40], b"", data[:-1] + bytes([data[-1] ^ 1])):
        atomic_write(path, damaged)
        assert fault(registry).code == "key_file_damaged"
        assert path.read_bytes() == damaged
        assert registry.has(entry())
    registry.add(entry("/work/other"))
    assert registry.read().entries == [entry("/work/other")]


def test_a_file_under_the_name_of_another_is_refused(registry: Registry) -> None:
    registry.add(entry())
    path = file_of(registry)
    path.rename(path.with_name(f"{entry('/work/other').key}.entry"))
    assert fault(registry).code == "key_file_damaged"


def test_another_key_opens_nothing(registry: Registry, identity: Identity) -> None:
    registry.add(entry())
    foreign = replace(identity, wrapping=WrappingKey(bytes(32), "prof_other", "file"))
    assert fault(Registry(foreign)).code == "key_mismatch"
    assert registry.read().entries == [entry()]


def test_a_file_that_others_can_read_is_refused(registry: Registry) -> None:
    registry.add(entry())
    file_of(registry).chmod(0o644)
    assert fault(registry).code == "wrong_mode"


@pytest.mark.parametrize(
    "said",
    [
        b"no JSON",
        b"[]",
        b"{}",
        json.dumps({**json.loads(entry().to_json()), "v": 2}).encode(),
        json.dumps({**json.loads(entry().to_json()), "launch": "{}"}).encode(),
        json.dumps({**json.loads(entry().to_json()), "scope": "galaxy"}).encode(),
        json.dumps({**json.loads(entry().to_json()), "name": "other"}).encode(),
    ],
)
def test_what_a_newer_version_wrote_is_told_and_stays(
    registry: Registry, identity: Identity, said: bytes
) -> None:
    registry.add(entry())
    path = file_of(registry)
    atomic_write(path, SealedFile.seal(said, identity.wrapping, f"mcp server entry {entry().key}"))
    assert fault(registry).code == "server_unreadable"
    assert path.exists()


def test_every_change_shows_in_the_stamp(registry: Registry) -> None:
    stamps = [registry.stamp()]
    for act in (registry.add, registry.remove, registry.add):
        act(entry())
        stamps.append(registry.stamp())
    registry.note(entry().key, Holder("p_ada", "ada", "running", NOW))
    assert registry.stamp() == stamps[-1]
    assert stamps[0] == stamps[2]
    assert len(set(stamps)) == 3


def test_who_hosts_a_server_is_known_until_it_is_forgotten(registry: Registry) -> None:
    assert registry.holder(entry().key) is None
    registry.add(entry())
    for state in ("starting", "running"):
        registry.note(entry().key, Holder("p_ada", "ada", state, NOW, "why", ("p_bob",)))
    assert registry.holder(entry().key) == Holder("p_ada", "ada", "running", NOW, "why", ("p_bob",))
    assert registry.left_over() == []
    registry.remove(entry())
    assert registry.left_over() == [entry().key]
    assert name_of(entry().key) == "sums"
    assert registry.holder(entry("/work/other").key) is None
    registry.forget(entry().key)
    assert registry.holder(entry().key) is None


def test_one_process_at_a_time_hosts_a_server(registry: Registry, tmp_path: Path) -> None:
    registry.add(entry())
    take = "print(json.dumps(registry.take(entry.key) is not None), flush=True); sys.stdin.read()"
    home = str(tmp_path / "home")
    first = registry.take(entry().key)
    assert first is not None
    assert registry.is_held(entry().key)
    assert run_program(HOSTING + "print(json.dumps(registry.is_held(entry.key)))", home) is True
    # Another server is nothing of this one's.
    other = registry.take(entry("/work/other").key)
    assert other is not None
    other.release()
    first.release()
    wait = take.replace("sys.stdin.read()", "import threading; threading.Event().wait()")
    with start_program(HOSTING + wait, home) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) is True
        assert registry.is_held(entry().key)
        assert registry.take(entry().key) is None
        process.kill()
        process.wait()
        lock = registry.take(entry().key)
        assert lock is not None
        lock.release()


def test_of_many_that_add_a_name_at_once_one_wins(registry: Registry, tmp_path: Path) -> None:
    registry.add(entry())
    add = """
from claudemesh_wire.errors import MeshError
from claudemesh_mcp.home import file_lock
from dataclasses import replace
print("ready", flush=True)
with file_lock(Path(sys.argv[3])):
    pass
won = []
for number in range(50):
    other = replace(entry, folder=f"/work/{number}", handle=sys.argv[2])
    try:
        registry.add(other)
        won.append(number)
    except MeshError as error:
        assert error.code == "name_taken", error.code
print(json.dumps(won))
"""
    home = str(tmp_path / "home")
    gate = tmp_path / "gate"
    shut = try_lock(gate)
    assert shut is not None
    with (
        start_program(HOSTING + add, home, "ada", str(gate)) as one,
        start_program(HOSTING + add, home, "bob", str(gate)) as two,
    ):
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        shut.release()
        said = [process.communicate(timeout=60)[0].splitlines()[-1] for process in (one, two)]
    won = {who: set(json.loads(line)) for who, line in zip(("ada", "bob"), said, strict=True)}
    assert won["ada"] | won["bob"] == set(range(50))
    assert not won["ada"] & won["bob"]
    kept = {one.folder: one.handle for one in registry.read().entries if one != entry()}
    assert kept == {f"/work/{number}": who for who in won for number in won[who]}


def test_a_writer_that_is_killed_leaves_whole_entries_only(
    registry: Registry, tmp_path: Path
) -> None:
    registry.add(entry())
    write = """
from claudemesh_mcp.hosting.registry import Holder
from dataclasses import replace
other = replace(entry, folder="/work/other")
while True:
    registry.add(other)
    registry.note(other.key, Holder("p_bob", "bob", "running", 1))
    print("written", flush=True)
    registry.remove(other)
"""
    for rounds in range(1, 9):
        with start_program(HOSTING + write, str(tmp_path / "home")) as process:
            assert process.stdout is not None
            for _ in range(rounds * 3):
                assert process.stdout.readline() == "written\n"
            process.kill()
            process.communicate()
        kept = registry.read()
        assert kept.faults == []
        assert {one.folder for one in kept.entries} <= {"/work/shop", "/work/other"}
        assert registry.holder(entry("/work/other").key) == Holder("p_bob", "bob", "running", 1)
        registry.remove(entry("/work/other"))
