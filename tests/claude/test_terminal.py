"""Real Claude Code sessions at their terminals: people type, models call tools, sessions converse.

What has arrived at a model is read from the requests that its client sent; what the screen shows
only says that the client goes on.
"""

import os
import re

import pytest

from tests.support.claude.asked import Place
from tests.support.claude.room import Room
from tests.support.claude.script import Call, Rule, mesh
from tests.support.claude.terminal import at_terminal

ACCEPTED = '"status":"accepted","e2e"'
"""In what `send` gives; the receipts may take longer than the next call."""
ON_ITS_WAY = '"id":"(msg_[^"]+)".*"accepted_at"'


def status_of(found: re.Match[str]) -> Call:
    """Ask how far the message has come whose id was found."""
    return mesh("message_status", id=found[1])


async def test_a_prompt_is_answered_and_a_tool_called(room: Room) -> None:
    ada = room.claude(
        "ada",
        Rule("Who is there", mesh("search_peers")),
        Rule('"peers":.*"handle":"watcher"', "A watcher is there."),
    )
    async with at_terminal(ada) as terminal:
        await room.present("ada")
        await terminal.prompt("Who is there?")
        await terminal.shows("A watcher is there.")
        _, result = ada.model.turns
        assert result.fresh[0].place is Place.RESULT
        assert {asked.session for asked in ada.model.turns} == {result.session}
    with pytest.raises(ProcessLookupError):
        os.kill(terminal.pid, 0)


async def test_two_sessions_converse_and_each_knows_that_it_was_read(room: Room) -> None:
    ada = room.claude(
        "ada",
        Rule("Ask bob", mesh("send", to="bob", text="Which branch is it?")),
        Rule(ACCEPTED, mesh("inbox", wait_s=60)),
        Rule('It is main.*"reply_to":"(msg_[^"]+)"', status_of),
        Rule('"status":"seen"', "Bob read it and says main."),
        Rule(ON_ITS_WAY, status_of),
        ENABLE_TOOL_SEARCH="false",
    )
    bob = room.claude(
        "bob",
        Rule("Listen", mesh("inbox", wait_s=60)),
        Rule(
            '"id":"(msg_[^"]+)".*Which branch',
            lambda found: mesh("send", to="ada", text="It is main.", reply_to=found[1]),
        ),
        Rule('"id":"(msg_[^"]+)".*' + ACCEPTED, status_of),
        Rule('"status":"seen"', "Ada knows."),
        Rule(ON_ITS_WAY, status_of),
        ENABLE_TOOL_SEARCH="false",
    )
    async with at_terminal(ada) as at_ada, at_terminal(bob) as at_bob:
        await room.present("ada", "bob")
        await at_bob.prompt("Listen to the mesh.")
        await at_ada.prompt("Ask bob for the branch.")
        await at_ada.shows("Bob read it and says main.")
        await at_bob.shows("Ada knows.")
        await at_ada.leave()
        await at_bob.leave()
    question, answer = bob.model.arrival("Which branch is it?"), ada.model.arrival("It is main.")
    assert (question.place, answer.place) == (Place.RESULT, Place.RESULT)
    for asker in (ada, bob):
        last = asker.model.turns[-1].fresh[0].text
        assert '"proved":true' in last
        assert '"route":"tool"' in last
