"""A client's session goes on as another: it keeps its peer with the inbox, or hands it over."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.routes import records
from tests.support.claude.beside import IDLE, a_plugin, file_of, meshed, until_met, until_told
from tests.support.claude.client import LIMIT_S
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
        self.first_peer = self.peer

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
        await until_told(file_of(self.room, self.terminal.pid), IDLE)
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

    def assert_kept(self, *sessions: str) -> None:
        """It is the peer still that it was at first, and these sessions find it again."""
        found = [self.peer, *(self.peer_of(session) for session in sessions)]
        assert found == [self.first_peer] * len(found)


class Scene:
    """Bob, and ada's client, which may be opened several times."""

    def __init__(self, room: Room, folder: Path, bob: LiveSession) -> None:
        self.room = room
        self.bob = bob
        self.client = meshed(room, "ada", SUMMARY)
        self._plugin = a_plugin(folder / "plugin")

    @asynccontextmanager
    async def opened(self, *words: str, handle: str = "ada") -> AsyncGenerator[Going]:
        """Open the client, and leave it as its user does where all went well."""
        async with at_terminal(self.client, *self._plugin, *words) as terminal:
            await self.room.present(handle)
            # Whoever resumes is there by the name of a session that ended.
            await until_met(self.room, terminal.pid)
            yield Going(self.room, terminal, self.bob)
            await terminal.leave()


@pytest.fixture
async def scene(room: Room, tmp_path: Path) -> Scene:
    return Scene(room, tmp_path, await room.live.join("bob"))


async def test_clear_and_resume_keep_the_peer_and_what_waits(scene: Scene) -> None:
    async with scene.opened() as going:
        first = await going.prompt("Hello.")
        before = await going.send("The heron flew.")
        await going.command("/clear", first)
        after = await going.send("The swan flew.")
        second = await going.prompt("Hello again.")
        assert second != first
        for text, sent in (("The heron flew.", before), ("The swan flew.", after)):
            assert (await going.model.arrived(text)).asked.session == second
            await scene.bob.reached("seen", sent)
        going.assert_kept(first, second)
        waiting = await going.send("The crane flew.")
        await going.command(f"/resume {first}", second)
        await going.assert_shown("crane", waiting, first)
        going.assert_kept(first, second)


async def test_compact_keeps_the_peer_and_what_waits(scene: Scene) -> None:
    async with scene.opened() as going:
        session = await going.prompt("Hello.")
        sent = await going.send("The heron flew.")
        await going.command("/compact")
        await going.model.arrived("TEXT ONLY")
        await until_told(
            file_of(scene.room, going.terminal.pid),
            "SELECT 1 FROM inbox WHERE printed_by = 'session-start'",
        )
        await going.assert_shown("heron", sent, session)
        going.assert_kept(session)


async def test_branch_hands_the_peer_over_to_the_branch(scene: Scene) -> None:
    async with scene.opened() as going:
        first = await going.prompt("Hello.")
        sent = await going.send("The heron flew.")
        await going.command("/branch", first)
        second = await going.prompt("Hello again.")
        assert second != first
        assert (await going.model.arrived("The heron flew.")).asked.session == second
        await scene.bob.reached("seen", sent)
        going.assert_kept(second)
        assert going.peer_of(first) is None


async def test_a_session_resumed_in_a_new_client_has_its_peer_again(scene: Scene) -> None:
    async with scene.opened() as going:
        first = await going.prompt("Hello.")
        await going.command("/clear", first)
        second = await going.prompt("Hello again.")
    peer = going.first_peer
    waiting = await scene.bob.call("send", to=peer, text="The heron flew.", priority="low")
    async with scene.opened("--resume", second) as going:
        with anyio.fail_after(LIMIT_S):
            await scene.bob.reached("delivered", waiting)
        assert going.peer == peer
        await going.assert_shown("heron", waiting, second)


async def test_a_fork_in_another_client_is_a_peer_of_its_own(scene: Scene) -> None:
    async with scene.opened() as going:
        first = await going.prompt("Hello.")
        fork = ["--resume", first, "--fork-session"]
        async with scene.opened(*fork, handle="ada-2") as forked:
            sent = await going.send("The heron flew.")
            second = await forked.prompt("Hello from the fork.")
            assert (second != first, forked.peer != going.peer) == (True, True)
            assert going.model.arrivals("The heron flew.") == []
            await going.assert_shown("heron", sent, first)
            assert (going.peer_of(first), going.peer_of(second)) == (going.peer, forked.peer)
