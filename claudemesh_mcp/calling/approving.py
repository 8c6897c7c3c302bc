"""Lets a call pass, or asks the human first: in the calling session, or by the command line.

The tools of the model ask it before ``toolcalls.py`` calls anything. Nothing that a model can call
approves a tool; what it is shown of a refusal is the command that its human may run.
"""

import shlex
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import anyio
import anyio.to_thread

from claudemesh_mcp.calling.directory import Definition, Offered
from claudemesh_mcp.calling.pins import Pins, Standing, Verdict
from claudemesh_mcp.cleaning import clean_line
from claudemesh_wire.errors import Forbidden, MeshError

ELICIT: Final = "elicitation/create"
_LONGEST_TOLD: Final = 300
_LOOK_S: Final = 0.5
_MOST_DIFF: Final = 1500
ALLOW: Final = "allow"
# To be filled in: a dialog without fields stands on its "Accept", where the Enter of a prompt that
# is being typed would answer for the human.
_FORM: Final = {
    "type": "object",
    "properties": {ALLOW: {"type": "boolean", "title": "Let it be called"}},
    "required": [ALLOW],
}

Ask = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Asks the client of the calling session, and gives its result; raises ``MeshError``."""


class Approving:
    """What stands between a call and a tool of somebody else.

    Args:
        pins: What was approved.
        now_ms: The time.
    """

    def __init__(self, pins: Pins, now_ms: Callable[[], int]) -> None:
        self._pins = pins
        self._now_ms = now_ms

    async def check(self, offered: Offered, tool: Definition, ask: Ask | None) -> None:
        """Let a call of this tool pass, asking the human if that is needed.

        Args:
            offered: Whose it is.
            tool: Its definition as it is now.
            ask: The way to the human; ``None`` where the client has none.

        Raises:
            Forbidden: ``needs_approval``, ``definition_changed`` or ``denied``.
        """
        standing = await self._on_disk(self._pins.standing, offered, tool, self._now_ms())
        if standing is Standing.ALLOWED:
            return
        if standing is Standing.DENIED or ask is None:
            raise await self._refusal(offered, tool, standing)
        answer = await self._answered(offered, tool, standing, ask)
        if answer is None:
            raise await self._refusal(offered, tool, standing)
        await self._on_disk(self._pins.note, offered, tool, answer, self._now_ms())
        if answer is Verdict.DENIED:
            raise await self._refusal(offered, tool, Standing.DENIED)

    async def _answered(
        self, offered: Offered, tool: Definition, standing: Standing, ask: Ask
    ) -> Verdict | None:
        """Wait for the human's word: to the client's question or, meanwhile, by the command."""
        found = list[Verdict | None]()
        async with anyio.create_task_group() as tasks:

            async def by_client() -> None:
                found.append(await self._asked(offered, tool, standing, ask))
                tasks.cancel_scope.cancel()

            async def by_command() -> None:
                while True:
                    verdict = await self._decided(offered, tool)
                    if verdict is not None:
                        break
                    await anyio.sleep(_LOOK_S)
                found.append(verdict)
                tasks.cancel_scope.cancel()

            tasks.start_soon(by_client)
            tasks.start_soon(by_command)
        return found[0]

    async def _decided(self, offered: Offered, tool: Definition) -> Verdict | None:
        try:
            [standings] = await self._on_disk(self._pins.standings, [offered])
        except MeshError:
            return None  # What can't be read has decided nothing; the human may still answer.
        verdicts = {Standing.ALLOWED: Verdict.APPROVED, Standing.DENIED: Verdict.DENIED}
        return verdicts.get(standings[tool["name"]])

    async def _asked(
        self, offered: Offered, tool: Definition, standing: Standing, ask: Ask
    ) -> Verdict | None:
        """Ask the human; nothing is what they neither allow nor deny."""
        question: dict[str, Any] = {
            "mode": "form",
            "message": await self._question(offered, tool, standing),
            "requestedSchema": _FORM,
        }
        try:
            answer = await ask(ELICIT, question)
        except MeshError:
            return None
        if answer.get("action") == "decline":
            return Verdict.DENIED
        content: Any = answer.get("content")
        is_allowed = isinstance(content, dict) and cast("Any", content).get(ALLOW) is True
        return Verdict.APPROVED if answer.get("action") == "accept" and is_allowed else None

    async def _question(self, offered: Offered, tool: Definition, standing: Standing) -> str:
        name, whose = _told(tool["name"]), f"{offered.member.name} ({offered.full_name})"
        if offered.shared_with:
            whose += f", which {', '.join(offered.shared_with)} may answer too"
        if standing is Standing.CHANGED:
            diff = await self._diff(offered, tool)
            return (
                f"The tool {name} of {whose} is not what it was when you approved it. Call it from"
                f" now on as it is now?\n\n{diff}"
            )
        what = _told(str(tool.get("description", "")))
        return (
            f"This session wants to call the tool {name} of {whose}, who is another member and sees"
            f" what is sent to it. It calls itself: {what or 'nothing'}\n\nLet this tool be called"
            " from this home from now on?"
        )

    async def _refusal(self, offered: Offered, tool: Definition, standing: Standing) -> Forbidden:
        name = _told(tool["name"])
        # Quoted: the name is a stranger's, and the line is made to be put into a shell.
        words = shlex.join((offered.full_name, name))
        command = f"claudemesh --mesh {self._pins.mesh} mcp-server approve {words}"
        facts = {
            Standing.NEEDS_APPROVAL: f"{name} of {offered.full_name} was not approved yet.",
            Standing.DENIED: f"{name} of {offered.full_name} was denied.",
            Standing.CHANGED: f"{name} of {offered.full_name} is not what was approved.",
        }
        is_changed = standing is Standing.CHANGED
        details = {"diff": await self._diff(offered, tool)} if is_changed else None
        hint = (
            "This session's user can approve it as it is now, in a terminal of their own and not in"
            f" this client: {command}"
        )
        return Forbidden(facts[standing], hint, code=standing.value, details=details)

    async def _diff(self, offered: Offered, tool: Definition) -> str:
        diff: str = await self._on_disk(self._pins.diff, offered, tool)
        return "\n".join(clean_line(line).text for line in diff.splitlines())[:_MOST_DIFF]

    async def _on_disk(self, act: Callable[..., Any], *given: Any) -> Any:
        return await anyio.to_thread.run_sync(act, *given)


def _told(text: str) -> str:
    """Give a stranger's text as one line that can't pass for anything else."""
    line = clean_line(text).text
    return line if len(line) <= _LONGEST_TOLD else f"{line[:_LONGEST_TOLD]}…"
