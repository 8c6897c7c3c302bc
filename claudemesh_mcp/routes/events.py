"""What each event of a client changes in the file of its peer, and what it then shows.

``hook.py`` calls ``EVENTS`` inside one IMMEDIATE transaction, and prints the offer behind it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping

from claudemesh_mcp import openrows
from claudemesh_mcp.plain import TYPE_CHECKING, NamedTuple, cast, suppress
from claudemesh_mcp.routes import bells, facts, frames, offers, probes, records, wakerprobes, waking
from claudemesh_mcp.routes.facts import Activity
from claudemesh_mcp.routes.offers import BUSY, Look, Offer
from claudemesh_mcp.routes.places import Folder
from claudemesh_mcp.routes.processes import Living
from claudemesh_mcp.routes.settings import NOW, OUTPUT_CHARACTERS, STALE_MS, Moment

if TYPE_CHECKING:
    from typing import Any, Final

_OPENED: Final = ("<task-notification>", "<system-reminder>", "<channel ")
_CLOSED: Final = ("</task-notification>", "</system-reminder>", "</channel>")
_FRESH_MS: Final = 60_000
_GOES_ON: Final = frozenset({"clear", "resume"})
_TOLD_AT: Final = frozenset({Moment.SESSION, Moment.PROMPT})
_OURS: Final = "claudemesh_mcp"
_GAP: Final = "\n\n"


class Event(NamedTuple):
    """One event of a client.

    Args:
        told: What the client says on stdin.
        session: The id of its session.
        record: Which peer that is.
        data: The home.
        is_attended: Whether somebody sits at it.
        now_ms: The time.
        room: How many characters may be shown.
        mesh: What the mesh is called, where the client is in several.
        nonce: For a probe of this look: one, in however many meshes the client is.
        is_refused: Whether it is the prompt that a waker's probe became, which is refused.
    """

    told: Mapping[str, Any]
    session: str
    record: records.Record
    data: Folder
    is_attended: bool
    now_ms: int
    room: int = OUTPUT_CHARACTERS
    mesh: str = ""
    nonce: str = ""
    is_refused: bool = False

    @property
    def client(self) -> str:
        """``PID.START`` of the client."""
        return str(self.record.client)

    def text(self, name: str) -> str:
        """Give a text that the client says; nothing if it says none."""
        found = self.told.get(name)
        return found if isinstance(found, str) else ""

    def look(self, moment: Moment, route: str = "", after: str = "") -> Look:
        """Look at the inbox."""
        return Look(
            moment,
            self.session,
            self.client,
            self.record.member,
            route or moment.value,
            after,
            self.room,
            self.mesh,
        )


Shows = tuple[Look, Offer] | None


def started(sql: sqlite3.Connection, event: Event) -> Shows:
    """Begin a session, or go on with another: what was printed before is not in its context."""
    was = _begin(sql, event)
    openrows.give_back_printed(sql)
    probes.forget(sql)
    source = event.text("source")
    with suppress(OSError):
        _hand_over_alias(event, was if source == "fork" else "")
    facts.put(sql, facts.SESSION, event.session)
    if source != "compact" and event.is_attended:
        _note_activity(sql, event, Activity.IDLE)
    return _show(sql, event, event.look(Moment.SESSION))


def _hand_over_alias(event: Event, forked_from: str) -> None:
    """Let the session of now find this peer again, unless it has a peer of its own."""
    data, peer, mesh = event.data, event.record.peer, event.record.mesh_id
    if records.peer_of(data, event.session, mesh) is None:
        records.alias(data, event.session, peer, mesh)
    if forked_from != event.session and records.peer_of(data, forked_from, mesh) == peer:
        records.unalias(data, forked_from, mesh)


def prompted(sql: sqlite3.Connection, event: Event) -> Shows:
    """Begin a turn: by a human, by one of our bells, or by another machine's notice."""
    _begin(sql, event)
    prompt = event.text("prompt")
    if event.is_refused:
        wakerprobes.answer(sql, bells.nonces(prompt), event.now_ms)
        return None
    was_busy = _is_busy(sql, event)
    is_human = not is_of_a_machine(prompt)
    route = None if is_human else bells.answer(sql, prompt, event.now_ms)
    _note_activity(sql, event, Activity.WORKING)
    if not (is_human or route):
        # The end of this turn is no evidence for a prompt that never became one.
        offers.doubt_prompts(sql)
        return None
    facts.put(sql, facts.CONTINUED, 0)
    # An earlier prompt may have been refused, or its turn broken off, before a request was made.
    openrows.give_back_printed(sql, but=(Moment.SESSION.value, event.session))
    after = BUSY if was_busy else ""
    if route:
        return _show(sql, event, event.look(Moment.BELL, route, after))
    bells.overtake(sql, event.now_ms, by_human=True)
    facts.put(sql, facts.PROMPT_MS, event.now_ms)
    released = waking.release_excess(sql, event.now_ms)
    return _show(sql, event, event.look(Moment.PROMPT, after=after), released)


def is_of_a_machine(prompt: str) -> bool:
    """Tell whether a prompt is a notice of the client's own, which nothing else marks.

    One is a frame from its first character to its last; a rewake's are two, one behind the other.
    What a human has pasted begins with one at most, and goes on behind it.
    """
    return prompt.startswith(_OPENED) and prompt.rstrip().endswith(_CLOSED)


def used_a_tool(sql: sqlite3.Connection, event: Event) -> Shows:
    """Come to a tool boundary."""
    _begin(sql, event)
    call = event.text("tool_use_id")
    is_first = not facts.get_int(sql, facts.ACTIVITY_MS)

    def are_apart(other: str) -> bool:
        # Imported here: most calls come with nothing to be proved.
        from claudemesh_mcp.routes.transcript import are_of_two_replies

        return are_of_two_replies(event.text("transcript_path"), other, call)

    who = (event.session, event.client)
    offers.evidence_of_tool(sql, who, are_apart, event.now_ms)
    _note_activity(sql, event, Activity.WORKING)
    bells.overtake(sql, event.now_ms, by_human=False)
    if not is_first:
        return _show(sql, event, event.look(Moment.TOOL, after=call or BUSY))
    # The turn's prompt came before the server's record was there, as in any run of `claude -p`:
    # what it would have shown is shown now.
    facts.put(sql, facts.PROMPT_MS, event.now_ms)
    released = waking.release_excess(sql, event.now_ms)
    late = event.look(Moment.PROMPT, Moment.TOOL.value, call or BUSY)
    return _show(sql, event, late, released)


def is_quiet(sql: sqlite3.Connection, event: Event) -> bool:
    """Tell whether a tool boundary changes nothing, so that nothing need be written."""
    same = facts.get(sql, facts.CLIENT) == event.client
    if not same or facts.get(sql, facts.SESSION) != event.session:
        return False
    if facts.activity(sql) is not Activity.WORKING:
        return False
    if event.now_ms - facts.get_int(sql, facts.ACTIVITY_MS) > _FRESH_MS:
        return False
    if offers.has_unproven(sql) or bells.has_outstanding(sql, event.now_ms):
        return False
    return not openrows.open_by_priority(sql, event.now_ms, (NOW,), 1)


def stopped(sql: sqlite3.Connection, event: Event) -> Shows:
    """End a turn, or go on with it by messages."""
    _begin(sql, event)
    offers.evidence_of_end(sql, event.session, event.client, event.now_ms)
    bells.overtake(sql, event.now_ms, by_human=False)
    shown = _show(sql, event, event.look(Moment.STOP))
    if shown is None:
        facts.put(sql, facts.BACKGROUND, "1" if _has_background(event) else "0")
        _note_activity(sql, event, Activity.IDLE)
        return None
    facts.put(sql, facts.CONTINUED, facts.get_int(sql, facts.CONTINUED) + 1)
    _note_activity(sql, event, Activity.WORKING)
    return shown


def _has_background(event: Event) -> bool:
    """Tell whether something runs whose notice would be a turn, beside the monitor of ours."""
    told: Any = event.told.get("background_tasks")
    tasks = cast("list[Any]", told) if isinstance(told, list) else []
    known = [cast("Mapping[str, Any]", one) for one in tasks if isinstance(one, dict)]
    return any(
        one.get("type") != "monitor" or _OURS not in str(one.get("command")) for one in known
    )


def goes_on(sql: sqlite3.Connection, event: Event) -> None:
    """Take back the end of a turn: messages of another mesh of this client go on with it."""
    facts.put(sql, facts.CONTINUED, facts.get_int(sql, facts.CONTINUED) + 1)
    _note_activity(sql, event, Activity.WORKING)


def ended(sql: sqlite3.Connection, event: Event) -> Shows:
    """End a session: what it was shown without a request behind it was seen by nobody."""
    _begin(sql, event)
    openrows.give_back_printed(sql)
    if event.text("reason") not in _GOES_ON:
        _note_activity(sql, event, Activity.ENDED)
    return None


EVENTS: Final[dict[str, Callable[[sqlite3.Connection, Event], Shows]]] = {
    "SessionStart": started,
    "UserPromptSubmit": prompted,
    "PostToolUse": used_a_tool,
    "Stop": stopped,
    "SessionEnd": ended,
}


def _begin(sql: sqlite3.Connection, event: Event) -> str:
    """Note who it is that speaks; gives the session that was noted before."""
    waking.follow_clock(sql, event.now_ms)
    facts.begin(sql, event.client, event.session, attended=event.is_attended)
    was = facts.get(sql, facts.SESSION)
    if facts.put(sql, facts.SESSION, event.session):
        probes.forget(sql)
    return was


def _is_busy(sql: sqlite3.Connection, event: Event) -> bool:
    since_ms = event.now_ms - facts.get_int(sql, facts.ACTIVITY_MS)
    return facts.activity(sql) is Activity.WORKING and since_ms < STALE_MS


def _note_activity(sql: sqlite3.Connection, event: Event, now: Activity) -> None:
    facts.put(sql, facts.ACTIVITY, now.value)
    facts.put(sql, facts.ACTIVITY_MS, event.now_ms)


def _show(sql: sqlite3.Connection, event: Event, look: Look, released: int = 0) -> Shows:
    # Grants are judged by the session's server alone: what it can't keep back is not shown.
    if not Living(event.record.server, 0).is_alive:
        return None
    started = facts.take_started(sql) if look.moment in _TOLD_AT else ""
    told = frames.started(started.split("\n"), look.mesh) if started else ""
    if told:
        look = look._replace(room=look.room - frames.units_of(told) - len(_GAP))
    made = offers.offer(sql, look, event.now_ms, released=released)
    if told:
        shown = made or Offer("", "")
        made = Offer(_GAP.join(filter(None, (told, shown.text))), shown.holder)
    probe = probes.Probe(event.nonce, event.now_ms, 0, "", event.text("transcript_path"))
    made = probes.carry(sql, look, made, probe)
    return None if made is None else (look, made)
