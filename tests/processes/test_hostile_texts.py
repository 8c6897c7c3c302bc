"""Hostile texts from one session to another: both forms of the tool's result are harmless."""

import json
from pathlib import Path

import mcp_types

from tests.support.hostile import TEXTS, faults
from tests.support.live import alive


async def test_no_text_in_a_result_of_the_inbox_forges_anything(tmp_path: Path) -> None:
    async with alive(tmp_path) as live:
        ada, bob = await live.join_all("ada", "bob")
        for text in TEXTS:
            await bob.call("send", to="ada", text=text)
        shown = 0
        while shown < len(TEXTS):
            result = await ada.result("inbox", wait_s=60)
            (content,) = result.content
            assert isinstance(content, mcp_types.TextContent)
            for form in (json.loads(content.text), result.structured_content or {}):
                texts = [one["text"] for one in form["messages"]]
                assert [(text, wrong) for text in texts if (wrong := faults(text))] == []
                assert {(one["handle"], one["trust"]) for one in form["messages"]} == {
                    ("bob", "own")
                }
            shown += len(texts)
