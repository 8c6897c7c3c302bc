"""Says which peer a process is, from its settings: its anchor, its wishes, what it tells others.

``sdk.py`` asks once, before the peer is opened.
"""

import getpass
import secrets
from pathlib import Path
from typing import Final

from claudemesh_mcp.config import Settings, file_telling
from claudemesh_mcp.identity import PEER_ID
from claudemesh_mcp.peer import HUMAN, Setup
from claudemesh_mcp.project import as_text, find_project, host_label, wished_handle
from claudemesh_wire.address import handle_from
from claudemesh_wire.errors import Unavailable
from claudemesh_wire.handshake import Session

CLAUDE: Final = "claude"
RESIDENT: Final = "resident"


def set_up(
    settings: Settings,
    session_type: str,
    *,
    name: str | None = None,
    resume: str | None = None,
    attach: bool = True,
) -> Setup:
    """Describe the peer to open.

    Args:
        settings: Of this process.
        session_type: ``claude``, ``human``, ``sdk`` …
        name: The handle wished for, before the settings' own.
        resume: The resume id, before the settings' own.
        attach: Whether it is to be present, and not only to ask.

    Raises:
        Invalid: ``bad_handle``.
        Unavailable: ``off``: claudemesh is switched off here.
    """
    if settings.off:
        raise _switched_off(settings)
    folder = settings.project_dir or _present_folder()
    project = find_project(folder)
    wish = name or settings.name
    if wish:
        handles = [wished_handle(wish)]
    elif session_type == HUMAN:
        handles = [handle_from(_user_name(), otherwise=HUMAN)]
    else:
        handles = project.handles()
    session = "" if resume or settings.resume else as_text(settings.session_id or "")
    return Setup(
        settings=settings,
        anchor=_anchor(settings, resume),
        session=Session(
            type=session_type,
            host=as_text(settings.host or host_label())[:80],
            project=project.name[:200],
            cwd=str(project.cwd)[:1000],
            multicast=_is_in_multicast(settings, session_type),
        ),
        handles=tuple(handles),
        folder=str(folder.absolute()),
        claude_session=session,
        may_fork=attach,
    )


def _switched_off(settings: Settings) -> Unavailable:
    file = file_telling("enabled", settings.project_dir)
    if not file:
        return Unavailable(
            "claudemesh is switched off here (CLAUDEMESH=off).",
            "Start without that setting to take part.",
            code="off",
        )
    return Unavailable(
        f"claudemesh is switched off here, by {file}.",
        "Take `enabled` out of that file to take part, or start with CLAUDEMESH=on.",
        code="off",
    )


def _is_in_multicast(settings: Settings, session_type: str) -> bool:
    """Tell whether what goes to a group or to all goes to a session; not if it is one prompt."""
    if settings.multicast is not None:
        return settings.multicast
    return session_type != CLAUDE or not settings.is_headless


def _anchor(settings: Settings, resume: str | None) -> str:
    resumed = resume or settings.resume
    if resumed:
        return resumed if PEER_ID.fullmatch(resumed) else f"resume:{as_text(resumed)}"
    if settings.session_id:
        return f"claude:{as_text(settings.session_id)}"
    return f"once:{secrets.token_hex(16)}"


def _present_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:  # somebody removed it from under this process
        return Path(Path.home().anchor)


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return HUMAN
