"""Calls of a kept server as they come over lines: who asks, and what is told meanwhile.

``keeping.py`` makes one ``Hooks`` of the backend out of those of a line for each call that
``serving.py`` lets through.
"""

from typing import Any, Final, cast

from claudemesh_mcp.calling.links import Hooks as LineHooks
from claudemesh_mcp.hosting.era import LOG_LEVEL_KEY
from claudemesh_mcp.hosting.flights import Hooks, Raw
from claudemesh_mcp.hosting.serving import CALLER

_NAMED: Final = "progressToken"


def wanting_news(params: Raw) -> Raw:
    """Give params that ask the server for progress and log lines.

    A line carries no token: what comes goes to the call, and whoever called knows what it wants.
    """
    return {**params, "_meta": {**_meta_of(params), _NAMED: 0, LOG_LEVEL_KEY: "info"}}


def hooks_for(params: Raw, hooks: LineHooks) -> Hooks:
    """Give the hooks of a call that came over a line."""

    async def progress(told: Raw) -> None:
        hooks.progress({name: value for name, value in told.items() if name != _NAMED})

    async def log(told: Raw) -> None:
        hooks.log(told)

    return Hooks(progress, log, hooks.ask, caller=_peer_of(_meta_of(params).get(CALLER)))


def _meta_of(params: Raw) -> Raw:
    meta = params.get("_meta")
    return cast("Raw", meta) if isinstance(meta, dict) else {}


def _peer_of(caller: Any) -> str:
    return str(cast("Raw", caller).get("peer", "")) if isinstance(caller, dict) else ""
