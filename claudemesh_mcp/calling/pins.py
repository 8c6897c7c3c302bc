"""Which tools of others this home's human has approved, and the definitions they had then.

``toolcalls.py`` asks it before a call; the command line and an answered question approve or deny.
The file is shared by all sessions of the home. A definition that is another than it was is not
called until somebody approves it as it is now; what was approved before stays so, since two
sessions of a member may offer servers of one name.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import unified_diff
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

from claudemesh_mcp.calling.directory import Definition, Offered
from claudemesh_mcp.home import atomic_write, file_lock, private_folder, read_private
from claudemesh_mcp.identity import Identity
from claudemesh_wire.errors import Invalid
from claudemesh_wire.mcp_servers import definition_digest

_VERSION: Final = 1
_MOST_DIFF_LINES: Final = 80
_MOST_DEFINITIONS: Final = 8


class Verdict(StrEnum):
    """What the human said of a tool."""

    APPROVED = "approved"
    DENIED = "denied"
    UNASKED = "unasked"
    """Nothing yet; it was pinned because it needs no approval."""


class Standing(StrEnum):
    """What a call of a tool meets."""

    ALLOWED = "allowed"
    NEEDS_APPROVAL = "needs_approval"
    DENIED = "denied"
    CHANGED = "definition_changed"


@dataclass(frozen=True)
class Pin:
    """A tool as it was when it was first used, or last approved."""

    digest: str
    definition: Definition
    verdict: Verdict
    at_ms: int


class Pins:
    """The pins of one home in one mesh.

    Args:
        identity: Who the home is there.
    """

    def __init__(self, identity: Identity) -> None:
        self.mesh = identity.mesh
        self._own = identity.member
        self._folder: Path = identity.home.meshes / identity.mesh
        self.path: Path = self._folder / "tools.json"

    def standing(self, offered: Offered, tool: Definition, now_ms: int) -> Standing:
        """Say what a call meets, and pin a tool that is used first and needs no approval.

        Raises:
            MeshError: the file can't be read or written.
        """
        pins = _kept(self._read(), offered, tool)
        found = self._standing(offered, tool, pins)
        if not pins and found is Standing.ALLOWED:
            self.note(offered, tool, Verdict.UNASKED, now_ms)
        return found

    def standings(self, offers: Iterable[Offered]) -> list[dict[str, Standing]]:
        """Say for each server what a call of its tools would meet, and pin none; raises as above.

        Returns:
            For each server, by the tools' names.
        """
        kept = self._read()
        return [
            {tool["name"]: self._standing(one, tool, _kept(kept, one, tool)) for tool in one.tools}
            for one in offers
        ]

    def _standing(self, offered: Offered, tool: Definition, pins: Sequence[Pin]) -> Standing:
        is_asked = needs_approval(offered, tool, self._own)
        if not pins:
            is_asked |= is_new_owner(offered, self._own)
            return Standing.NEEDS_APPROVAL if is_asked else Standing.ALLOWED
        digest = definition_digest(tool)
        pin = next((one for one in pins if one.digest == digest), None)
        if pin is None:
            return Standing.CHANGED
        if pin.verdict is Verdict.DENIED:
            return Standing.DENIED
        is_open = pin.verdict is Verdict.UNASKED and is_asked
        return Standing.NEEDS_APPROVAL if is_open else Standing.ALLOWED

    def note(self, offered: Offered, tool: Definition, verdict: Verdict, now_ms: int) -> None:
        """Keep what was said of a tool, as it is defined now."""
        made = Pin(definition_digest(tool), tool, verdict, now_ms)
        with file_lock(private_folder(self._folder) / "tools.lock"):
            pins = self._read()
            name = key(offered, tool)
            others = [one for one in pins.get(name, []) if one.digest != made.digest]
            pins[name] = [*others, made][-_MOST_DEFINITIONS:]
            told = {name: [asdict(pin) for pin in kept] for name, kept in pins.items()}
            atomic_write(self.path, json.dumps({"v": _VERSION, "tools": told}).encode())

    def diff(self, offered: Offered, tool: Definition) -> str:
        """Show how a definition differs from the one pinned last; nothing if there is none."""
        pins = _kept(self._read(), offered, tool)
        if not pins:
            return ""
        lines = unified_diff(
            _lines(pins[-1].definition), _lines(tool), "before", "now", lineterm=""
        )
        return "\n".join(list(lines)[:_MOST_DIFF_LINES])

    def kept(self) -> Mapping[str, Sequence[Pin]]:
        """Give all pins, by member, server and tool; the last of each was said last."""
        return self._read()

    def _read(self) -> dict[str, list[Pin]]:
        data = read_private(self.path)
        if data is None:
            return {}
        try:
            fields: Any = json.loads(data)
            if fields["v"] != _VERSION:
                raise ValueError("another version")
            tools: dict[str, list[Any]] = fields["tools"]
            return {name: [_pin(told) for told in kept] for name, kept in tools.items()}
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise Invalid(
                f"{self.path} is damaged; until it is mended no tool of others is called.",
                "Restore it from a backup, or remove it and approve again.",
                code="tools_damaged",
            ) from error


def key(offered: Offered, tool: Definition) -> str:
    """Name a tool by whose it is: a handle may go to another peer, a member's id never."""
    return f"{offered.owners[0]}/{offered.name}/{tool['name']}"


def _kept(pins: Mapping[str, Sequence[Pin]], offered: Offered, tool: Definition) -> Sequence[Pin]:
    """Give the pins of a tool, and those of the same definition with who lets it be provided."""
    own, *others = (f"{owner}/{offered.name}/{tool['name']}" for owner in offered.owners)
    digest = definition_digest(tool)
    theirs = [pin for name in others for pin in pins.get(name, ()) if pin.digest == digest]
    return [*pins.get(own, ()), *theirs]


def needs_approval(offered: Offered, tool: Definition, own: str) -> bool:
    """Tell whether a human has to say yes: of another member what may change something."""
    hints: Any = tool.get("annotations")
    is_read_only = isinstance(hints, dict) and cast("Definition", hints).get("readOnlyHint") is True
    return offered.member.id != own and not is_read_only


def is_new_owner(offered: Offered, own: str) -> bool:
    """Tell whether a human has to say yes to a first use even of what only reads.

    Whoever offers what another does, and lets that one provide it, is the owner of both: who meant
    the other by their name is to hear of it before anything is sent to a member that is new.
    """
    return bool(offered.shared_with) and offered.member.id != own


def _pin(told: Mapping[str, Any]) -> Pin:
    pin = Pin(**told)
    return replace(pin, verdict=Verdict(pin.verdict))


def _lines(definition: Definition) -> list[str]:
    return json.dumps(definition, indent=1, sort_keys=True, ensure_ascii=False).splitlines()
