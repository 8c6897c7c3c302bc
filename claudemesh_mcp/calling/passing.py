"""Passes what another's server says on to the client of this session, and its results as they are.

The tools of ``tools/mesh_tools.py`` and those that a session has imported call through it.
"""

import json
from collections.abc import Awaitable
from typing import Any, Final, cast

from claudemesh_mcp.answers import Raw
from claudemesh_mcp.calling.desk import Going, hooks_of
from claudemesh_mcp.calling.links import Params
from claudemesh_mcp.calling.toolcalls import TIMEOUT_S, BackendError
from claudemesh_mcp.calls import CallContext

_HOPS: Final = "claudemesh/hops"


def going(call: CallContext, timeout_s: float | None = None) -> Going:
    """Give how a call goes on whose client is told and asked what the server tells and asks.

    Args:
        call: Of the client.
        timeout_s: How long it may take, and how long its user may think about a question.
    """
    limit_s = TIMEOUT_S if timeout_s is None else timeout_s

    async def ask(method: str, params: Params) -> Params:
        return await call.ask(method, params, limit_s)

    hops: Any = call.meta.get(_HOPS)
    return Going(
        hooks_of(call.progress_raw, call.log_raw, ask),
        ask,
        limit_s,
        # Said by a server that is called through the mesh and calls on: it counts each session.
        hops if isinstance(hops, int) else 0,
        call.meta,
    )


async def passed(result: Awaitable[Params]) -> Raw:
    """Give a tool's result as it came; an error of the protocol as a result that says it."""
    try:
        return Raw(await result)
    except BackendError as refused:
        return _failed(refused)


async def passed_resource(result: Awaitable[Params]) -> Raw:
    """Give what was read as a tool can carry it: each part of it as an embedded resource."""
    try:
        read = await result
    except BackendError as refused:
        return _failed(refused)
    contents: Any = read.get("contents")
    every = cast("list[Any]", contents) if isinstance(contents, list) else []
    rest = {name: value for name, value in read.items() if name == "_meta"}
    return Raw({"content": [{"type": "resource", "resource": one} for one in every], **rest})


async def passed_prompt(result: Awaitable[Params]) -> Raw:
    """Give a prompt as a tool can carry it: whole as structure, and the same as text."""
    try:
        got = await result
    except BackendError as refused:
        return _failed(refused)
    rest = {name: value for name, value in got.items() if name == "_meta"}
    return Raw({**_both({name: got[name] for name in got if name != "_meta"}), **rest})


def _failed(refused: BackendError) -> Raw:
    return Raw({**_both({"error": refused.error}), "isError": True})


def _both(content: Params) -> Params:
    """Show it in both forms, as a client shows its model the one or the other."""
    text = json.dumps(content, ensure_ascii=False)
    return {"content": [{"type": "text", "text": text}], "structuredContent": content}
