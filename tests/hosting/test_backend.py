"""One hosted server: what it says comes out as it was said, and what it is told is told rightly."""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types
import pytest

from claudemesh_mcp.hosting import era as hop
from claudemesh_mcp.hosting.backend import Backend, Terms, running
from claudemesh_mcp.hosting.flights import Hooks, Raw, Stop
from claudemesh_wire.errors import MeshError
from tests.support.backends.bare import bare, without_stamp
from tests.support.backends.found import handmade
from tests.support.live import LIMIT_S, a_moment

ERAS = pytest.mark.parametrize("era", ["handshake", "stateless"])
PREFIX = "io.modelcontextprotocol/"


@asynccontextmanager
async def hosted(era: str, *options: object, **terms: Any) -> AsyncGenerator[Backend]:
    with anyio.fail_after(60):
        async with running(handmade(era, *options), Terms(**terms)) as backend:
            yield backend


async def call(backend: Backend, tool: str, hooks: Hooks | None = None, **arguments: Any) -> Raw:
    return await backend.call("tools/call", {"name": tool, "arguments": arguments}, hooks)


def lines_of(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


async def line_of(path: Path, number: int) -> str:
    """Wait for a line that the server writes."""
    with anyio.fail_after(LIMIT_S):
        # Another process's line gives no sign here.
        while len(lines := lines_of(path)) < number:
            await a_moment()
    return lines[number - 1]


@ERAS
async def test_what_it_says_of_itself_is_known(era: str) -> None:
    async with hosted(era) as backend:
        assert backend.era.is_stateless is (era == "stateless")
        assert backend.era.server["name"] == "handmade"
        assert backend.instructions == "Be kind."


@ERAS
async def test_all_pages_of_its_definitions_come_as_they_are(era: str) -> None:
    with bare(handmade(era), is_stateless=era == "stateless") as direct:
        pages = [direct.ask("tools/list", {"cursor": str(start)}) for start in (0, 5, 10, 15)]
        tools = [one for page in pages for one in page["result"]["tools"]]
        resources = direct.ask("resources/list", {})["result"]["resources"]
        prompts = direct.ask("prompts/list", {})["result"]["prompts"]
    async with hosted(era) as backend:
        found = await backend.definitions()
    assert len(tools) == 16
    assert found == {
        "tools": tools,
        "resources": resources,
        "resource_templates": [],
        "prompts": prompts,
    }


@ERAS
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "rich", "arguments": {"a": [1.5, None, "☃"]}}),
        ("tools/call", {"name": "failing", "arguments": {"why": {"not": True}}}),
        ("tools/call", {"name": "refusing", "arguments": {}}),
        ("tools/call", {"name": "steps"}),
        ("tools/call", {"name": "half", "arguments": {}}),
        ("tools/call", {"name": "large", "arguments": {}}),
        ("resources/read", {"uri": "own://a"}),
        ("prompts/get", {"name": "p", "arguments": {"x": "y"}}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "p"}}),
    ],
)
async def test_an_answer_is_the_one_that_the_server_gives(
    era: str, method: str, params: Raw
) -> None:
    with bare(handmade(era), is_stateless=era == "stateless") as direct:
        expected = without_stamp(direct.ask(method, params))
    async with hosted(era) as backend:
        assert await backend.call(method, params) == expected


@ERAS
async def test_an_answer_that_is_no_result_ends_its_call(era: str) -> None:
    async with hosted(era) as backend:
        assert (await call(backend, "odd"))["error"]["code"] == -32603
        assert "result" in await call(backend, "seen")


async def test_protocol_keys_of_the_caller_go_no_further() -> None:
    meta = {f"{PREFIX}clientInfo": {"name": "them"}, f"{PREFIX}logLevel": "info", "own/key": 1}
    async with hosted("handshake") as backend:
        params = {"name": "seen", "arguments": {"a": 1}, "_meta": meta, "task": {"ttl": 1}}
        answer = await backend.call("tools/call", params)
        seen = answer["result"]["structuredContent"]
    assert seen == {**params, "_meta": {"own/key": 1}}


async def test_a_stateless_server_is_told_with_each_call_who_asks() -> None:
    meta = {f"{PREFIX}clientInfo": {"name": "them"}, f"{PREFIX}logLevel": "info", "own/key": 1}
    async with hosted("stateless") as backend:
        params = {"name": "seen", "arguments": {}, "_meta": meta}
        seen = (await backend.call("tools/call", params))["result"]["structuredContent"]["_meta"]
    assert seen["own/key"] == 1
    assert seen[f"{PREFIX}clientInfo"]["name"] == "claudemesh"
    assert seen[f"{PREFIX}protocolVersion"] == "2026-07-28"
    assert seen[f"{PREFIX}logLevel"] == "info"
    assert seen[f"{PREFIX}clientCapabilities"] == {}


@ERAS
async def test_progress_and_log_come_before_the_answer_under_the_callers_token(era: str) -> None:
    told: list[tuple[str, Raw]] = []

    async def progress(params: Raw) -> None:
        told.append(("progress", params))

    async def log(params: Raw) -> None:
        told.append(("log", params))

    async with hosted(era) as backend:
        params = {"name": "steps", "arguments": {}, "_meta": {"progressToken": "mine"}}
        await backend.call("tools/call", params, Hooks(progress, log))
    assert [kind for kind, _ in told] == ["progress", "progress", "log"]
    assert [params["progressToken"] for _, params in told[:2]] == ["mine", "mine"]
    assert [params["progress"] for _, params in told[:2]] == [1, 2]
    assert told[0][1]["x"]["big"] == 2**70
    assert told[2][1]["data"]["said"]["ünïcode"] == "☃"


@ERAS
async def test_a_call_without_a_token_gets_none(era: str) -> None:
    async with hosted(era) as backend:
        seen = (await call(backend, "seen"))["result"]["structuredContent"]
    assert "progressToken" not in seen.get("_meta", {})


@ERAS
async def test_a_stopped_call_is_cancelled_at_the_server_with_the_reason(
    era: str, tmp_path: Path
) -> None:
    said, stop, codes = tmp_path / "said", Stop(), list[str]()
    async with hosted(era, said) as backend, anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(MeshError) as refused:
                await call(backend, "waiting", Hooks(stop=stop))
            codes.append(refused.value.code)

        tasks.start_soon(wait)
        await line_of(said, 1)
        stop.cancel("the user pressed escape")
        assert await line_of(said, 2) == "cancelled: the user pressed escape"
    assert codes == ["cancelled"]


async def test_a_call_whose_task_is_cancelled_is_cancelled_at_the_server(tmp_path: Path) -> None:
    said = tmp_path / "said"
    async with hosted("handshake", said) as backend:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, backend, "waiting")
            await line_of(said, 1)
            tasks.cancel_scope.cancel()
        assert (await line_of(said, 2)).startswith("cancelled: ")


async def test_a_question_goes_to_the_only_caller_and_the_answer_comes_back() -> None:
    asked: list[tuple[str, Raw]] = []

    async def ask(method: str, params: Raw) -> Raw:
        asked.append((method, params))
        return {"result": {"action": "accept", "content": {"name": "Ada"}, "x": 1}}

    async with hosted("handshake") as backend:
        answer = await call(backend, "asking", Hooks(ask=ask))
    ((method, params),) = asked
    assert method == "elicitation/create"
    assert (params["message"], params["x"]["big"]) == ("your name?", 2**70)
    given = answer["result"]["structuredContent"]["result"]
    assert given == {"action": "accept", "content": {"name": "Ada"}, "x": 1}


async def test_a_question_ends_with_the_call_because_of_which_it_is_asked(tmp_path: Path) -> None:
    said, stop = tmp_path / "said", Stop()

    async def ask(_: str, __: Raw) -> Raw:
        stop.cancel("no more")
        await anyio.sleep_forever()
        raise AssertionError

    async with hosted("handshake", said) as backend:
        with pytest.raises(MeshError) as refused:
            await call(backend, "asking", Hooks(ask=ask, stop=stop))
        assert refused.value.code == "cancelled"
        lines = {await line_of(said, 1), await line_of(said, 2)}
    assert "cancelled: no more" in lines
    assert any('"code": -32800' in line for line in lines)


async def test_a_question_is_refused_while_several_callers_are_served(tmp_path: Path) -> None:
    said, asked, answers = tmp_path / "said", list[Raw](), list[Raw]()

    async def ask(_: str, params: Raw) -> Raw:
        asked.append(params)
        return {"result": {"action": "accept"}}

    async with hosted("handshake", said) as backend, anyio.create_task_group() as tasks:
        tasks.start_soon(call, backend, "waiting", Hooks(ask=ask, caller="bob"))
        await line_of(said, 1)
        for caller in ("ada", "bob"):
            answer = await call(backend, "asking", Hooks(ask=ask, caller=caller))
            answers.append(answer["result"]["structuredContent"])
        tasks.cancel_scope.cancel()
    refused, accepted = answers
    assert "Several callers" in refused["error"]["message"]
    assert accepted["result"] == {"action": "accept"}
    assert len(asked) == 1


@pytest.mark.parametrize("method", ["sampling/createMessage", "roots/list", "elicitation/create"])
async def test_what_a_caller_can_not_be_asked_is_refused(method: str) -> None:
    async with hosted("handshake") as backend:
        answer = await call(backend, "prying", method=method)
    assert answer["result"]["structuredContent"]["error"]["code"] == -32601


async def test_a_ping_of_the_server_is_answered() -> None:
    async with hosted("handshake") as backend:
        answer = await call(backend, "prying", method="ping")
    assert answer["result"]["structuredContent"]["result"] == {}


async def test_a_stateless_server_gets_its_answers_by_another_call() -> None:
    async def ask(_: str, __: Raw) -> Raw:
        raise AssertionError

    async with hosted("stateless") as backend:
        first = (await call(backend, "asking", Hooks(ask=ask)))["result"]
        params = {
            "name": "asking",
            "arguments": {},
            "requestState": first["requestState"],
            "inputResponses": {"a": {"action": "decline"}},
        }
        second = (await backend.call("tools/call", params, Hooks(ask=ask)))["result"]
    assert first["resultType"] == "input_required"
    assert first["inputRequests"]["a"]["params"]["message"] == "your name?"
    assert second["structuredContent"] == {"state": "s1", "given": {"a": {"action": "decline"}}}


@ERAS
async def test_a_changed_list_is_told(era: str) -> None:
    changed, heard = list[str](), anyio.Event()

    def hear(kind: str) -> None:
        changed.append(kind)
        heard.set()

    async with hosted(era, list_changed=hear) as backend:
        await call(backend, "changing")
        await heard.wait()
    assert changed == ["tools"]


@ERAS
async def test_a_server_that_dies_ends_its_calls_as_perhaps_run(era: str, tmp_path: Path) -> None:
    said, log = tmp_path / "said", tmp_path / "logs" / "server.log"
    codes: list[str] = []
    async with hosted(era, said, errors=log) as backend:

        async def calling(tool: str) -> None:
            with pytest.raises(MeshError) as refused:
                await call(backend, tool)
            codes.append(refused.value.code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(calling, "waiting")
            await line_of(said, 1)
            tasks.start_soon(calling, "crashing")
        await backend.ended.wait()
        await calling("seen")
    assert codes == ["outcome_unknown", "outcome_unknown", "server_not_running"]
    assert said.read_text("utf-8") == "waits\nrun\n"
    assert log.read_text("utf-8") == "these are my last words\n"
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("arguments", [{"a": "\ud83d"}, {"a": float("nan")}, {"a": object()}])
async def test_arguments_that_are_no_json_are_refused_and_harm_nobody(arguments: Raw) -> None:
    async with hosted("handshake") as backend:
        with pytest.raises(MeshError) as refused:
            await call(backend, "seen", **arguments)
        assert refused.value.code == "bad_arguments"
        assert "result" in await call(backend, "seen")


@pytest.mark.parametrize("method", ["initialize", "server/discover", "logging/setLevel"])
async def test_what_is_between_this_hop_and_the_server_can_not_be_called(method: str) -> None:
    async with hosted("handshake") as backend:
        with pytest.raises(MeshError) as refused:
            await backend.call(method, {})
    assert refused.value.code == "bad_method"


async def test_fifty_calls_at_once_get_each_its_own_answer() -> None:
    found: dict[int, Any] = {}
    async with hosted("stateless") as backend:

        async def one(number: int) -> None:
            answer = await call(backend, "seen", number=number)
            found[number] = answer["result"]["structuredContent"]["arguments"]["number"]

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(one, number)
    assert found == {number: number for number in range(50)}


async def test_a_caller_that_fails_while_it_is_told_ends_its_own_call_only(
    tmp_path: Path,
) -> None:
    async def progress(_: Raw) -> None:
        raise MeshError("gone", code="line_ended")

    async with hosted("handshake", tmp_path / "said") as backend:
        params = {"name": "steps", "arguments": {}, "_meta": {"progressToken": 1}}
        with pytest.raises(MeshError) as failed:
            await backend.call("tools/call", params, Hooks(progress))
        assert failed.value.code == "line_ended"
        assert "result" in await call(backend, "seen")


def test_the_protocol_keys_are_those_of_the_sdk() -> None:
    assert hop.VERSION_KEY == mcp_types.PROTOCOL_VERSION_META_KEY
    assert hop.CLIENT_KEY == mcp_types.CLIENT_INFO_META_KEY
    assert hop.CAPABILITIES_KEY == mcp_types.CLIENT_CAPABILITIES_META_KEY
    assert hop.LOG_LEVEL_KEY == mcp_types.LOG_LEVEL_META_KEY
    assert hop.SERVER_KEY == mcp_types.SERVER_INFO_META_KEY


async def test_mcp_is_not_imported_for_a_server_that_is_a_program() -> None:
    program = """
import sys, anyio
from claudemesh_mcp.hosting import backend, keeping
from tests.support.backends.found import handmade
async def main():
    async with backend.running(handmade("handshake"), backend.Terms()):
        assert not {"mcp", "mcp_types"} & set(sys.modules)
anyio.run(main)
"""
    done = await anyio.run_process([sys.executable, "-c", program], check=False)
    assert done.returncode == 0, done.stderr.decode()
