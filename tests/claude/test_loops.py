"""Two real clients whose models answer whatever they are told: that ends by itself."""

from pathlib import Path

from tests.support.claude.asked import Place
from tests.support.claude.beside import a_plugin, file_of, meshed, told_in, until_told
from tests.support.claude.client import Claude
from tests.support.claude.room import Room
from tests.support.claude.script import Rule, mesh
from tests.support.claude.terminal import at_terminal

HELD = "SELECT 1 FROM inbox WHERE held = 'auto_reply_limit'"


def answering(room: Room, name: str, other: str) -> Claude:
    """Make a client whose model answers each message with the next round."""
    return meshed(
        room,
        name,
        Rule("Begin", mesh("send", to=other, text="Round 1.")),
        Rule(
            rf'id="(msg_[^"]+)" from="{other}".*?Round (\d+)\.',
            lambda found: mesh(
                "send", to=other, text=f"Round {int(found[2]) + 1}.", reply_to=found[1]
            ),
        ),
        ENABLE_TOOL_SEARCH="false",
    )


async def test_sessions_that_answer_each_other_stop_until_a_human_says_something(
    room: Room, tmp_path: Path
) -> None:
    ada, bob = answering(room, "ada", "bob"), answering(room, "bob", "ada")
    words = [a_plugin(tmp_path / name) for name in ("ada", "bob")]
    async with at_terminal(ada, *words[0]) as at_ada, at_terminal(bob, *words[1]) as at_bob:
        await room.present("ada", "bob")
        await at_ada.type("Begin.")
        file = file_of(room, at_bob.pid)
        await until_told(file, HELD)
        # Three turns of bob's; the fourth round for him waits for his human.
        rounds = [f"Round {number}." for number in (1, 3, 5, 7)]
        assert [len(bob.model.arrivals(text)) for text in rounds] == [1, 1, 1, 0]
        assert told_in(file, "SELECT text FROM inbox WHERE held IS NOT NULL") == [("Round 7.",)]
        await at_bob.type("What is going on?")
        assert (await bob.model.arrived("Round 7.")).place is Place.SYSTEM
        await at_ada.leave()
        await at_bob.leave()
