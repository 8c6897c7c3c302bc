"""The tools of others that a session shows its client as its own, under names of their own.

``session.py`` has one ``Imports``, which outlives its connections, and lists and calls through it;
``tools/mesh_tools.py`` changes it. What only a call needs is imported with the first of them.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from claudemesh_mcp.cleaning import clean_line
from claudemesh_wire.errors import Conflict, NotFound, TooMuch

if TYPE_CHECKING:
    from claudemesh_mcp.calling.directory import Offered
    from claudemesh_mcp.toolresults import ImportsResult

LONGEST_NAME: Final = 35
"""Clients take 64 characters, of which `mcp__plugin_claudemesh_mesh__` has 29."""
MOST: Final = 64
MOST_BYTES: Final = 256 * 1024
READ_S: Final = 2.0
"""How long an import waits for the client to read the list again."""
_BETWEEN: Final = "__"
_HASH: Final = 8
_LEAST_OF_TOOL: Final = 16
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_-]")
_MOST_DESCRIPTION: Final = 1800


@dataclass(frozen=True)
class Imported:
    """A tool of another's server, as it was when it was imported.

    Args:
        name: In this session.
        member: The id of the member whose server it is of.
        member_name: That member's name.
        server: The server's short name.
        full_name: The server's, when it was imported.
        definition: As its server gave it.
    """

    name: str
    member: str
    member_name: str
    server: str
    full_name: str
    definition: dict[str, Any]

    @property
    def tool(self) -> str:
        """Its name at its server."""
        name: str = self.definition["name"]
        return name

    @property
    def whose(self) -> tuple[str, str, str]:
        """What makes it the same tool again: member, server and name there."""
        return self.member, self.server, self.tool

    @property
    def shown(self) -> dict[str, Any]:
        """Its definition as the client gets it: marked with whose it is, else as it came."""
        said = clean_line(str(self.definition.get("description", ""))).text
        mark = f"Tool of {self.member_name} ({self.full_name}), called through the mesh."
        cut = said if len(said) <= _MOST_DESCRIPTION else f"{said[:_MOST_DESCRIPTION]}…"
        title = self.definition.get("title")
        titled = {"title": clean_line(title).text} if isinstance(title, str) else {}
        return {
            **self.definition,
            **titled,
            "name": self.name,
            "description": f"{mark} {cut}".strip(),
        }


def _nobody() -> None:
    """Tell nobody."""


class Imports:
    """The tools that one session has imported."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = _nobody
        """Told once after each change of the list."""
        self._tools: dict[str, Imported] = {}
        self._read = asyncio.Event()
        self._read.set()

    def definitions(self) -> list[dict[str, Any]]:
        """Give the definitions as the client lists them, who has read them by that."""
        self._read.set()
        return [one.shown for one in self._tools.values()]

    async def until_read(self) -> None:
        """Wait until the client has read the list as it is now, but no longer than ``READ_S``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READ_S):
                await self._read.wait()

    def find(self, name: str) -> Imported | None:
        """Give the tool with this name; ``None`` if it is none of these."""
        return self._tools.get(name)

    def add(self, offered: "Offered", tools: Sequence[str] | None) -> "ImportsResult":
        """Import tools of a server, all or none of them; one that is here already is renewed.

        Args:
            offered: The server.
            tools: The tools' names there; ``None`` for all.

        Raises:
            NotFound: ``unknown_tool``.
            Invalid: ``unfit_definition``: a client would refuse it.
            TooMuch: ``too_many_imports``.
        """
        from claudemesh_mcp.calling.fitness import check_definition

        names = [one["name"] for one in offered.tools] if tools is None else dict.fromkeys(tools)
        after = dict(self._tools)
        added: list[str] = []
        for name in names:
            one = self._made(offered, offered.tool(name), after)
            check_definition(one.definition)
            after[one.name] = one
            added.append(one.name)
        size = sum(len(json.dumps(one.shown)) for one in after.values())
        if len(after) > MOST or size > MOST_BYTES:
            raise TooMuch(
                f"A session has at most {MOST} imported tools, of {MOST_BYTES // 1024} KiB in all.",
                "Name the ones that are needed, in tools; call_tool calls any without an import.",
                code="too_many_imports",
            )
        if after != self._tools:
            self._tools = after
            self._has_changed()
        return self._result(added)

    def drop(self, server: str, tools: Sequence[str] | None) -> "ImportsResult":
        """Take tools of a server out of the list.

        Args:
            server: ``handle/name``, or the short name.
            tools: The tools' names, there or here; ``None`` for all.

        Raises:
            NotFound: ``not_imported``.
        """
        meant = [one for one in self._tools.values() if server in {one.server, one.full_name}]
        if tools is not None:
            meant = [one for one in meant if not {one.tool, one.name}.isdisjoint(tools)]
        if not meant:
            raise NotFound(
                f"No such tool of {server[:80]!a} is imported.",
                f"There are: {', '.join(self._tools) or 'none'}."[:1000],
                code="not_imported",
            )
        for one in meant:
            del self._tools[one.name]
        self._has_changed()
        return self._result([one.name for one in meant])

    def _has_changed(self) -> None:
        self._read.clear()
        self.changed()

    def _made(
        self, offered: "Offered", definition: dict[str, Any], taken: dict[str, Imported]
    ) -> Imported:
        whose = (offered.owners[0], offered.name, definition["name"])
        held = [one.name for one in taken.values() if one.whose == whose]
        free = (name for name in names_for(*whose) if name not in taken)
        name = held[0] if held else next(free, "")
        if not name:
            raise Conflict(
                "Two imported tools would have one name.",
                "Drop the other one first (drop_tools), or call this one with call_tool.",
                code="name_taken",
            )
        owner, member = offered.owners[0], offered.member.name
        return Imported(name, owner, member, offered.name, offered.full_name, definition)

    def _result(self, changed: list[str]) -> "ImportsResult":
        from claudemesh_mcp.toolresults import ImportedRow, ImportsResult

        rows = [
            ImportedRow(name=one.name, server=one.full_name, tool=one.tool)
            for one in self._tools.values()
        ]
        return ImportsResult(changed=changed, imported=rows)


def names_for(member: str, server: str, tool: str) -> Iterable[str]:
    """Give the names that a tool may have in a session, the one it is to have first.

    That is ``server__tool`` where a client takes it; else, and where that is another's already, it
    is made short and plain and ends with a hash of whose tool it is.
    """
    plain = _STRANGE.sub("_", f"{server}{_BETWEEN}{tool}")
    if plain == f"{server}{_BETWEEN}{tool}" and len(plain) <= LONGEST_NAME:
        yield plain
    digest = hashlib.sha256(json.dumps([member, server, tool]).encode()).hexdigest()[:_HASH]
    room = LONGEST_NAME - len(_BETWEEN) - 1 - _HASH
    of_tool = _STRANGE.sub("_", tool)[: max(room - len(server), _LEAST_OF_TOOL)]
    yield f"{server[: room - len(of_tool)]}{_BETWEEN}{of_tool}_{digest}"
