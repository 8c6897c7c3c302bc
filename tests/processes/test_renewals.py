"""What a host changes under its guests: a certificate nobody vouches for, data of an older time."""

from pathlib import Path

from claudemesh_broker.backup import back_up
from claudemesh_broker.binding import Binding, Tls
from claudemesh_broker.restore import restore
from claudemesh_broker.tls import certificate_of
from claudemesh_mcp.cli.stage import Actor
from tests.support.hosting import Host, a_guest, a_host, free_port, ok
from tests.support.shell import Shell


def self_signed(folder: Path) -> tuple[str, ...]:
    """Make a certificate as people make one for themselves; gives the flags that show it."""
    folder.mkdir(0o700)
    made = certificate_of(folder, Binding("127.0.0.1", Tls.AUTO))
    assert made is not None
    return "--tls-cert", str(made.certificate), "--tls-key", str(made.key)


def shows(certificate: tuple[str, ...], port: int) -> tuple[str, ...]:
    everywhere = "0.0.0.0"  # noqa: S104 - the point
    return ("--bind", everywhere, "--public-url", f"https://127.0.0.1:{port}", *certificate)


def end(host: Host) -> None:
    host.kill()


def link_of(ada: Shell, host: Host) -> str:
    ok(ada.run("mesh", "create", "team", *host.for_its_admin))
    link: str = ok(ada.run("invite", "--json")).json["link"]
    return link


def members(shell: Shell) -> set[str]:
    return {row["name"] for row in ok(shell.run("members", "--json")).json["members"]}


async def until(session: Actor, *, is_connected: bool) -> set[str]:
    """Wait until a session is connected, or is not; gives what it says is the matter."""
    while True:
        info = await session.call("mesh_info")
        if info["broker"]["connected"] is is_connected:
            return {one["code"] for one in info["problems"]}


async def test_a_renewed_certificate_is_refused_by_a_running_session_until_it_is_trusted(
    tmp_path: Path,
) -> None:
    port, folder = free_port(), tmp_path / "broker"
    first, second = self_signed(tmp_path / "first"), self_signed(tmp_path / "second")
    with (
        a_guest(tmp_path / "ada") as ada,
        a_guest(tmp_path / "bob") as bob,
        a_host(folder, *shows(first, port), port=port) as host,
    ):
        # The link alone says which certificate it is.
        ok(bob.run("join", link_of(ada, host), "--as", "bob"))
        async with bob.session("bert") as bert:
            await until(bert, is_connected=True)
            end(host)
            with a_host(folder, *shows(second, port), port=port) as renewed:
                while "certificate_changed" not in await until(bert, is_connected=False):
                    pass
                trust = ("mesh", "trust", "team", "--certificate", renewed.fingerprint)
                ok(await bob.runs(*trust))
                await until(bert, is_connected=True)


def test_the_certificate_of_a_link_is_the_only_one_that_is_joined(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    with a_guest(tmp_path / "ada") as ada, a_guest(tmp_path / "bob") as bob:
        with a_host(folder) as host:
            link = link_of(ada, host)
            end(host)
        for file in folder.glob("broker-tls.*"):
            file.unlink()
        with a_host(folder, port=host.port):
            refused = bob.run("join", link, "--json")
    assert (refused.code, refused.error["code"]) == (4, "certificate_changed")


def test_a_broker_of_an_older_backup_is_offered_what_it_lost_of_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    with a_guest(tmp_path / "ada") as ada, a_guest(tmp_path / "bob") as bob:
        with a_host(folder) as host:
            link = link_of(ada, host)
            archive = back_up(folder, tmp_path / "before.tar").path
            ok(bob.run("join", link, "--as", "bob"))
            assert members(ada) == {"max", "bob"}
            end(host)
        restore(archive, folder, force=True)
        with a_host(folder, port=host.port):
            assert members(ada) == {"max", "bob"}
            assert members(bob) == {"max", "bob"}
