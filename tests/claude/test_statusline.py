"""The status line that `claudemesh install --statusline` sets, on the screen of the real client."""

import json

from claudemesh_mcp.installation.entries import status_line
from tests.support.claude.room import Room
from tests.support.claude.script import Rule, mesh
from tests.support.claude.terminal import at_terminal


async def test_the_line_is_on_the_screen_and_counts_what_is_unread(room: Room) -> None:
    bob = await room.live.join("bob")
    ada = room.claude(
        "ada", Rule("Listen", mesh("inbox")), CLAUDEMESH_HOME=str(room.live.home.data)
    )
    settings = {"statusLine": status_line(is_shared=False)}
    (ada.config / "settings.json").write_text(json.dumps(settings), "utf-8")
    async with at_terminal(ada) as terminal:
        await terminal.shows("local · 2 online · 0 unread")
        # This session has the tools alone: nothing shows the message by itself.
        await bob.reached("delivered", await bob.call("send", to="ada", text="Two herons."))
        await terminal.shows("local · 2 online · 1 unread")
        await terminal.type("Listen to bob.")
        await ada.model.arrived("Two herons.")
        await terminal.leave()
