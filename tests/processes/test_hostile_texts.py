"""Hostile texts from one session to another: both forms of the tool's result are harmless."""

import json

from tests.support.hostile import TEXTS, faults
from tests.support.live import Live


async def test_no_text_in_a_result_of_the_inbox_forges_anything(live: Live) -> None:
    ada, bob = await live.join_all("ada", "bob")
    for text in TEXTS:
        await bob.call("send", to="ada", text=text, thread=text[:60] or None)
    shown: list[dict[str, str]] = []
    while len(shown) < len(TEXTS):
        result = await ada.result("inbox", wait_s=60)
        (content,) = result.content
        both = [json.loads(content.text), result.structured_content]
        for form in both:
            texts = [one["text"] for one in form["messages"]]
            assert [(text, wrong) for text in texts if (wrong := faults(text))] == []
            assert {one["trust"] for one in form["messages"]} == {"own"}
        shown += both[0]["messages"]
    assert {one["handle"] for one in shown} == {"bob"}
    threads = [one.get("thread") or "" for one in shown]
    assert [thread for thread in threads if faults(thread)] == []
