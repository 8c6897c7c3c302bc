"""A client's session goes on as another: it keeps its peer with the inbox, or hands it over."""

from pathlib import Path

import anyio

from claudemesh_mcp.routes import records
from tests.support.claude.beside import a_plugin, file_of, meshed, until_told
from tests.support.claude.client import LIMIT_S, Claude
from tests.support.claude.room import Room
from tests.support.claude.script import Rule
from tests.support.claude.terminal import Terminal, at_terminal
from tests.support.live import LiveSession

SUMMARY = Rule("TEXT ONLY", "<summary>Nothing much was said.</summary>")


class Going:
    """A client at its terminal, whose session is going to be another one."""

    def __init__(self, room: Room, terminal: Terminal, bob: LiveSession) -> None:
        self.room = room
        self.terminal = terminal
        self.bob = bob
        self.model = terminal.client.model

    @property
    def peer(self) -> str:
        """The peer whose session it is."""
        return file_of(self.room, self.terminal.pid).parent.name

    def peer_of(self, session: str) -> str | None:
        """Say whose a Claude session is by its alias."""
        home = self.room.live.home.data
        record = records.find(home, self.terminal.pid)
        assert record is not None
        return records.peer_of(home, session, record.mesh_id)

    async def prompt(self, text: str) -> str:
        """Send a prompt; gives the id of the session that it came to."""
        await self.terminal.type(text)
        session = (await self.model.arrived(text)).asked.session
        idle = "SELECT 1 FROM facts WHERE key = 'route.activity' AND value = 'idle'"
        await until_told(file_of(self.room, self.terminal.pid), idle)
        return session

    async def command(self, text: str, was: str = "") -> None:
        """Type a command of the client, and wait until another session has begun."""
        file = file_of(self.room, self.terminal.pid)
        other = f"value <> '{was}'"
        changed = f"SELECT 1 FROM facts WHERE key = 'route.session' AND {other}"  # noqa: S608
        await self.terminal.type(text)
        if was:
            await until_told(file, changed)

    async def send(self, text: str) -> dict[str, str]:
        """Send a message that wakes nobody, and wait until it is in the inbox."""
        sent = await self.bob.call("send", to=self.peer, text=text, priority="low")
        await self.bob.reached("delivered", sent)
        return sent

    async def assert_shown(self, text: str, sent: dict[str, str], session: str) -> None:
        """The next prompt's request, of this session, has a text for the first time."""
        assert await self.prompt(f"Is there news of {text}?") == session
        arrival = await self.model.arrived(f"The {text} flew.")
        assert arrival.asked.session == session
        assert (await self.bob.reached("seen", sent))["proved"] is True


async def open_room(room: Room) -> tuple[LiveSession, Claude]:
    return await room.live.join("bob"), meshed(room, "ada", SUMMARY)


async def test_clear_keeps_the_peer_and_what_waits(room: Room, tmp_path: Path) -> None:
    bob, ada = await open_room(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin")) as terminal:
        await room.present("ada")
        going = Going(room, terminal, bob)
        peer = going.peer
        first = await going.prompt("Hello.")
        before = await going.send("The heron flew.")
        await going.command("/clear", first)
        after = await going.send("The swan flew.")
        second = await going.prompt("Hello again.")
        assert second != first
        for text, sent in (("The heron flew.", before), ("The swan flew.", after)):
            assert (await ada.model.arrived(text)).asked.session == second
            await bob.reached("seen", sent)
        assert [going.peer, going.peer_of(first), going.peer_of(second)] == [peer] * 3
        await terminal.leave()


async def test_resume_keeps_the_peer_and_what_waits(room: Room, tmp_path: Path) -> None:
    bob, ada = await open_room(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin")) as terminal:
        await room.present("ada")
        going = Going(room, terminal, bob)
        peer = going.peer
        first = await going.prompt("Hello.")
        await going.command("/clear", first)
        second = await going.prompt("Hello again.")
        sent = await going.send("The heron flew.")
        await going.command(f"/resume {first}", second)
        await going.assert_shown("heron", sent, first)
        assert [going.peer, going.peer_of(first), going.peer_of(second)] == [peer] * 3
        await terminal.leave()


async def test_compact_keeps_the_peer_and_what_waits(room: Room, tmp_path: Path) -> None:
    bob, ada = await open_room(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin")) as terminal:
        await room.present("ada")
        going = Going(room, terminal, bob)
        peer = going.peer
        session = await going.prompt("Hello.")
        sent = await going.send("The heron flew.")
        await going.command("/compact")
        await ada.model.arrived("TEXT ONLY")
        await until_told(
            file_of(room, terminal.pid),
            "SELECT 1 FROM inbox WHERE printed_by = 'session-start'",
        )
        await going.assert_shown("heron", sent, session)
        assert (going.peer, going.peer_of(session)) == (peer, peer)
        await terminal.leave()


async def test_branch_hands_the_peer_over_to_the_branch(room: Room, tmp_path: Path) -> None:
    bob, ada = await open_room(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin")) as terminal:
        await room.present("ada")
        going = Going(room, terminal, bob)
        peer = going.peer
        first = await going.prompt("Hello.")
        sent = await going.send("The heron flew.")
        await going.command("/branch", first)
        second = await going.prompt("Hello again.")
        assert second != first
        assert (await ada.model.arrived("The heron flew.")).asked.session == second
        await bob.reached("seen", sent)
        assert (going.peer, going.peer_of(first), going.peer_of(second)) == (peer, None, peer)
        await terminal.leave()


async def test_a_session_resumed_in_a_new_client_has_its_peer_again(
    room: Room, tmp_path: Path
) -> None:
    bob, ada = await open_room(room)
    words = a_plugin(tmp_path / "plugin")
    async with at_terminal(ada, *words) as terminal:
        await room.present("ada")
        going = Going(room, terminal, bob)
        peer = going.peer
        first = await going.prompt("Hello.")
        await going.command("/clear", first)
        second = await going.prompt("Hello again.")
        await terminal.leave()
    waiting = await bob.call("send", to=peer, text="The heron flew.", priority="low")
    async with at_terminal(ada, *words, "--resume", second) as terminal:
        going = Going(room, terminal, bob)
        with anyio.fail_after(LIMIT_S):
            await bob.reached("delivered", waiting)
        assert going.peer == peer
        await going.assert_shown("heron", waiting, second)
        await terminal.leave()


async def test_a_fork_in_another_client_is_a_peer_of_its_own(room: Room, tmp_path: Path) -> None:
    bob, ada = await open_room(room)
    words = a_plugin(tmp_path / "plugin")
    async with at_terminal(ada, *words) as terminal:
        await room.present("ada")
        going = Going(room, terminal, bob)
        first = await going.prompt("Hello.")
        fork = ["--resume", first, "--fork-session"]
        async with at_terminal(ada, *words, *fork) as at_fork:
            await room.present("ada-2")
            forked = Going(room, at_fork, bob)
            sent = await going.send("The heron flew.")
            second = await forked.prompt("Hello from the fork.")
            assert (second != first, forked.peer != going.peer) == (True, True)
            assert ada.model.arrivals("The heron flew.") == []
            await going.assert_shown("heron", sent, first)
            assert (going.peer_of(first), going.peer_of(second)) == (going.peer, forked.peer)
            await at_fork.leave()
        await terminal.leave()
