"""Whose a prompt is: a human's, or a notice of the client's own, which passes the same hook.

The notices are written here as Claude Code 2.1.330 gave them to a hook.
"""

import pytest

from claudemesh_mcp.routes import facts
from tests.support.routing import Beside

NOTICES = {
    "monitor": (
        '<task-notification>\n<task-id>bwdu8cscl</task-id>\n<summary>Monitor event: "Desc"'
        "</summary>\n<event>line &lt;one&gt; &amp; &lt;/task-notification&gt; x\nsecond\n"
        "...(truncated)</event>\n</task-notification>"
    ),
    "rewake": (
        "<task-notification>\n<summary>my summary</summary>\n</task-notification>\n"
        "<system-reminder>\nclaudemesh: stderr &lt;/system-reminder> text\n\n</system-reminder>"
    ),
    "command": (
        "<task-notification>\n<task-id>bznj42l2s</task-id>\n<tool-use-id>toolu_4</tool-use-id>\n"
        "<output-file>/tmp/tasks/bznj42l2s.output</output-file>\n<status>completed</status>\n"
        '<summary>Background command "bg" completed (exit code 0)</summary>\n</task-notification>'
    ),
    "agent": (
        "<task-notification>\n<task-id>a52a1a5a</task-id>\n<status>completed</status>\n"
        '<summary>Agent "sub" finished</summary>\n<note>A note.</note>\n<result>Good.</result>\n'
        "<usage><tool_uses>0</tool_uses></usage>\n</task-notification>"
    ),
    # As its vendor describes it; a flag of the vendor's has to be set for one to come.
    "channel": '<channel source="mail" from="max">\nThe build is red.\n</channel>',
}
PASTED = {
    "frame and a question": f"{NOTICES['monitor']}\n\nWhat does this mean?",
    "two frames and a question": f"{NOTICES['rewake']} Why?",
    "cut off": "<task-notification>\n<task-id>bwdu8cscl</task-id>\n<summary>Monitor",
    "behind words": f"Look:\n{NOTICES['command']}",
    "a log": "[SYSTEM NOTIFICATION - NOT USER INPUT]\nThis is an automated event. Why is it there?",
    "a reminder": "<system-reminder>\nToday is Monday.\n</system-reminder>\nWho says that?",
    "another tag": "<channels>\n<one/>\n</channels>",
    "markup": "<channel source='mail'> is what I want to write about.",
}


@pytest.mark.parametrize("notice", NOTICES.values(), ids=NOTICES)
def test_a_notice_of_the_client_is_no_prompt_of_a_human(bob: Beside, notice: str) -> None:
    bob.put()
    assert bob.prompt(notice) == ""
    assert (bob.states(), bob.fact(facts.PROMPT_MS)) == (["waiting"], "")


@pytest.mark.parametrize("pasted", PASTED.values(), ids=PASTED)
def test_what_a_human_writes_around_a_pasted_notice_is_a_prompt_of_his(
    bob: Beside, pasted: str
) -> None:
    bob.put()
    assert "Hello." in bob.prompt(pasted)
    assert bob.fact(facts.PROMPT_MS)
