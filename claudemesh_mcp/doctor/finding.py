"""What a check of ``claudemesh doctor`` finds, and what it is given to look at.

The modules beside it hold the checks; ``doctor/__init__.py`` lists and runs them.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio.to_thread

from claudemesh_mcp.config import Paths, Settings

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh
    from claudemesh_wire.meshes import MeshFacts

R = TypeVar("R")
LEAST_FREE_BYTES: Final = 100 * 1024 * 1024


class State(StrEnum):
    """How something was found."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Args:
        state: How it is.
        message: What was found, in a sentence.
        fix: One command or sentence that puts it right; empty when nothing is to be done.
        name: Of the check; set by whoever runs it.
        repair: Puts it right, where that can do no harm; says what it did.
    """

    state: State
    message: str
    fix: str = ""
    name: str = ""
    repair: "Callable[[], str] | None" = None

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {
            "name": self.name,
            "state": str(self.state),
            "message": self.message,
            "fix": self.fix,
        }


def ok(message: str) -> Finding:
    """Say that all is well."""
    return Finding(State.OK, message)


def warn(message: str, fix: str, repair: "Callable[[], str] | None" = None) -> Finding:
    """Say what works, though not as it should."""
    return Finding(State.WARN, message, fix, repair=repair)


def fail(message: str, fix: str, repair: "Callable[[], str] | None" = None) -> Finding:
    """Say what does not work."""
    return Finding(State.FAIL, message, fix, repair=repair)


async def in_thread(act: Callable[[], R]) -> R:
    """Do something slow elsewhere; a check whose time is over does not wait for its end."""
    return await anyio.to_thread.run_sync(act, abandon_on_cancel=True)


def skip(message: str, fix: str = "") -> Finding:
    """Say why there was nothing to look at, and what gives something, where that may be missed."""
    return Finding(State.SKIP, message, fix)


@dataclass(frozen=True, slots=True)
class Told:
    """What a connection to the broker told.

    Args:
        facts: What the broker says of the mesh and of itself.
        url: Where it is.
        clock_off_ms: How far its clock is ahead of this one's.
        unproved: What was detected and refused meanwhile: code and sentence.
    """

    facts: "MeshFacts"
    url: str
    clock_off_ms: int
    unproved: tuple[tuple[str, str], ...]


Connect = Callable[[Settings], AbstractAsyncContextManager["Mesh"]]


@dataclass
class Case:
    """What the checks look at; what one of them learns another may use.

    Args:
        paths: Where this user's state lives.
        load: Reads the settings of this process, and what gave each of them.
        connect: Opens the mesh without starting a broker.
        least_free_bytes: Below this much space one is warned.
        settings: What holds here; ``None`` when that makes no sense.
        told: What the broker told; ``None`` as long as no connection stood.
        origins: What gave each setting that is not left at its default.
    """

    paths: Paths
    load: Callable[[], tuple[Settings, dict[str, str]]]
    connect: Connect
    least_free_bytes: int = LEAST_FREE_BYTES
    settings: Settings | None = None
    told: Told | None = None
    origins: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at.

    Args:
        name: What it is called, in a word or two.
        look: Looks at it.
        limit_s: How long that may take.
    """

    name: str
    look: Callable[[Case], Awaitable[Finding]]
    limit_s: float = 10.0
