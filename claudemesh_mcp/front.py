"""What `claudemesh mcp` serves before anything slow is imported: an offer, and a session to come.

``__main__.py`` opens it with its flags and hands it to ``stdio.py``. Once `initialize` has been
answered the real session is imported and takes over; if the settings make no sense, or switch
claudemesh off, every call says so.
"""

import asyncio
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import ModuleType

from claudemesh_mcp.answers import Raw
from claudemesh_mcp.behind import Session
from claudemesh_mcp.calls import CallContext, Notify
from claudemesh_mcp.config import Settings, keep_plugins_out
from claudemesh_mcp.jsonrpc import Json
from claudemesh_mcp.offer import Offer, offer_for, switched_off
from claudemesh_wire.errors import MeshError, Unavailable


def open_front(flags: Mapping[str, object]) -> tuple[Session, Offer]:
    """Give what one client is served with.

    Args:
        flags: Settings of the command line, by the name of their field.
    """
    try:
        settings = Settings.load(flags)
        offer = offer_for(settings)
    except MeshError as wrong:
        # A server that dies is shown to the model without a reason; one that lives can say it.
        return RefusingSession(wrong), Offer()
    if settings.off:
        return RefusingSession(off()), switched_off()
    return ComingSession(settings), offer


def off() -> Unavailable:
    """Say that claudemesh takes no part in this session: a variable or a file says so."""
    return Unavailable(
        "claudemesh is switched off in this session.",
        "Start the session with CLAUDEMESH=on to take part.",
        code="switched_off",
    )


class RefusingSession:
    """A session that answers every call with the same refusal.

    Args:
        refusal: Why.
    """

    def __init__(self, refusal: MeshError) -> None:
        self._refusal = refusal

    async def start(self) -> None:
        """Do nothing."""

    def extra_tools(self) -> list[Json]:
        """Give none."""
        return []

    async def call(self, name: str, arguments: Json, context: CallContext) -> Json:
        """Refuse.

        Raises:
            MeshError: always.
        """
        del name, arguments, context
        raise self._refusal

    def initialized(self, notify: Notify) -> None:
        """Do nothing: there is nothing to tell."""

    async def footer(self, name: str) -> Json:
        """Give nothing: nothing can arrive."""
        del name
        return {}

    def evidence(self, tokens: Iterable[str]) -> None:
        """Do nothing: no row was handed out."""

    def withdrawn(self, tokens: Iterable[str]) -> None:
        """Do nothing: no row was handed out."""

    async def close(self) -> None:
        """Do nothing."""


class ComingSession:
    """The session of these settings, imported when it starts.

    Args:
        settings: How this process was set up.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: Session | None = None
        self._came = asyncio.Event()
        self._notify: Notify | None = None

    async def start(self) -> None:
        """Import the session, and be it."""
        try:
            import anyio.to_thread

            # In a thread, so that `tools/list` is answered meanwhile; one that the session goes on
            # to use, where that of `asyncio.to_thread` would stay for nothing.
            module = await anyio.to_thread.run_sync(_import_session, self._settings)
            session = module.MeshSession(self._settings)
            self._session = session
            if self._notify is not None:
                session.initialized(self._notify)
        finally:
            self._came.set()
        await session.start()

    def extra_tools(self) -> list[Json]:
        """Give the tools that the session has besides; none before it has come."""
        return self._session.extra_tools() if self._session else []

    async def call(self, name: str, arguments: Json, context: CallContext) -> Json | Raw:
        """Run a tool.

        Raises:
            MeshError: it was refused.
        """
        await self._came.wait()
        if self._session is None:
            hint = "Start the session again; its log says more."
            raise Unavailable("This session could not start, or is closing.", hint)
        return await self._session.call(name, arguments, context)

    def initialized(self, notify: Notify) -> None:
        """Hand on how the client is notified, now or when the session has come."""
        self._notify = notify
        if self._session:
            self._session.initialized(notify)

    async def footer(self, name: str) -> Json:
        """Give what the result of a tool says of messages that wait."""
        return await self._session.footer(name) if self._session else {}

    def evidence(self, tokens: Iterable[str]) -> None:
        """Hand on that these rows were shown."""
        if self._session:
            self._session.evidence(tokens)

    def withdrawn(self, tokens: Iterable[str]) -> None:
        """Hand on that these rows may not have been shown."""
        if self._session:
            self._session.withdrawn(tokens)

    async def close(self) -> None:
        """Close the session, if it has come."""
        self._came.set()
        if self._session:
            await self._session.close()


def _import_session(settings: Settings) -> ModuleType:
    from claudemesh_mcp.deferral import defer_metadata
    from claudemesh_mcp.logs import log_to_file, log_to_stderr

    keep_plugins_out()
    defer_metadata()
    log_to_stderr(settings.log_level)
    log_to_file(settings.paths().logs)
    import_module("claudemesh_mcp.sdk")
    return import_module("claudemesh_mcp.session")
