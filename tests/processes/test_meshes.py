"""The list of meshes of a home: what it is told to be in, and what it leaves, makes or forgets."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from claudemesh_mcp.brokerinfo import BrokerInfo, read_info
from tests.support.hosting import a_guest, a_host, a_host_at_home, ok
from tests.support.live import alive
from tests.support.proxy import End, proxy_to
from tests.support.shell import LIMIT_S, Shell


@pytest.fixture
def ada(tmp_path: Path) -> Iterator[Shell]:
    """Somebody with two meshes at the broker of her own home; sessions are in neither."""
    with a_guest(tmp_path / "ada") as ada:
        for name in ("team", "spare"):
            ok(ada.run("mesh", "create", name, "--no-use"))
        yield ada


def told(shell: Shell) -> str:
    """Give the mesh that the user's own file names."""
    lines = (shell.home / "config.toml").read_text().splitlines()
    return next(line for line in lines if line.startswith("mesh")).partition(" = ")[2].strip('"')


def listed(shell: Shell) -> list[str]:
    return [row["name"] for row in ok(shell.run("mesh", "list", "--json")).json["meshes"]]


def test_a_mesh_that_is_renamed_or_ended_is_so_for_the_file_and_for_nothing_else(
    ada: Shell,
) -> None:
    ok(ada.run("mesh", "use", "team"))
    # A variable hides what the file says, and the other way round.
    ok(ada.run("mesh", "rename", "team", "shop", CLAUDEMESH_MESH="spare"))
    assert told(ada) == "shop"
    done = ok(ada.run("mesh", "rename", "spare", "rest", "--here", CLAUDEMESH_MESH="spare"))
    assert told(ada) == "shop"
    assert "still says spare" in done.err
    ok(ada.run("--mesh", "rest", "mesh", "delete", "rest", "--yes"))
    assert told(ada) == "shop"
    ok(ada.run("mesh", "delete", "shop", "--yes", CLAUDEMESH_MESH="local"))
    assert told(ada) == "local"
    assert listed(ada) == ["local"]


@pytest.mark.parametrize("new", ["spare", "local"])
def test_a_name_that_is_in_use_here_is_given_to_nobodys_mesh(ada: Shell, new: str) -> None:
    rows = ok(ada.run("mesh", "list", "--json")).json["meshes"]
    (team,) = [row["id"] for row in rows if row["name"] == "team"]
    log = ada.home / "meshes" / team / "log"
    before = log.read_bytes()
    refused = ada.run("--json", "mesh", "rename", "team", new)
    assert (refused.code, refused.error["code"]) == (1, "mesh_name_taken")
    assert "--as" not in refused.error["hint"]
    # Its members have not heard of it either.
    assert log.read_bytes() == before
    ok(ada.run("mesh", "rename", "team", "shop"))
    assert log.read_bytes() != before


def test_a_mesh_whose_broker_is_gone_is_left_here(tmp_path: Path) -> None:
    with a_guest(tmp_path / "ada") as ada:
        with a_host(tmp_path / "broker") as host:
            ok(ada.run("mesh", "create", "team", *host.for_its_admin))
            refused = ada.run("--json", "mesh", "leave", "team", "--yes")
            assert (refused.code, refused.error["code"]) == (4, "last_owner")
            assert "claudemesh mesh delete team" in refused.error["hint"]
            link = ok(ada.run("invite", "--json")).json["link"]
        refused = ada.run("--json", "mesh", "leave", "team", "--yes")
        assert (refused.code, refused.error["code"]) == (5, "unreachable")
        assert "claudemesh mesh leave team --here" in refused.error["hint"]
        # What starts this home's own broker starts none there.
        assert "claudemesh up" not in refused.error["hint"]
        (broker,) = [
            one for one in ada.run("doctor", "--json").json["checks"] if one["name"] == "broker"
        ]
        assert broker["fix"] == ada.run("join", link, "--json").error["hint"]
        assert "whoever hosts it" in broker["fix"]
        assert listed(ada) == ["local", "team"]
        done = ok(ada.run("mesh", "leave", "team", "--here", "--yes"))
        assert "its members still see you" in done.err
        assert (listed(ada), told(ada)) == (["local"], "local")


async def test_a_mesh_of_which_nobody_knows_whether_it_was_made_is_kept(tmp_path: Path) -> None:
    everywhere = "0.0.0.0"  # noqa: S104 - what whoever hosts a mesh types
    words = ("broker", "run", "--bind", everywhere, "--tls", "auto")
    with a_guest(tmp_path / "ada") as ada, a_host_at_home(ada, *words) as host:
        async with proxy_to(info_of(ada)) as proxy:
            proxy.opens_frozen = True
            address = f"https://127.0.0.1:{proxy.port}#{host.fingerprint}"
            with ada.running("mesh", "create", "team", "--broker", address) as process:
                (await proxy.line(0)).thaw()
                await (await proxy.line(1)).keeps(End.BROKER)
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=LIMIT_S)
            assert process.returncode == 130
            assert b"claudemesh mesh leave team --here" in said
            proxy.opens_frozen = False
            assert ok(await ada.runs("--mesh", "team", "status", "--json")).json["mesh"] == "team"
            refused = await ada.runs("mesh", "create", "team", "--broker", address, "--json")
            assert refused.error["code"] == "mesh_name_taken"


def info_of(shell: Shell) -> BrokerInfo:
    info = read_info((shell.home / "run" / "broker.json").read_bytes())
    assert info is not None
    return info


async def test_a_session_is_in_the_mesh_that_its_command_names(tmp_path: Path) -> None:
    async with alive(tmp_path) as live:
        shell = Shell(tmp_path)
        for name in ("team", "spare"):
            ok(await shell.runs("mesh", "create", name))
        ada = await live.join("ada", "--mesh", "team", CLAUDEMESH_MESH="local")
        bob = await live.join("bob", "--mesh", "team")
        assert (await ada.call("mesh_info"))["name"] == "team"
        await ada.call("send", to="bob", text="in here")
        (message,) = await bob.read(1)
        assert message["text"] == "in here"
        cleo = await live.join("cleo")
        assert (await cleo.call("mesh_info"))["name"] == "spare"
        lost = await live.open("dan", "--mesh", "taem")
        assert (await lost.refusal("search_peers"))["code"] == "unknown_mesh"
