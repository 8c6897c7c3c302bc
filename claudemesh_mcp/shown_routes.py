"""Says by which routes messages reach the model of a session, and how much was pushed by them.

``shown_mesh.py`` asks it for ``mesh_info``; what it says was noted in the peer's file by hooks,
monitor and server.
"""

import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from claudemesh_mcp.routes import bells, facts
from claudemesh_mcp.routes.facts import Health, Mode
from claudemesh_mcp.routes.processes import Living
from claudemesh_mcp.routes.waking import pushed_since

State = Literal["works", "untested", "silent", "off"]
TOOL: Final = "tool"
_STATES: Final[dict[Health, State]] = {
    Health.REACHES: "works",
    Health.UNTRIED: "untested",
    Health.SILENT: "silent",
}


def states(sql: sqlite3.Connection, data: Path, now_ms: int) -> dict[str, State]:
    """Give each route with what is known of it.

    Args:
        sql: The peer file.
        data: The home.
        now_ms: The time.
    """
    client = Living.read(facts.get(sql, facts.CLIENT))
    alive = bells.living(sql, data, client.pid) if client is not None else set[str]()
    found: dict[str, State] = {TOOL: "works", bells.HOOKS: _hooks(sql)}
    is_off = facts.mode(sql) is not Mode.PUSH
    for route in bells.ORDER:
        is_there = route in alive and not is_off
        found[route] = _STATES[bells.health(sql, route, now_ms)] if is_there else "off"
    return found


def _hooks(sql: sqlite3.Connection) -> State:
    if facts.mode(sql) is Mode.OFF:
        return "off"
    return _STATES[facts.hooks(sql)]


def pushed_today(sql: sqlite3.Connection, now_ms: int) -> dict[str, int]:
    """Give the tokens that were pushed since midnight here, by the sender's handle."""
    now = datetime.fromtimestamp(now_ms / 1000).astimezone()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return pushed_since(sql, int(midnight.timestamp() * 1000))
