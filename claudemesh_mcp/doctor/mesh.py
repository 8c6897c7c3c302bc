"""Checks of the mesh: which one is chosen, its broker, its members, the limits that hold there.

``doctor/__init__.py`` lists them. ``check_broker`` connects; those behind it look at what it was
told.
"""

from typing import TYPE_CHECKING, Final

from claudemesh_mcp import meshes
from claudemesh_mcp.brokerinfo import BrokerInfo, is_newer
from claudemesh_mcp.config import Settings
from claudemesh_mcp.doctor.finding import Case, Finding, Told, fail, in_thread, ok, skip, warn
from claudemesh_mcp.home import Home
from claudemesh_mcp.meshes import Place
from claudemesh_mcp.tls import is_loopback
from claudemesh_mcp.trust import Trust
from claudemesh_wire import DATA_VERSION, VERSION
from claudemesh_wire.errors import Unauthenticated
from claudemesh_wire.handshake import MAX_CLOCK_ERROR_MS
from claudemesh_wire.meshes import AskMesh

if TYPE_CHECKING:
    from claudemesh_mcp.identity import Identity
    from claudemesh_mcp.launcher import Launcher

_ANSWER_S: Final = 5.0
_ALMOST: Final = 0.8
_NOT_CONNECTED: Final = "There is no connection to a broker."
_NOT_FOUND: Final = "No broker of this home is found."
_ANEW: Final = "Start it again: claudemesh down, then claudemesh up"
# Found by a check of its own.
_TOLD_ELSEWHERE: Final = frozenset({"clock_off", "upgrade"})


def _ready(case: Case) -> Settings | None:
    """Give the settings of a home that takes part and has been started once."""
    settings = case.settings
    if settings is None or settings.off or not case.paths.meshes.is_dir():
        return None
    return settings


def _place(settings: Settings) -> Place | None:
    from claudemesh_mcp.dialling import place_of

    return place_of(settings)


async def check_choice(case: Case) -> Finding:
    """Look which mesh is meant here, and whether this home is in it."""
    settings = case.settings
    if settings is None:
        return skip("The settings make no sense.")
    chosen = settings.mesh or meshes.LOCAL
    if case.paths.meshes.is_dir():
        await in_thread(lambda: _place(settings))
    elif settings.mesh not in {None, meshes.LOCAL}:
        return fail(f"This home is in no mesh, and {chosen} is meant.", "claudemesh join URL")
    return ok(f"{chosen} ({case.origins.get('mesh', 'the default')}).")


async def check_address(case: Case) -> Finding:
    """Look whether the way to the broker is private: TLS, or this machine alone."""
    settings = _ready(case)
    if settings is None:
        return skip("There is no mesh here yet.")
    place = await in_thread(lambda: _place(settings))
    info = None if place else await in_thread(lambda: _find(case))
    url = place.url if place else info.url if info else ""
    if not url:
        return skip(_NOT_FOUND)
    if url.startswith("https://"):
        pinned = place.pin if place else info.pin if info else b""
        return ok(f"{url}, {'by its pinned certificate' if pinned else 'vouched for by a CA'}.")
    if is_loopback(url):
        return ok(f"{url} is on this machine.")
    return fail(
        f"{url} is neither TLS nor on this machine: others can read who talks to whom.",
        "Have its owner run it with TLS: claudemesh broker run --bind 0.0.0.0 --tls auto",
    )


async def check_bindings(case: Case) -> Finding:
    """Look for whom the broker of this home listens: this machine alone, or others by TLS."""
    info = await in_thread(lambda: _find(case)) if case.paths.run.is_dir() else None
    if info is None:
        return skip(_NOT_FOUND)
    if not info.bind:
        return warn(
            f"The broker of this home, version {info.version}, does not say where it listens.",
            _ANEW,
        )
    told = f"The broker of this home listens on {info.bind}, port {info.port}"
    if _is_loopback(info.bind):
        return ok(f"{told}: for this machine alone.")
    if info.pin:
        return ok(f"{told}: for other machines too, by TLS.")
    return fail(
        f"{told}, without TLS of its own: who reaches it there passes by the proxy.",
        "Have it listen for the proxy alone: claudemesh broker run --bind 127.0.0.1 --tls proxy",
    )


def _is_loopback(address: str) -> bool:
    host = f"[{address}]" if ":" in address else address
    return is_loopback(f"http://{host}")


def _find(case: Case) -> BrokerInfo | None:
    return _launcher(case).find()


def _launcher(case: Case) -> "Launcher":
    from claudemesh_mcp.launcher import Launcher

    return Launcher(Home(case.paths))


async def check_broker(case: Case) -> Finding:
    """Look whether the broker answers, and hear what it has to say."""
    settings = _ready(case)
    if settings is None:
        return skip("There is no mesh here yet.")
    is_own = await in_thread(lambda: _place(settings)) is None
    if is_own and await in_thread(lambda: _find(case)) is None:
        return await in_thread(lambda: _look_for_silent(case))
    try:
        case.told = await _ask(case, settings)
    except Unauthenticated as error:
        if not (is_own and error.code == "bad_token"):
            raise
        file = case.paths.run / "broker.json"
        return fail(f"The token in {file} is not the one of the broker that runs.", _ANEW)
    facts = case.told.facts
    return ok(
        f"{case.told.url} answers; {facts.online} of {facts.peers} peers of {facts.name} are here."
    )


def _look_for_silent(case: Case) -> Finding:
    """Tell a broker that can't be found from one that does not run."""
    pid = _launcher(case).find_silent()
    if pid is None:
        return warn("No broker runs for this home; a session starts it by itself.", "claudemesh up")
    file = case.paths.run / "broker.json"
    if file.exists():
        return fail(
            f"A broker runs (pid {pid}), and {file} does not say where: it is damaged.", _ANEW
        )
    return warn(
        f"A broker runs (pid {pid}), and there is no {file} to say where: it starts, or ends, or"
        " somebody has removed that file.",
        f"Look again in a moment. {_ANEW}",
    )


async def _ask(case: Case, settings: Settings) -> Told:
    async with case.connect(settings) as mesh:
        client = await mesh.ready()
        facts = await client.call(AskMesh(), _ANSWER_S)
        url = (await mesh.mesh_info()).broker.url
        peer = mesh.peer
        unproved = tuple((one.code, one.message) for one in peer.problems)
        return Told(facts, url, peer.clock_off_ms, unproved)


async def check_versions(case: Case) -> Finding:
    """Compare the broker's version with this one's."""
    told = case.told
    if told is None:
        return skip(_NOT_CONNECTED)
    theirs = told.facts.broker_version
    if told.facts.data_version > DATA_VERSION or is_newer(theirs, VERSION):
        return warn(f"The broker is version {theirs}, this is {VERSION}.", "Upgrade claudemesh.")
    if is_newer(VERSION, theirs):
        return warn(
            f"The broker is version {theirs}, this is {VERSION}.",
            "Have the broker's owner upgrade it; that of this home is replaced by a session.",
        )
    return ok(f"Both are version {VERSION}, data version {told.facts.data_version}.")


async def check_clock(case: Case) -> Finding:
    """Compare this clock with the broker's."""
    if case.told is None:
        return skip(_NOT_CONNECTED)
    off_ms = case.told.clock_off_ms
    if abs(off_ms) > MAX_CLOCK_ERROR_MS:
        behind = "behind" if off_ms > 0 else "ahead of"
        return fail(
            f"This clock is {abs(off_ms) / 60_000:.1f} minutes {behind} the broker's.",
            "Set the one that is wrong, as by: timedatectl set-ntp true",
        )
    return ok("This clock and the broker's agree.")


async def check_members(case: Case) -> Finding:
    """Look whether the log of the mesh's members can be read and holds."""
    return await in_thread(lambda: _walk(case))


def identity_of(case: Case) -> "Identity | None":
    """Give who this home is in the chosen mesh, if it was started once; in a worker thread."""
    from claudemesh_mcp.identity import open_identity

    settings = _ready(case)
    if settings is None or not (case.paths.data / "profile.json").exists():
        return None
    return open_identity(Home(case.paths), settings)


def _walk(case: Case) -> Finding:
    identity = identity_of(case)
    if identity is None:
        return skip("There is no mesh here yet.")
    chain = Trust.open(identity).chain
    own = chain.members.get(identity.member)
    if own is None or own.removed:
        return fail(
            f"This home's member is not in the mesh {identity.mesh_name}.",
            "Ask one of its admins for a new invite.",
        )
    members = sum(not one.removed for one in chain.members.values())
    return ok(
        f"{members} members by {chain.head.seq} entries, head {chain.head.hash.hex()[:12]};"
        f" here as {own.name}, {own.role}."
    )


async def check_trust(case: Case) -> Finding:
    """Tell what the broker was caught at while the doctor was connected."""
    if case.told is None:
        return skip(_NOT_CONNECTED)
    caught = [said for code, said in case.told.unproved if code not in _TOLD_ELSEWHERE]
    if caught:
        return fail(
            " ".join(caught), "Do not rely on this broker before its owner has explained it."
        )
    return ok(
        "Nothing that the broker showed just now had to be refused; what a session found, its"
        " mesh_info lists under problems."
    )


async def check_quotas(case: Case) -> Finding:
    """Compare what waits for the command line's own peer with what may."""
    if case.told is None:
        return skip(_NOT_CONNECTED)
    limits, queued = case.told.facts.limits, case.told.facts.queued
    room = int(limits.get("queue_messages", 0))
    told = ", ".join(f"{key} {value:.12g}" for key, value in sorted(limits.items()))
    said = (
        f"{queued} messages wait at the broker for the command line, of {room} that may; the queues"
        f" of sessions are not looked into. Limits: {told}."
    )
    if room and queued > _ALMOST * room:
        return warn(said, "Read them: claudemesh inbox")
    return ok(said)
