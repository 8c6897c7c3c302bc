"""Servers that come back, with everybody a process: restarts, kills, secrets, removals."""

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from tests.support.backends.byurl import KEY, PROGRAM, answers, listening
from tests.support.hosting import free_port
from tests.support.live import LIMIT_S, a_moment
from tests.support.returning import COMMAND, Returning, digest_of, returning, wrapped

SECRET = "c0rrect-horse-battery-staple"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Returning]:
    async with returning(tmp_path) as world:
        yield world


async def test_a_server_comes_back_after_every_restart(world: Returning) -> None:
    first = await world.join("shop", "1")
    added = await world.add("hand", *COMMAND)
    assert str(world.shop) in added.err
    await world.answers()
    [hosted] = (await first.call("mesh_info"))["hosted"]
    assert (hosted["name"], hosted["state"], hosted["persistent"]) == ("shop/hand", "running", True)
    assert hosted["command"].endswith("handmade.py handshake")
    # The session is restarted.
    await first.end()
    [offline] = (await world.until_offered(shop_hand=False))["offered"]
    assert offline["since"]
    assert (await world.until_state("hand", "waiting"))["by"] == "shop"
    second = await world.join("shop", "2")
    await world.answers()
    await world.until_offered(shop_hand=True)
    # The broker is killed, and started by whoever needs it.
    world.live.kill_broker()
    await world.answers()
    # Both.
    await second.kill()
    world.live.kill_broker()
    await world.join("shop", "3")
    await world.answers()
    await world.until_one_is_here("hand")


async def test_it_comes_back_in_its_folder_alone_unless_it_is_for_the_user(
    world: Returning, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    await world.add("hand", *COMMAND)
    await world.add("all", "--scope", "user", *COMMAND)
    desk = await world.join("desk", "1", other)
    await world.answers("all")
    assert (await world.until_state("hand", "waiting"))["by"] == ""
    await world.until_offered(desk_all=True)
    assert [one["name"] for one in (await desk.call("mesh_info"))["hosted"]] == ["desk/all"]
    await world.join("shop", "2")
    await world.answers("hand")
    await world.until_offered(desk_all=True, shop_hand=True)


async def test_of_two_sessions_one_hosts_and_the_other_when_that_was_killed(
    world: Returning,
) -> None:
    ada = await world.join("ada", "1")
    await world.add("hand", *COMMAND)
    await world.until_offered(ada_hand=True)
    bob = await world.join("bob", "2")
    assert (await bob.call("mesh_info"))["hosted"] == []
    await ada.kill()
    await world.until_offered(bob_hand=True)
    await world.answers()
    row = await world.until_state("hand", "running")
    assert row["by"] == "bob"


async def test_what_is_removed_ends_at_once_and_comes_back_nowhere(world: Returning) -> None:
    shop = await world.join("shop", "1")
    await world.add("hand", *COMMAND)
    await world.answers()
    done = await world.runs("remove", "hand")
    assert (done.code, "comes back no more" in done.err) == (0, True)
    assert (await world.listed()) == {"offered": [], "kept": [], "unreadable": [], "error": None}
    assert (await shop.call("mesh_info"))["hosted"] == []
    await world.add("hand", *COMMAND)
    await world.answers()
    await shop.kill()
    # Nobody hosts it now, and the mesh knows it as offline.
    await world.until_offered(shop_hand=False)
    assert (await world.runs("remove", "hand")).code == 0
    await world.until_offered()
    await world.join("shop", "2")
    await world.add("later", *COMMAND)
    await world.answers("later")
    await world.until_one_is_here("later")
    assert (await world.runs("remove", "hand")).code == 3


async def test_what_a_model_registers_to_last_comes_back_until_it_unregisters_it(
    world: Returning,
) -> None:
    first = await world.join("shop", "1")
    wish = {"name": "hand", "command": COMMAND[1], "args": list(COMMAND[2:])}
    told = await first.call("register_mcp", **wish, persistent=True, tools_allowed=["seen"])
    assert told["name"] == "shop/hand"
    [row] = (await world.listed())["kept"]
    assert (row["folder"], row["added_by"]) == (str(world.shop), "shop")
    await first.end()
    await world.until_offered(shop_hand=False)
    second = await world.join("shop", "2")
    await world.answers()
    await second.call("unregister_mcp", name="hand")
    assert (await world.listed())["kept"] == []
    await world.until_offered()
    assert (await second.refusal("unregister_mcp", name="hand"))["code"] == "unknown_server"
    await second.call("register_mcp", **wish)
    await second.end()
    # What was not to last is gone with its session.
    await world.join("shop", "3")
    await world.until_offered()


async def test_what_a_model_registers_by_url_is_called_and_comes_back_with_its_headers(
    world: Returning,
) -> None:
    port = free_port()
    command = [sys.executable, str(PROGRAM), str(port)]
    with listening(command, port) as url, anyio.fail_after(LIMIT_S):
        await answers(port)
        first = await world.join("shop", "1")
        refused = await first.refusal("register_mcp", name="web", url=url, persistent=True)
        assert (await world.listed())["kept"] == []
        assert refused["code"] == "not_an_mcp_server"
        wish = {"name": "web", "url": url, "headers": KEY, "persistent": True}
        assert (await first.call("register_mcp", **wish))["name"] == "shop/web"
        desk = await world.join("desk", "2")
        asked = {"server": "shop/web", "tool": "steps"}
        done = await desk.client.call_tool("call_tool", asked)
        assert (done.is_error, done.structured_content) == (False, {"result": "done"})
        await desk.end()
        await first.end()
        await world.until_offered(shop_web=False)
        # Session and broker are others, the server is the same.
        world.live.kill_broker()
        await world.join("shop", "3")
        result = await world.called("shop/web", "steps", {})
        assert result["structuredContent"] == {"result": "done"}
        assert (await world.until_state("web", "running"))["command"] == url.removesuffix("/mcp")


def files_under(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root) / name for name in names)


def holding(secret: str, folder: Path) -> list[str]:
    """Give the files that have a secret in them."""
    sought = secret.encode()
    regular = [path for path in files_under(folder) if path.is_file() and not path.is_symlink()]
    return [str(path) for path in regular if sought in path.read_bytes()]


def commands_with(secret: str) -> list[bytes]:
    """Give the command lines, of all processes, that have a secret in them."""
    found = list[bytes]()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        found += [line] if secret.encode() in line else []
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc")
async def test_a_secret_is_in_clear_nowhere_but_at_the_server(
    world: Returning, tmp_path: Path
) -> None:
    headers = tmp_path / "headers"
    headers.write_text(f"# of the wiki\n\nAuthorization: Bearer {SECRET}\n", "utf-8")
    shop = await world.join("shop", "1")
    await world.add("hand", "--env", "TOKEN", *wrapped(world.shop), TOKEN=SECRET)
    url = ("--url", "http://127.0.0.1:9/mcp", "--header-file", str(headers))
    await world.add("wiki", *url)
    headers.unlink()
    await world.answers()
    assert (world.shop / "digest").read_text("utf-8") == digest_of(SECRET)
    await world.until_state("wiki", "failed")
    assert commands_with(SECRET) == []
    assert SECRET not in (await world.runs("list", "--json")).out
    assert SECRET not in (await world.shell.runs("doctor", "--json")).out
    assert "the server begins" in (await world.runs("logs", "hand")).out
    assert holding(SECRET, tmp_path) == []
    # It is kept all the same.
    await shop.kill()
    world.live.kill_broker()
    (world.shop / "digest").unlink()
    await world.join("shop", "2")
    await world.answers()
    assert (world.shop / "digest").read_text("utf-8") == digest_of(SECRET)
    assert holding(SECRET, tmp_path) == []
    assert "127.0.0.1" in (await world.runs("list")).out


async def test_a_session_begins_although_a_server_is_broken_and_it_is_told_why(
    world: Returning,
) -> None:
    await world.add("gone", "--", "no-such-server", "--flag")
    await world.add("hand", *COMMAND)
    shop = await world.join("shop", "1")
    await world.answers()
    await world.until_state("hand", "running")
    row = await world.until_state("gone", "failed")
    assert (row["by"], row["command"]) == ("shop", "no-such-server --flag")
    assert "no-such-server" in row["why"]
    assert "no-such-server" in (await world.runs("list")).err
    rows = {one["name"]: one for one in (await shop.call("mesh_info"))["hosted"]}
    assert (rows["gone"]["state"], "no-such-server" in rows["gone"]["why"]) == ("failed", True)
    checks = (await world.shell.runs("doctor", "--json")).json["checks"]
    [check] = [one for one in checks if one["name"] == "mcp-servers"]
    assert (check["state"], check["fix"]) == ("warn", "claudemesh mcp-server logs gone")
    assert f"gone ({world.shop}) is failed at shop" in check["message"]
    assert f"hand ({world.shop}) is running at shop" in check["message"]
    assert "handmade.py handshake" in check["message"]


async def test_a_file_that_cannot_be_read_is_told_and_stays(world: Returning) -> None:
    await world.add("hand", *COMMAND)
    [file] = world.live.home.meshes.glob("*/mcp-servers/*.entry")
    file.write_bytes(file.read_bytes()[:-1])
    shop = await world.join("shop", "1")
    listed = await world.listed()
    assert (listed["kept"], [one["path"] for one in listed["unreadable"]]) == ([], [str(file)])
    assert listed["unreadable"][0]["code"] == "key_file_damaged"
    with anyio.fail_after(LIMIT_S):
        while not (await shop.call("mesh_info"))["problems"]:
            await a_moment()
    doctor = await world.shell.runs("doctor", "--json")
    [check] = [one for one in doctor.json["checks"] if one["name"] == "mcp-servers"]
    assert (check["state"], str(file) in check["message"], doctor.code) == ("fail", True, 1)
    assert (await world.runs("add", "hand", *COMMAND)).code != 0
    assert file.exists()
