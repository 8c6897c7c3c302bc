"""The state of one peer in one process: keys, trust, file, clock, and what was detected.

``sdk.py`` opens it; ``attachment.py``, ``sending.py`` and ``receiving.py`` share it. Nothing here
talks to the broker.
"""

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from claudemesh_mcp import staleness
from claudemesh_mcp.config import Settings
from claudemesh_mcp.grantfile import GrantFile
from claudemesh_mcp.home import FileLock, Home, try_lock
from claudemesh_mcp.identity import Device, Identity, open_device, open_identity, read_device
from claudemesh_mcp.news import News
from claudemesh_mcp.peerfile import PeerFile
from claudemesh_mcp.resuming import LOCK, claude_anchor
from claudemesh_mcp.trust import Trust
from claudemesh_mcp.waits import Hints
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import MeshError
from claudemesh_wire.handshake import MAX_CLOCK_ERROR_MS, Session
from claudemesh_wire.keys import KemPrivateKey
from claudemesh_wire.membership import Custody, Member

logger: Final = logging.getLogger(__name__)
_MOST_PROBLEMS: Final = 50
_NOTICEABLE_MS: Final = 2000
HUMAN: Final = "human"


def system_ms() -> int:
    """Give the system's time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Setup:
    """How a peer is opened.

    Args:
        settings: Of this process.
        anchor: What the peer is anchored on, with its kind (``once:…``, ``resume:…``).
        session: What it says of itself.
        handles: The handles it wishes for, best first; none to keep the one it has.
        now_ms: The system's clock, or a test's.
        admin_secret: Of the broker, to make a mesh there.
        identify: Finds who the home is in the mesh of this peer.
        folder: Where it works, for messages that are for one commit alone.
        claude_session: The Claude session that decides which peer it is, in place of the anchor.
        may_fork: Whether it is another peer while another client still has that session.
    """

    settings: Settings
    anchor: str
    session: Session
    handles: tuple[str, ...]
    now_ms: Callable[[], int] = system_ms
    admin_secret: bytes | None = None
    identify: Callable[[Home, Settings], Identity] = open_identity
    folder: str = ""
    claude_session: str = ""
    may_fork: bool = False

    def anchor_in(self, identity: Identity) -> str:
        """Give the anchor in a mesh, as far as that depends on what is there."""
        if not self.claude_session:
            return self.anchor
        return claude_anchor(identity, self.claude_session, may_fork=self.may_fork)


@dataclass(frozen=True)
class Detected:
    """Something that was detected and refused.

    Args:
        code: Of the error that it was refused with.
        message: What it was, in one sentence.
        at_ms: When.
    """

    code: str
    message: str
    at_ms: int


class Peer:
    """One peer, opened from its home.

    Args:
        setup: How it was opened.
        device: Its keys.
        trust: What its home believes of the mesh.
        file: Its SQLite file.
    """

    def __init__(self, setup: Setup, device: Device, trust: Trust, file: PeerFile) -> None:
        self.setup = setup
        self.device = device
        self.trust = trust
        self.file = file
        self.grants = GrantFile(device.identity)
        self.handle = ""
        self.certificate: Certificate | None = None
        self.problems: deque[Detected] = deque(maxlen=_MOST_PROBLEMS)
        self.news = News()
        self.hints = Hints()
        self.nonce = secrets.token_hex(8)
        self._offset_ms = 0

    @classmethod
    async def open(cls, setup: Setup) -> "Peer":
        """Open identity, keys and file in worker threads.

        Raises:
            MeshError: keys, log or file can't be used; each says what to do.
        """

        def keys() -> tuple[Device, Trust]:
            home = Home.open(setup.settings.paths())
            identity = setup.identify(home, setup.settings)
            anchor = setup.anchor_in(identity)
            return open_device(identity, anchor, setup.now_ms()), Trust.open(identity)

        device, trust = await anyio.to_thread.run_sync(keys)
        path = device.identity.home.sessions / device.peer / "peer.db"
        file = await PeerFile.open(path)
        try:
            await file.belong_to(trust.mesh)
            # Hooks offer without asking any process where that is.
            await file.write(lambda sql: staleness.stand_in(sql, setup.folder), lazily=True)
        except BaseException:
            await file.close()
            raise
        return cls(setup, device, trust, file)

    @property
    def id(self) -> str:
        """The peer's id."""
        return self.device.peer

    @property
    def identity(self) -> Identity:
        """The member it belongs to."""
        return self.device.identity

    @property
    def home(self) -> Home:
        """The home it lives in."""
        return self.identity.home

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.home.sessions / self.id

    def own_name(self) -> str:
        """Give the name of the member it belongs to, as the mesh knows it."""
        own = self.trust.chain.members.get(self.identity.member)
        return own.name if own else self.identity.name

    @property
    def clock_off_ms(self) -> int:
        """How far the broker's clock is ahead of the own one, when that is worth a word."""
        return self._offset_ms

    @property
    def member(self) -> Member:
        """Its member as the chain has it, also one that was removed."""
        return self.trust.chain.members[self.identity.member]

    @property
    def wishes(self) -> tuple[str, ...]:
        """The handles it wishes for, best first: a person is called as its member is."""
        handles = self.setup.handles
        me = self.trust.chain.members.get(self.identity.member)
        is_person = self.setup.session.type == HUMAN and not self.setup.settings.name
        return tuple(dict.fromkeys((me.name, *handles))) if me and is_person else handles

    @property
    def first_handle(self) -> str:
        """The handle it has or, before any connection, asks for first."""
        return self.handle or next(iter(self.wishes), "peer")

    def now_ms(self) -> int:
        """Give the time as the broker's welcome corrected it."""
        return self.setup.now_ms() + self._offset_ms

    @property
    def offset_ms(self) -> int:
        """What is added to this machine's time."""
        return self._offset_ms

    def set_clock(self, broker_ms: int) -> None:
        """Take the broker's time; say so plainly when the own clock is far off.

        A small difference is the way of the welcome, not of the clocks, and is left alone.
        """
        offset_ms = broker_ms - self.setup.now_ms()
        self._offset_ms = offset_ms if abs(offset_ms) > _NOTICEABLE_MS else 0
        if abs(self._offset_ms) > MAX_CLOCK_ERROR_MS:
            behind = "behind" if self._offset_ms > 0 else "ahead of"
            minutes = abs(self._offset_ms) / 60_000
            self.note("clock_off", f"This clock is {minutes:.1f} minutes {behind} the broker's.")

    def issue(self, handle: str) -> Certificate:
        """Certify the present keys for a handle; to be used once the broker has it."""
        return self.device.certify(handle, self.now_ms())

    def renew(self, handle: str) -> Certificate:
        """Certify the present keys for a handle and use that certificate from now on."""
        self.certificate = self.issue(handle)
        return self.certificate

    async def renew_keys(self) -> None:
        """Renew the sealing key when it is old; the new one is on disk before it is shown."""
        self.device = await anyio.to_thread.run_sync(
            open_device, self.identity, self.id, self.now_ms()
        )

    def kem_key(self, generation: int) -> KemPrivateKey | None:
        """Give the opening key of a generation, or ``None`` when it was erased or never was.

        A newer one than this process knows is looked for on disk: another process of this peer
        may have made it when it connected.
        """
        if generation > self.device.current.generation:
            self.device = read_device(self.identity, self.id) or self.device
        return self.device.kem_key(generation)

    def certified(self) -> Certificate:
        """Give the certificate in use; one that no broker has seen before the first handshake."""
        return self.certificate or self.renew(self.first_handle)

    def note(self, code: str, message: str) -> None:
        """Keep what was detected, for ``mesh_info`` and the log."""
        if not any(one.code == code and one.message == message for one in self.problems):
            logger.warning("detected %s: %s", code, message)
            self.problems.append(Detected(code, message, self.now_ms()))

    def detect(self, error: MeshError) -> None:
        """Keep an error as something detected."""
        self.note(error.code, error.reason)

    def take_lock(self) -> FileLock | None:
        """Take the lock that the attached process of a peer holds, if it is free."""
        return try_lock(self.folder / LOCK)

    def proven_e2e(self, *members: Member) -> bool:
        """Tell whether every one of these members, and this one, holds its own key."""
        own = self.trust.chain.members.get(self.identity.member)
        return own is not None and all(one.custody is Custody.SELF for one in (own, *members))
