"""Reads all that a server offers: every page of its tools, resources, templates and prompts.

``backend.py`` asks for it when a server is registered and when one of its lists has changed.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from claudemesh_mcp.hosting.era import METHOD_NOT_FOUND, Era, NotMcp
from claudemesh_mcp.hosting.flights import Raw
from claudemesh_wire.mcp_servers import unfit

_LISTS: Final = {
    "tools": ("tools", "tools/list", "tools"),
    "resources": ("resources", "resources/list", "resources"),
    "resource_templates": ("resources", "resources/templates/list", "resourceTemplates"),
    "prompts": ("prompts", "prompts/list", "prompts"),
}
_MOST_PAGES: Final = 500

Asking = Callable[[str, Raw], Awaitable[Raw]]
"""Sends a request and gives ``{"result": ...}`` or ``{"error": ...}``."""


async def read_all(era: Era, ask: Asking) -> dict[str, list[Raw]]:
    """Give the definitions as they came, by kind; what it has no capability for is empty.

    Raises:
        NotMcp: a list is none, or has no end.
    """
    return {
        kind: await _list(ask, method, name) if era.can(capability) else []
        for kind, (capability, method, name) in _LISTS.items()
    }


def fit(found: dict[str, list[Raw]]) -> tuple[dict[str, list[Raw]], tuple[str, ...]]:
    """Give what of the definitions can be shown to others, and of the rest why it can't."""
    kept: dict[str, list[Raw]] = {}
    left_out: list[str] = []
    for kind, every in found.items():
        whys = [unfit(kind, one) for one in every]
        kept[kind] = [one for one, why in zip(every, whys, strict=True) if not why]
        left_out += [
            f"{str(one.get('name'))[:80]!a} of its {kind} is left out: {why}."
            for one, why in zip(every, whys, strict=True)
            if why
        ]
    return kept, tuple(left_out)


async def _list(ask: Asking, method: str, name: str) -> list[Raw]:
    found: list[Raw] = []
    cursor: Any = None
    for _ in range(_MOST_PAGES):
        answer = await ask(method, {} if cursor is None else {"cursor": cursor})
        error = answer.get("error")
        if error is not None and error.get("code") == METHOD_NOT_FOUND:
            # Many servers that have resources know of no templates.
            return found
        result = answer.get("result", {})
        page = result.get(name)
        if not isinstance(page, list):
            raise NotMcp(f"{method} gives {error or 'no list'}.")
        found += [cast("Raw", one) for one in cast("list[Any]", page) if isinstance(one, dict)]
        cursor = result.get("nextCursor")
        if cursor is None:
            return found
    raise NotMcp(f"{method} has no end.")
