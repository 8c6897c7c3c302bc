"""The scripted model itself, asked by hand: what the tests with the real client rest on."""

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.claude.asked import Place
from tests.support.claude.client import pinned_version
from tests.support.claude.model import Model, a_model
from tests.support.claude.script import Call, Rule

TOOL = {"name": "look"}


@pytest.fixture
def model() -> Iterator[Model]:
    with a_model(Rule("never", "Never.", times=0), Rule("look (at .*)", Call("look"))) as model:
        yield model


def request(
    model: Model, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, bytes]:
    """Send one request; gives the code and the body of the answer."""
    connection = http.client.HTTPConnection(model.url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def ask(model: Model, *messages: Any, session: str = "s", agent: str = "", **more: Any) -> Any:
    """Ask as a session does, for an answer in one piece; gives its content."""
    told = {"user_id": json.dumps({"session_id": session})}
    body = {"model": "m", "metadata": told, "tools": [TOOL], "messages": messages, **more}
    headers = {"X-Claude-Code-Agent-Id": agent} if agent else {}
    code, answer = request(model, "POST", "/v1/messages?beta=true", body, **headers)
    assert code == 200
    return json.loads(answer)["content"] if not more.get("stream") else answer.decode()


def said(text: str, role: str = "user") -> Any:
    return {"role": role, "content": text}


def result(text: str) -> Any:
    inner = [{"type": "text", "text": text}]
    return {"role": "user", "content": [{"type": "tool_result", "content": inner}]}


def test_only_what_is_new_since_the_model_spoke_is_matched(model: Model) -> None:
    (call,) = ask(model, said("look at it"))
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "look", {})
    (text,) = ask(model, said("look at it"), said("", "assistant"), said("never"))
    assert (text["type"], text["text"]) == ("text", "Good.")


def test_a_stream_says_the_same_in_events(model: Model) -> None:
    told = ask(model, said("look at it"), stream=True)
    names = [line.removeprefix("event: ") for line in told.splitlines() if line[:5] == "event"]
    assert names == [
        "message_start",
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    assert '"stop_reason": "tool_use"' in told


def test_what_is_no_turn_is_kept_apart(model: Model) -> None:
    assert request(model, "HEAD", "/api/hello")[0] == 200
    assert request(model, "GET", "/v1/models")[0] == 404
    assert request(model, "POST", "/v1/other", {})[0] == 404
    counted = request(model, "POST", "/v1/messages/count_tokens", {})
    assert (counted[0], list(json.loads(counted[1]))) == (200, ["input_tokens"])
    (text,) = ask(model, said("look at it"), tools=[])
    assert text["type"] == "text"
    assert (len(model.all), model.turns) == (1, [])


def test_a_text_arrives_once_in_a_conversation_that_repeats_it(model: Model) -> None:
    first, spoke, second = said("<system-reminder>\nowl"), said("", "assistant"), result("owl")
    ask(model, first)
    ask(model, first, spoke, said("on"))
    assert model.arrival("owl").place is Place.REMINDER
    ask(model, first, spoke, second)
    assert [one.places for one in model.arrivals("owl")] == [(Place.REMINDER,), (Place.RESULT,)]
    with pytest.raises(ValueError, match="too many"):
        model.arrival("owl")


def test_a_text_that_a_request_has_twice_is_one_arrival_in_two_places(model: Model) -> None:
    ask(model, said("owl"), said("owl", "system"))
    assert model.arrival("owl").places == (Place.USER, Place.SYSTEM)


def test_what_a_subagent_is_asked_does_not_disturb_its_session(model: Model) -> None:
    ask(model, said("owl"))
    ask(model, said("hen"), agent="a1")
    ask(model, said("owl"))
    assert model.arrival("owl").asked.number == 0
    ask(model, said("owl"), session="t")
    assert [one.asked.number for one in model.arrivals("owl")] == [0, 3]


def test_what_the_model_said_itself_has_not_arrived(model: Model) -> None:
    ask(model, said("hen"), said("owl", "assistant"), said("hen"))
    assert model.arrivals("owl") == []


def test_a_turn_is_busy_until_the_test_lets_it_end() -> None:
    go = threading.Event()
    with a_model(Rule("owl", "An owl.", until=go)) as model, ThreadPoolExecutor() as threads:
        answer = threads.submit(ask, model, said("owl"))
        (text,) = ask(model, said("hen"))
        assert text["text"] == "Good."
        assert not answer.done()
        go.set()
        assert answer.result(10)[0]["text"] == "An owl."


async def test_a_mistake_in_a_script_fails_its_test() -> None:
    with pytest.raises(AssertionError), a_model(Rule("owl", lambda found: found["none"])) as model:
        ask(model, said("owl"))


def test_one_version_of_the_client_is_pinned() -> None:
    assert pinned_version().replace(".", "").isdigit()
