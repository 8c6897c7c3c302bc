"""A session whose tools pass on what another MCP server says, for tests of the front."""

import json
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

from claudemesh_mcp.answers import Raw
from claudemesh_mcp.calls import CallContext
from claudemesh_mcp.offer import LIST_CHANGED, Offer
from claudemesh_wire.errors import MeshError
from tests.support.mcp_client import Desk

ASKED: Final = "elicitation/create"
OBJECT: Final = {"type": "object"}
NAMES: Final = (
    "ask",
    "ask_behind",
    "ask_often",
    "fetch",
    "install",
    "meta",
    "raw",
    "report",
    "take",
    "wait",
)
OFFER: Final = Offer(
    "About it.",
    json.dumps({"tools": [{"name": name, "inputSchema": OBJECT} for name in NAMES]}).encode(),
)


class Relay(Desk):
    """A desk that answers, asks and tells as another server would have it."""

    def __init__(self) -> None:
        super().__init__()
        self.extra: list[dict[str, Any]] = []
        self.behind = anyio.Event()
        self.refusals: list[str] = []
        self.context = CallContext()
        self.foot = {"waiting": {"now": 1}}

    async def start(self) -> None:
        """Ask for a call from elsewhere, when that call says so."""
        self.started.set()
        await self.behind.wait()
        await self.try_to_ask(self.context)
        await self.try_to_ask(self.context)

    async def try_to_ask(self, context: CallContext) -> None:
        try:
            await context.ask(ASKED, {"message": "May it?"}, 60)
        except MeshError as refused:
            self.refusals.append(refused.code)

    def extra_tools(self) -> list[dict[str, Any]]:
        return list(self.extra)

    async def call(self, name: str, arguments: dict[str, Any], context: CallContext) -> Any:
        if name in {one["name"] for one in self.extra} - set(NAMES):
            return Raw({"content": [], "structuredContent": {"ran": name, "with": arguments}})
        return await super().call(name, arguments, context)

    async def raw(self, context: CallContext, result: dict[str, Any], row: str = "") -> Raw:
        context.hands_out([row] if row else [])
        return Raw(result)

    async def fetch(self, _context: CallContext, what: str) -> Raw:
        """Give a result that no client could send the making of."""
        deep: Any = "bottom"
        for _ in range(500):
            deep = [deep]
        things: dict[str, Any] = {
            "5 MB": "x" * 4_999_999 + "é",
            "depth": deep,
            "infinity": float("inf"),
        }
        return Raw({"content": [{"type": "text", "text": what}], "thing": things[what]})

    async def report(
        self, context: CallContext, progress: dict[str, Any], logs: list[dict[str, Any]]
    ) -> Raw:
        context.progress_raw(progress)
        for one in logs:
            context.log_raw(one)
        return Raw({"content": []})

    async def meta(self, context: CallContext) -> dict[str, Any]:
        return context.meta

    async def ask(
        self,
        context: CallContext,
        params: dict[str, Any],
        method: str = ASKED,
        timeout_s: float = 60,
    ) -> Raw:
        answer = await context.ask(method, params, timeout_s)
        return Raw({"content": [], "structuredContent": answer})

    async def ask_behind(self, context: CallContext) -> Raw:
        """Be over before the question is answered."""
        self.context = context
        self.behind.set()
        await checkpoint()
        return Raw({"content": []})

    async def ask_often(self, context: CallContext, times: int) -> Raw:
        async with anyio.create_task_group() as tasks:
            for _ in range(times):
                tasks.start_soon(self.try_to_ask, context)
            while not self.refusals:
                await checkpoint()
            tasks.cancel_scope.cancel()
        return Raw({"content": []})

    async def install(self, _context: CallContext, names: list[str]) -> Raw:
        assert self.notify
        for name in names:
            self.extra.append({"name": name, "inputSchema": OBJECT, "_meta": {"x": [1.5]}})
            self.notify(LIST_CHANGED, {})
        return Raw({"content": []})
