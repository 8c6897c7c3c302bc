"""What a real Claude Code's model runs in its shell to decide what only its human may."""

import json
import os
import shlex
from pathlib import Path

from tests.support.claude.asked import Place
from tests.support.claude.room import Room
from tests.support.claude.script import Call, Rule
from tests.support.hosting import a_guest, ok
from tests.support.shell import Shell

WORDS = ("--json", "mcp-server", "approve", "ada/hand", "seen")


def shelled(shell: Shell, *before: str) -> Call:
    """Call the client's own shell with the command that approves, behind some words."""
    kept = shell.environment(PATH=os.environ["PATH"])  # noqa: TID251 - where its Python is
    named = [f"{name}={value}" for name, value in kept.items()]
    return Call("Bash", {"command": shlex.join([*before, *named, *shell.command(*WORDS)])})


async def test_a_model_can_not_approve_in_its_shell_whatever_it_takes_away(
    room: Room, tmp_path: Path
) -> None:
    with a_guest(tmp_path / "bob") as bob:
        ok(bob.run("up"))
        client = room.claude_of(
            bob,
            "desk",
            Rule("Approve it", shelled(bob, "env"), times=1),
            Rule("human_only", shelled(bob, "exec", "env", "-i"), times=1),
            Rule(".", "That was refused."),
        )
        allowed = {"permissions": {"allow": ["Bash"]}}
        (client.config / "settings.json").write_text(json.dumps(allowed), "utf-8")
        told = await client.ask("Approve it.")
        assert told.result == "That was refused."
        results = [
            block.text
            for asked in client.model.turns
            for block in asked.fresh
            if block.place is Place.RESULT
        ]
        assert [json.loads(text[text.index("{") :])["error"]["code"] for text in results] == [
            "human_only",
            "human_only",
        ]
        # Outside of the client it is another matter: there is no such server here.
        assert bob.run(*WORDS).error["code"] == "unknown_server"
