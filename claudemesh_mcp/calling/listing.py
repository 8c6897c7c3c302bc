"""Lists what is offered for a model or a human: found by words, cleaned, and never too long.

``desk.py`` has it list what ``directory.py`` believes and what ``pins.py`` knows of it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from claudemesh_mcp.calling.directory import Definition, Offered, find
from claudemesh_mcp.calling.pins import Standing
from claudemesh_mcp.cleaning import clean_line
from claudemesh_mcp.results import Result, rfc3339
from claudemesh_mcp.toolresults import (
    PromptRow,
    ProviderRow,
    ResourceRow,
    ServerRow,
    ToolRow,
    ToolsResult,
)
from claudemesh_wire.errors import Conflict

MOST_BYTES: Final = 40_000
"""About what a client shows without putting it into a file."""
_MOST_SCHEMA_BYTES: Final = 16_000
_SHORT: Final = 200
_LONG: Final = 2000
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[^\W\d_a-zA-Z]+")
Hint = Literal["read_only", "destructive", "idempotent", "open_world"]
_HINTS: Final[dict[str, Hint]] = {
    "readOnlyHint": "read_only",
    "destructiveHint": "destructive",
    "idempotentHint": "idempotent",
    "openWorldHint": "open_world",
}


@dataclass(frozen=True)
class Service:
    """One server, whoever runs it.

    Args:
        name: By which it is called.
        providers: Who run it, those that are here first.
        own: Whether it is this member's.
        standings: What a call of each of its tools meets.
    """

    name: str
    providers: Sequence[Offered]
    own: bool
    standings: Mapping[str, Standing]


def services(offers: Iterable[Offered]) -> list[tuple[str, list[Offered]]]:
    """Put the providers of one service together; gives the name by which each is called."""
    every = sorted(offers, key=lambda one: (not one.online, one.handle, one.name))
    found: list[tuple[str, list[Offered]]] = []
    for name in dict.fromkeys(one.name for one in every):
        meant = [one for one in every if one.name == name]
        try:
            found.append((name, find(meant, name)))
        except Conflict:
            apart: dict[tuple[str, ...], list[Offered]] = {}
            for one in meant:
                apart.setdefault((one.member.id, *one.service[1:]), []).append(one)
            found += [(one[0].full_name, one) for one in apart.values()]
    return found


@dataclass
class _Room:
    """How much may still be shown."""

    left: int = MOST_BYTES
    left_out: int = 0

    def take(self, row: Result) -> bool:
        """Tell whether a row is shown."""
        size = len(json.dumps(row.model_dump(mode="json"), ensure_ascii=False).encode())
        if size > self.left:
            self.left_out += 1
            return False
        self.left -= size
        return True


def listed(services: Iterable[Service], query: str, *, schemas: bool) -> ToolsResult:
    """List the services that fit.

    Args:
        services: What is offered.
        query: Words that must all be there or begin one that is, in a name or a description.
        schemas: Say too how each tool is called.
    """
    wanted, room = _words(query), _Room()
    found = [(one, _fitting(one, wanted)) for one in services]
    fitting = [(one, best, items) for one, (best, items) in found if items or not wanted]
    fitting.sort(key=lambda found: -found[1])
    rows = [_row(one, items, room, schemas=schemas) for one, _, items in fitting]
    shown = [row for row in rows if row is not None]
    return ToolsResult(servers=shown, more=room.left_out)


_Item = tuple[str, Definition]


def _fitting(service: Service, wanted: Sequence[str]) -> tuple[int, list[_Item]]:
    """Give what fits, the best first, and how well the best does."""
    said = service.providers[0].registration
    about = _words(f"{service.name} {said.fields.name} {said.fields.description}")
    about += _words(" ".join(one.handle for one in service.providers))
    scored = [
        (score, (kind, one))
        for kind, every in {**said.definitions, "tools": service.providers[0].tools}.items()
        for one in every
        if (score := _score(wanted, _words(_name(one)), about + _words(_prose(one)))) is not None
    ]
    scored.sort(key=lambda one: -one[0])
    return (scored[0][0] if scored else 0), [item for _, item in scored]


def _score(wanted: Sequence[str], name: Sequence[str], rest: Sequence[str]) -> int | None:
    """Say how well something fits; nothing if it does not."""
    every = {*name, *rest}
    if not all(any(one.startswith(word) for one in every) for word in wanted):
        return None
    return 2 * sum(word in name for word in wanted) + sum(word in every for word in wanted)


def _row(
    service: Service, items: Sequence[_Item], room: _Room, *, schemas: bool
) -> ServerRow | None:
    first = service.providers[0]
    row = ServerRow(
        server=service.name,
        member=first.member.name,
        own=service.own,
        description=_line(first.registration.fields.description, _SHORT) or None,
        providers=[_provider(one) for one in service.providers],
        tools=[],
    )
    if not room.take(row):
        room.left_out += len(items) - 1
        return None
    resources, prompts = list[ResourceRow](), list[PromptRow]()
    for kind, one in items:
        if kind == "tools":
            tool = _tool(one, service.standings[one["name"]], schemas=schemas)
            row.tools += [tool] if room.take(tool) else []
        elif kind == "prompts":
            prompt = _prompt(one)
            prompts += [prompt] if room.take(prompt) else []
        else:
            resource = _resource(one)
            resources += [resource] if room.take(resource) else []
    row.resources, row.prompts = resources or None, prompts or None
    return row


def _provider(one: Offered) -> ProviderRow:
    return ProviderRow(
        handle=one.handle, host=one.host, online=one.online, since=rfc3339(one.since_ms)
    )


def _tool(one: Definition, standing: Standing, *, schemas: bool) -> ToolRow:
    row = ToolRow(
        name=one["name"],
        description=_line(one.get("description"), _LONG if schemas else _SHORT) or None,
        says=says(one) or None,
        approval=standing.value,
    )
    schema = one.get("inputSchema")
    if schemas and isinstance(schema, dict):
        size = len(json.dumps(schema, ensure_ascii=False).encode("utf-8", "replace"))
        if size <= _MOST_SCHEMA_BYTES:
            row.input_schema = cast("Definition", schema)
        else:
            row.schema_bytes = size
    return row


def _resource(one: Definition) -> ResourceRow:
    uri = one.get("uri", one.get("uriTemplate"))
    return ResourceRow(uri=_line(uri, _LONG), name=_line(one.get("name"), _SHORT) or None)


def _prompt(one: Definition) -> PromptRow:
    given: Any = one.get("arguments")
    every = cast("list[Any]", given) if isinstance(given, list) else []
    arguments = [_name(argument) for argument in every]
    return PromptRow(
        name=_name(one),
        description=_line(one.get("description"), _SHORT) or None,
        arguments=arguments or None,
    )


def says(tool: Definition) -> list[Hint]:
    """Give what a tool says of itself for the caution of others; it may not be so."""
    hints: Any = tool.get("annotations")
    told = cast("Definition", hints) if isinstance(hints, dict) else {}
    return [word for name, word in _HINTS.items() if told.get(name) is True]


def _name(one: Any) -> str:
    return _line(cast("Definition", one).get("name"), _SHORT) if isinstance(one, dict) else ""


def _prose(one: Definition) -> str:
    return " ".join(str(one.get(key, "")) for key in ("title", "description", "uri"))[:_LONG]


def _line(text: Any, most: int) -> str:
    """Give a stranger's text on one line, cut; nothing if it is none."""
    line = clean_line(text).text if isinstance(text, str) else ""
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]
