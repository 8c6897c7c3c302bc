"""What the transcript shows, and what it leaves open: of calls, and of what a hook brought."""

import json
from pathlib import Path

import pytest

from claudemesh_mcp.routes.transcript import Trace, are_of_two_replies, trace
from tests.support.routing import Beside
from tests.support.transcript import context, prompt, ran, reply, result, write_down


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


BROUGHT = context("UserPromptSubmit", "Of another plugin.", "claudemesh: ready. (probe 5f0c)")
SAID = '{"additionalContext": "claudemesh: ready. (probe 5f0c)"}'


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([prompt("Go on."), BROUGHT, reply("msg_1")], "answered"),
        (
            [BROUGHT, "no JSON 5f0c", prompt("Go on."), result("toolu_1"), reply("msg_1")],
            "answered",
        ),
        ([BROUGHT], "brought"),
        ([reply("msg_1"), BROUGHT], "brought"),
        ([BROUGHT, reply("msg_1", model="<synthetic>")], "brought"),
        ([BROUGHT, prompt('"assistant"'), '{"type": "assistant"}', '["assistant"]'], "brought"),
        ([ran("UserPromptSubmit", SAID), reply("msg_1")], "absent"),
        ([prompt("What is 5f0c?"), reply("msg_1")], "absent"),
        ([context("UserPromptSubmit", "(probe 0000)"), reply("msg_1")], "absent"),
        (["5f0c", '{"type": "attachment", "attachment": "5f0c"}', reply("msg_1")], "absent"),
        (['{"type": "attachment", "attachment": {"content": "5f0c"}}', reply("msg_1")], "absent"),
        ([], "absent"),
    ],
)
def test_what_a_hook_brought_was_before_the_model_when_a_reply_stands_behind_it(
    tmp_path: Path, lines: list[str], expected: str
) -> None:
    path = tmp_path / "transcript.jsonl"
    write_down(path, *lines)
    found = trace(str(path), 0, "5f0c")
    assert found is not None
    assert found.value == expected


def test_what_stood_in_the_transcript_before_is_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    write_down(path, BROUGHT, reply("msg_1"))
    size = path.stat().st_size
    assert trace(str(path), size, "5f0c") is Trace.ABSENT
    write_down(path, BROUGHT, reply("msg_2"))
    # From the midst of a line that was just being written, too.
    assert trace(str(path), size - 9, "5f0c") is Trace.ANSWERED


@pytest.mark.parametrize("path", ["", "/none", "/", "a\0b"])
def test_of_what_a_hook_brought_nothing_is_known_without_a_transcript(path: str) -> None:
    assert trace(path, 0, "5f0c") is None
