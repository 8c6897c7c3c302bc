"""Whether two tool calls are of one reply: what the transcript shows, and what it leaves open."""

import json
from pathlib import Path

import pytest

from claudemesh_mcp.routes.transcript import are_of_two_replies
from tests.support.routing import Beside


def reply(message: str, *calls: str) -> str:
    content = [{"type": "tool_use", "id": call, "name": "Bash", "input": {}} for call in calls]
    return json.dumps({"type": "assistant", "message": {"id": message, "content": content}})


def result(call: str) -> str:
    content = [{"type": "tool_result", "tool_use_id": call, "content": "ok"}]
    return json.dumps({"type": "user", "message": {"role": "user", "content": content}})


@pytest.fixture
def transcript(tmp_path: Path) -> Path:
    lines = [
        *(reply("msg_1", "toolu_1"), reply("msg_1", "toolu_2"), result("toolu_1")),
        *("no JSON toolu_1", "[]", '{"type":"assistant"}', '{"type":"assistant","message":7}'),
        *(reply("msg_2", "toolu_3"), json.dumps({"type": "user", "message": "toolu_4"})),
    ]
    path = tmp_path / "transcript.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("toolu_1", "toolu_3", True),
        ("toolu_2", "toolu_3", True),
        ("toolu_1", "toolu_2", False),
        ("toolu_1", "toolu_1", False),
        ("toolu_1", "toolu_4", False),
        ("toolu_1", "toolu_9", False),
        ("toolu_1", "", False),
        ("toolu", "toolu_3", False),
    ],
)
def test_two_calls_are_apart_when_the_transcript_shows_it(
    transcript: Path, first: str, second: str, *, expected: bool
) -> None:
    assert are_of_two_replies(str(transcript), first, second) is expected


@pytest.mark.parametrize("path", ["", "/none", "/", "a\0b"])
def test_without_a_transcript_nothing_is_known(path: str) -> None:
    assert are_of_two_replies(path, "toolu_1", "toolu_3") is False


def test_a_call_of_a_later_reply_proves_what_the_one_before_brought(
    bob: Beside, transcript: Path
) -> None:
    bob.put(priority="now")
    told = {"transcript_path": str(transcript)}
    assert bob.tool("toolu_1", **told) != ""
    bob.tool("toolu_2", **told)
    assert bob.receipts() == []
    bob.tool("toolu_3", **told)
    assert bob.receipts() == [("seen", "tool-boundary")]
