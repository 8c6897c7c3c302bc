"""What a server writes that is no good message: it costs one call at most, and never the server."""

import sys

import anyio
import anyio.lowlevel
import pytest

from claudemesh_mcp.hosting.answers import read
from claudemesh_mcp.hosting.backend import Backend, Terms, running
from claudemesh_mcp.hosting.flights import Raw
from claudemesh_mcp.hosting.keeping import Condition, Kept, Pace, State
from claudemesh_mcp.hosting.launch import Launch
from claudemesh_wire.errors import MeshError
from tests.support.backends.found import handmade

GOOD = b'{"jsonrpc":"2.0","id":NUMBER,"result":{"content":[]}}\n'


async def written(backend: Backend, *lines: bytes) -> Raw:
    """Have the server write these lines, and give the answer to the call."""
    arguments = {"lines": [line.hex() for line in lines]}
    return await backend.call("tools/call", {"name": "raw", "arguments": arguments})


PASSED_OVER = [
    b"\xff\xfe\n",
    b"\xc3\n",
    b"Welcome!\n",
    b"{not json\n",
    b"[]\n",
    b"null\n",
    b"123\n",
    b"\n",
    b'{"jsonrpc":"1.0"}\n',
    b'{"id":NUMBER,"method":"tools/call"}\n',
    b'log: {"id":NUMBER,"method":"tools/call","params":{}} came\n',
    b'{"jsonrpc":"2.0","id":99,"result":{}}\n',
    b'{"jsonrpc":"2.0","method":"x","params":' + b"[" * 3000 + b"]" * 3000 + b',"id":NUMBER}\n',
]


@pytest.mark.parametrize("line", PASSED_OVER)
async def test_a_line_that_is_no_message_is_passed_over(line: bytes) -> None:
    with anyio.fail_after(20):
        async with running(handmade("handshake"), Terms()) as backend:
            assert await written(backend, line, GOOD) == {"result": {"content": []}}
            assert await written(backend, GOOD) == {"result": {"content": []}}


DEEP = b"[" * 3000 + b"]" * 3000
FAILED = [
    (b'{"jsonrpc":"2.0","id":NUMBER,"result":{"a":' + DEEP + b"}}\n", "nested"),
    (b'{"result":{"a":' + DEEP + b'},"jsonrpc":"2.0","id":NUMBER}\n', "nested"),
    (b'{"result":{"a":' + b"[" * 300 + b"]" * 300 + b'},"id":NUMBER,"jsonrpc":"2.0"}\n', "nested"),
    (b'\xe2\x82{"jsonrpc":"2.0","id":NUMBER,"result":{}}\n', "no JSON"),
    (b'{"id": NUMBER, "jsonrpc": "2.0", "result": {"a": }}\n', "no JSON"),
    (b'{"id":NUMBER,"result":{}}\n', "jsonrpc"),
    (b'{"jsonrpc":"1.0","id":NUMBER,"error":{"code":1,"message":"no"}}\n', "jsonrpc"),
]


@pytest.mark.parametrize(("line", "why"), FAILED)
async def test_an_answer_that_can_not_be_read_fails_its_call_at_once(line: bytes, why: str) -> None:
    with anyio.fail_after(20):
        async with running(handmade("handshake"), Terms()) as backend:
            error = (await written(backend, line))["error"]
            assert (error["code"], why in error["message"]) == (-32603, True)
            assert await written(backend, GOOD) == {"result": {"content": []}}


@pytest.mark.parametrize("number", [b'"NUMBER"', b"NUMBER.0"])
async def test_an_id_that_comes_back_in_another_form_names_its_call(number: bytes) -> None:
    line = b'{"jsonrpc":"2.0","id":' + number + b',"result":{"content":[]}}\n'
    with anyio.fail_after(20):
        async with running(handmade("handshake"), Terms()) as backend:
            assert await written(backend, line) == {"result": {"content": []}}


async def test_the_last_word_of_a_server_counts_without_a_line_end() -> None:
    program = (
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        "    last = asked.get('method') == 'tools/call'\n"
        "    made = {'protocolVersion': '2025-11-25', 'capabilities': {}, 'content': [],"
        " 'serverInfo': {'name': 'last', 'version': '1'}}\n"
        "    if 'id' in asked:\n"
        "        answer = {'jsonrpc': '2.0', 'id': asked['id'], 'result': made}\n"
        "        print(json.dumps(answer), end='' if last else '\\n', flush=True)\n"
        "    last and os._exit(0)\n"
    )
    launch = Launch(command=sys.executable, args=("-c", program))
    with anyio.fail_after(20):
        async with running(launch, Terms()) as backend:
            answer = await backend.call("tools/call", {"name": "any", "arguments": {}})
    assert answer["result"]["content"] == []


@pytest.mark.parametrize("turns", range(8))
async def test_a_start_that_is_cancelled_ends(turns: int) -> None:
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Backend(handmade("handshake"), Terms()).run)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()


async def test_what_is_no_utf8_costs_its_characters_only() -> None:
    text = b'{"jsonrpc":"2.0","id":NUMBER,"result":{"content":[{"text":"a\xffb"}]}}\n'
    with anyio.fail_after(20):
        async with running(handmade("handshake"), Terms()) as backend:
            answer = await written(backend, text)
    assert answer["result"]["content"][0]["text"] == "a\ufffdb"


@pytest.mark.parametrize("levels", [200, 201])
def test_an_answer_may_be_nested_as_deep_as_elsewhere(levels: int) -> None:
    # Two levels are those of the message and its result.
    nested = b"[" * (levels - 2) + b"0" + b"]" * (levels - 2)
    found = read(b'{"jsonrpc":"2.0","id":1,"result":{"a":' + nested + b"}}")
    assert found is not None
    assert ("error" in found) == (levels > 200)


async def test_a_list_of_tools_that_can_not_be_read_is_no_list() -> None:
    code = (
        "import json,sys\n"
        "for line in sys.stdin:\n"
        "    words = json.loads(line)\n"
        "    method, number = words['method'], words.get('id')\n"
        "    said = {'protocolVersion': '2025-11-25', 'capabilities': {'tools': {}}}\n"
        "    if method == 'tools/list':\n"
        "        nested = '['*975 + ']'*975\n"
        '        text = \'{"tools":[{"name":"t","x":\' + nested + \'}]}\'\n'
        "    elif method == 'initialize':\n"
        "        text = json.dumps(said)\n"
        "    else:\n"
        "        text = '{}'\n"
        "    if number is not None:\n"
        '        print(\'{"jsonrpc":"2.0","id":%d,"result":%s}\' % (number, text), flush=True)\n'
    )
    launch = Launch(command=sys.executable, args=("-c", code))
    with anyio.fail_after(20):
        async with running(launch, Terms()) as backend:
            with pytest.raises(MeshError) as refused:
                await backend.definitions()
    assert refused.value.code == "not_an_mcp_server"
    assert "nested" in refused.value.reason


async def test_a_line_without_an_end_fails_what_is_open_and_the_server_is_started_again() -> None:
    again, told, refusals = anyio.Event(), list[Condition](), list[MeshError]()

    def report(condition: Condition) -> None:
        told.append(condition)
        if condition.restarts == 1 and condition.state is State.RUNNING:
            again.set()

    async def pause(_: float) -> None:
        await anyio.lowlevel.checkpoint()

    kept = Kept("long", handmade("handshake"), report=report, pace=Pace(pause=pause))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            await tasks.start(kept.run)
            with pytest.raises(MeshError) as refused:
                await kept.backend.call("tools/call", {"name": "endless", "arguments": {}})
            refusals.append(refused.value)
            await again.wait()
            assert await written(kept.backend, GOOD) == {"result": {"content": []}}
            tasks.cancel_scope.cancel()
    assert [one.code for one in refusals] == ["outcome_unknown"]
    assert "40 MiB" in refusals[0].reason
    [failed] = [one for one in told if one.state is State.FAILED]
    assert "40 MiB" in failed.why


async def test_a_line_of_ten_megabytes_is_read() -> None:
    head, tail = GOOD.split(b"[]")
    with anyio.fail_after(60):
        async with running(handmade("handshake"), Terms()) as backend:
            chunk = b" " * 1_000_000
            answer = await written(backend, head + b"[", *([chunk] * 10), b"]" + tail)
    assert answer == {"result": {"content": []}}
