"""How somebody comes into a mesh: the moment, the name and the history that a join respects."""

import os
import pty
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.cli.durations import milliseconds
from claudemesh_mcp.config import Settings
from claudemesh_mcp.joining import Joined, Wish, join
from claudemesh_wire.errors import Invalid
from claudemesh_wire.links import InviteLink
from tests.support.hosting import Host, a_host, ok
from tests.support.shell import LIMIT_S, Shell
from tests.support.twohomes import link_of


def names(ada: Shell) -> list[str]:
    return sorted(row["name"] for row in ok(ada.run("members", "--json")).json["members"])


async def test_all_who_join_at_the_same_moment_come_in(ada: Shell, tmp_path: Path) -> None:
    link = InviteLink.parse(link_of(ada, "--uses", "8"))
    came: list[Joined] = []

    async def come(number: int) -> None:
        settings = Settings(home=tmp_path / f"home-{number}", keyring=False)
        came.append(await join(link, settings, Wish(name=f"guest-{number}")))

    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(come, number)
    assert sorted(one.chain.head.seq for one in came) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert all(one.anew for one in came)
    assert names(ada) == [*(f"guest-{number}" for number in range(8)), "max"]


def test_a_mesh_whose_broker_shows_less_than_was_verified_is_not_entered(
    host: Host, ada: Shell, bob: Shell, tmp_path: Path
) -> None:
    link = link_of(ada, "--uses", "3")

    def stop(running: Host) -> list[Path]:
        running.kill()
        return list(host.folder.glob("broker.sqlite3*"))

    older = tmp_path / "older"
    older.mkdir()
    for file in stop(host):
        shutil.copy2(file, older)
    with a_host(host.folder, port=host.port) as running:
        ok(bob.run("join", link, "--as", "bob"))
        ok(bob.run("mesh", "leave", "team", "--yes"))
        for file in stop(running):
            file.unlink()
    for file in older.iterdir():
        shutil.copy2(file, host.folder)
    with a_host(host.folder, port=host.port):
        refused = bob.run("join", link, "--json")
        assert (refused.code, refused.error["code"]) == (1, "membership_rollback")
        assert refused.error["hint"]
        # Nothing was signed: the history that bob knows of can still be brought back.
        assert names(ada) == ["max"]


@pytest.mark.parametrize("called", ["local", "spare"])
def test_a_name_that_this_home_can_not_use_is_refused_before_joining(
    ada: Shell, bob: Shell, called: str
) -> None:
    ok(bob.run("mesh", "create", "spare"))
    link = link_of(ada)
    refused = bob.run("join", link, "--called", called, "--json")
    assert (refused.code, refused.error["code"]) == (1, "mesh_name_taken")
    assert "--called" in refused.error["hint"]
    assert names(ada) == ["max"]
    assert ok(bob.run("join", link, "--called", "work", "--json")).json["mesh"] == "work"
    again = ok(bob.run("join", link, "--called", "shop"))
    assert "claudemesh mesh rename work shop --here" in again.err


def test_a_link_is_read_from_stdin(ada: Shell, bob: Shell) -> None:
    link = link_of(ada)
    told = ok(bob.run("join", "-", "--as", "bob", "--json", stdin=f" {link}\n".encode())).json
    assert (told["mesh"], told["name"]) == ("team", "bob")
    refused = bob.run("join", "-", "--json")
    assert (refused.code, refused.error["code"]) == (2, "bad_invite")


def test_an_invite_is_good_for_the_time_that_was_said(ada: Shell) -> None:
    for said, lasts in (("90m", timedelta(minutes=90)), ("30D", timedelta(days=30))):
        earliest = datetime.now(UTC).replace(microsecond=0) + lasts
        told = ok(ada.run("invite", "--expires", said, "--json")).json["expires_at"]
        assert earliest <= datetime.fromisoformat(told) <= datetime.now(UTC) + lasts
    refused = ada.run("invite", "--expires", "31d", "--json")
    assert (refused.code, refused.error["code"]) == (2, "invalid")


def test_a_time_that_is_none_is_refused(bob: Shell) -> None:
    refused = bob.run("invite", "--expires", "soon", "--json")
    assert (refused.code, refused.error["code"]) == (2, "bad_duration")
    assert "7d" in refused.error["hint"]


@pytest.mark.parametrize("said", ["", "0h", "-1d", "1.5h", "7", "7w", "1h30m", "\u0661h"])
def test_what_is_no_span_of_time_is_refused(said: str) -> None:
    with pytest.raises(Invalid) as caught:
        milliseconds(said)
    assert caught.value.code == "bad_duration"


@pytest.mark.parametrize("words", [(), ("--no-qr",)])
def test_on_a_terminal_an_invite_shows_its_qr_code_by_itself(
    ada: Shell, words: tuple[str, ...]
) -> None:
    assert "▄" not in ok(ada.run("invite")).err
    screen, terminal = pty.openpty()
    try:
        with ada.running("invite", *words, stderr=terminal) as process:
            os.close(terminal)
            shown = everything_on(screen).decode()
            link, _ = process.communicate(timeout=LIMIT_S)
    finally:
        os.close(screen)
    assert link.startswith(b"https://127.0.0.1:")
    assert "Whoever has the link can use it." in shown
    assert ("▄" in shown) is not bool(words)
    if not words:
        check_symbol(modules_of(shown), link.decode().strip())


# How many bytes a QR code of level L holds, by its version (ISO/IEC 18004, table 7).
CAPACITY = {4: 78, 5: 106, 6: 134, 7: 154, 8: 192, 9: 230, 10: 271, 11: 321, 12: 367}
FINDER = ("#######", "#     #", "# ### #", "# ### #", "# ### #", "#     #", "#######")


def modules_of(shown: str) -> list[str]:
    """Read a QR code as a camera sees it: two rows of modules in each line, light ones drawn."""
    lines = [line.rstrip("\r") for line in shown.split("\n")]
    drawn = [line for line in lines if line and not set(line) - set("█▀▄ ")]
    rows: list[str] = []
    for line in drawn:
        rows.append("".join(" " if one in "█▀" else "#" for one in line))
        rows.append("".join(" " if one in "█▄" else "#" for one in line))
    return rows


def check_symbol(rows: list[str], link: str) -> None:
    """See a quiet zone, the three marks of a QR code, and the size that the link needs."""
    size = len(rows[0]) - 8
    assert all(not row.strip() for row in rows[:4])
    symbol = [row[4:-4] for row in rows[4 : 4 + size]]
    assert all(row[:4] == row[-4:] == "    " for row in rows[: size + 8])
    assert tuple(row[:7] for row in symbol[:7]) == FINDER
    assert tuple(row[-7:] for row in symbol[:7]) == FINDER
    assert tuple(row[:7] for row in symbol[-7:]) == FINDER
    version = min(version for version, most in CAPACITY.items() if len(link) <= most)
    assert size == 17 + 4 * version


def everything_on(screen: int) -> bytes:
    """Read a terminal until nobody writes to it any more, which Linux tells by an error."""
    shown = b""
    while True:
        try:
            data = os.read(screen, 4096)
        except OSError:
            return shown
        if not data:
            return shown
        shown += data
