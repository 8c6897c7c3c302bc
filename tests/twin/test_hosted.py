"""A server that one session runs, called by another over a line: as if it were called directly."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp.calling.links import Hooks, Link, Links
from claudemesh_mcp.hosting.keeping import Kept
from claudemesh_mcp.hosting.serving import Hosted, Serving
from tests.support.backends.bare import bare, without_stamp
from tests.support.backends.found import handmade
from tests.support.broker import LIMIT_S
from tests.support.offering import Words, register
from tests.support.twin import a_mesh

ERAS = pytest.mark.parametrize("era", ["handshake", "stateless"])


@asynccontextmanager
async def a_caller(folder: Path, era: str) -> AsyncIterator[Link]:
    """Have one session run the server by hand, and another one a line to it."""
    kept = Kept("hand", handmade(era, folder / "said"))
    async with a_mesh(folder) as twin:
        ada, desk = await twin.join("ada"), await twin.join("desk")
        async with anyio.create_task_group() as tasks:
            await tasks.start(kept.run)
            found = await kept.backend.definitions()
            made = await register(ada, "hand", found["tools"], ("own",))
            serving = Serving(ada.peer, {"hand": Hosted(made, kept)}, ada.ready, lambda *_: None)
            ada.tunnels.taker = serving.take
            links = Links(desk.tunnels)
            tasks.start_soon(links.run)
            yield await links.to(ada.peer.id)
            tasks.cancel_scope.cancel()


async def call(link: Link, tool: str, hooks: Hooks | None = None, **arguments: Any) -> Words:
    said = {
        "server": "hand",
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
        "hops": 1,
    }
    return await link.call(said, hooks or Hooks(), LIMIT_S)


@ERAS
async def test_each_answer_is_the_one_that_the_server_gives(era: str, tmp_path: Path) -> None:
    calls: list[tuple[str, Words]] = [
        ("rich", {"a": [1.5, None, "☃"]}),
        ("failing", {"why": {"not": True}}),
        ("refusing", {}),
        ("half", {}),
        ("large", {}),
    ]
    with bare(handmade(era), is_stateless=era == "stateless") as direct:
        params = [{"name": tool, "arguments": arguments} for tool, arguments in calls]
        expected = [without_stamp(direct.ask("tools/call", one)) for one in params]
    answers = list[Words]()
    async with a_caller(tmp_path, era) as link:
        for tool, arguments in calls:
            done = await call(link, tool, **arguments)
            answers.append({key: done[key] for key in ("result", "error") if key in done})
    assert answers == expected


async def test_progress_log_and_questions_come_over_the_line(tmp_path: Path) -> None:
    told, answers = list[str](), list[Words]()

    async def ask(method: str, params: Words) -> Words:
        told.append(f"{method}: {params['message']}")
        return {"result": {"action": "accept", "content": {"name": "Ada"}}}

    hooks = Hooks(
        progress=lambda params: told.append(f"progress {params['progress']}"),
        log=lambda params: told.append(f"log {params['logger']}"),
        ask=ask,
    )
    async with a_caller(tmp_path, "handshake") as link:
        await call(link, "steps", hooks)
        answers.append(await call(link, "asking", hooks))
    assert told == ["progress 1", "progress 2", "log steps", "elicitation/create: your name?"]
    given = answers[0]["result"]["structuredContent"]["result"]
    assert given == {"action": "accept", "content": {"name": "Ada"}}


async def test_a_server_that_dies_in_a_call_is_said_to_have_perhaps_run_it(tmp_path: Path) -> None:
    codes = list[str]()
    async with a_caller(tmp_path, "handshake") as link:
        for tool in ("crashing", "seen"):
            codes.append((await call(link, tool))["refused"]["code"])
    assert codes == ["outcome_unknown", "server_not_running"]
