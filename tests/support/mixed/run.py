"""Plays one mixed run: a real client, messages to it, and kills; then counts at its requests.

``tests/campaigns/routes.py`` gives it a plan and a room with the sender; what comes of it is an
``Outcome``.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple
from zlib import crc32

import anyio

from claudemesh_mcp.routes import facts
from tests.support.claude.beside import told_in
from tests.support.live import Live, LiveSession
from tests.support.mixed.plan import BROKER, HOOK, HOOKS, PRINT, Act, Kill, Plan, Shot
from tests.support.mixed.seat import Seat
from tests.support.mixed.seeing import Seen
from tests.support.mixed.stage import Stage, Working

_LOOK_S: Final = 0.1
_SENDING_S: Final = 60
_DELIVERED_S: Final = 60
_WOKEN_S: Final = 6.0
_NEWS_S: Final = 4.0
_COMMAND_S: Final = 15
_DRAINS: Final = 4
_LEASE_S: Final = 32.0
_TOLD_S: Final = 2.0


@dataclass
class Sent:
    """A message that was accepted.

    Args:
        token: Its text.
        id: Its id.
        at: When it was sent.
        state: What the session did then: ``idle``, ``busy``, or it was ``away``.
        priority: Its priority.
        calm: Whether nobody was to be killed in that act.
        status: Its last status.
    """

    token: str
    id: str
    at: float
    state: str
    priority: str
    calm: bool
    status: str = ""


class Time(NamedTuple):
    """How long a text was under way.

    Args:
        calm: Whether nobody was to be killed meanwhile.
        route: By which it came.
        state: What the session did when it was sent.
        ms: From send to the first request with it.
    """

    calm: bool
    route: str
    state: str
    ms: float


@dataclass
class Outcome:
    """What came of a run.

    Args:
        number: Which.
        messages: How many were accepted.
        seen: How many a proved receipt calls seen in the end.
        lost: Texts in no request.
        unmarked: Texts that came again without a mark.
        marked: How many came again with one.
        false_seen: Texts that a proved receipt called seen before any request had them.
        kills: Who was killed, how often.
        times: The ms from send to the first request with it.
        broken: What kept the run from its end; nothing if it came there.
        left: The commands of the processes that were left behind.
    """

    number: int
    messages: int = 0
    seen: int = 0
    lost: list[str] = field(default_factory=list[str])
    unmarked: list[str] = field(default_factory=list[str])
    marked: int = 0
    false_seen: list[str] = field(default_factory=list[str])
    kills: Counter[str] = field(default_factory=Counter[str])
    times: list[Time] = field(default_factory=list[Time])
    broken: str = ""
    left: list[str] = field(default_factory=list[str])


class Run:
    """A run.

    Args:
        plan: What is to happen.
        meeting: The mesh, and who sends in it.
        stage: The plugins.
        folder: Its own, made anew.
        model: The client's model.
    """

    def __init__(
        self,
        plan: Plan,
        meeting: tuple[Live, LiveSession],
        stage: Stage,
        folder: Path,
        model: Working,
    ) -> None:
        live, bob = meeting
        client = stage.client(live, folder, f"ada-{plan.number}", model)
        self._plan = plan
        self._live = live
        self._bob = bob
        self._strikes = folder / "strikes"
        self._seat = Seat(live.home.data, client, model, stage.words(plan.setup))
        self._model = model
        self._sent: list[Sent] = []
        self._seen = Seen()
        self._peer = ""
        self._file: Path | None = None
        self.outcome = Outcome(plan.number)

    async def play(self) -> None:
        """Play it to its end, and count."""
        try:
            if self._plan.mode == PRINT:
                await self._print_all()
            else:
                await self._sit_through()
            # Only now: what a run that broke off has not drained is not lost.
            self._read()
            self.outcome.lost = self._seen.lacks(self._tokens())
        finally:
            self._count()
            with anyio.CancelScope(shield=True):
                await self._seat.get_up()

    async def _sit_through(self) -> None:
        await self._seat.sit_down()
        self._met()
        await self._seat.prompt("Hello.")
        await self._seat.quiet()
        for place, act in enumerate(self._plan.acts):
            if act.calls:
                self._model.work(act.calls, act.pace_s)
                await self._seat.prompt(f"Work now on {place}.")
            await self._shoot(act)
            await self._settle()
            await self._check_seen()
            if not self._seat.is_here:
                await self._come_back()
            await self._command(act.command)
        self._take_strikes_away()
        for number in range(_DRAINS):
            await self._delivered()
            if await self._has_all(number):
                break
            if not self._seat.is_here:
                await self._come_back()
            await self._seat.prompt(f"Is there news {number}?")
            await self._wait_for(self._tokens(), _NEWS_S)
            await self._seat.quiet()
        await self._all_told()

    async def _print_all(self) -> None:
        for place, act in enumerate(self._plan.acts):
            if act.calls:
                self._model.work(act.calls, act.pace_s)
                async with self._seat.printing(f"Work now on {place}."):
                    self._met()
                    await self._shoot(act)
            else:
                await self._shoot(act)
            await self._check_seen()
            await anyio.sleep(self._plan.back_s)
        self._take_strikes_away()
        for number in range(_DRAINS):
            if await self._has_all(number):
                break
            # What no hook has shown the model is told of by a remark, and asks for.
            self._model.work(["inbox"] if number else [], 0)
            async with self._seat.printing(f"Is there news {number}?"):
                await self._delivered()
        await self._all_told()

    def _met(self) -> None:
        record = self._seat.record
        assert record is not None
        self._peer = self._peer or record.peer
        self._file = Path(record.file)
        if record.peer != self._peer:
            raise AssertionError("The session came back as another peer.")

    async def _come_back(self) -> None:
        """Resume the session in a new client."""
        await self._seat.get_up()
        await anyio.sleep(self._plan.back_s)
        await self._seat.sit_down()
        self._met()

    async def _shoot(self, act: Act) -> None:
        """Send the messages of an act, and kill meanwhile."""
        self._lay(act.kill)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._kill, act.kill)
            for shot in act.shots:
                await anyio.sleep(shot.gap_s)
                await self._send(shot, calm=not act.kill.what)

    async def _send(self, shot: Shot, *, calm: bool) -> None:
        place = len(self._sent)
        token = f"heron-{self._plan.number}-{place}-{crc32(f'{self._peer} {place}'.encode()):08x}"
        at, state = time.monotonic(), self._state()
        told: dict[str, Any] = {"to": self._peer, "text": token, "priority": shot.priority}
        with anyio.fail_after(_SENDING_S):
            while True:
                # With one key it is one message, however often it has to be tried.
                result = await self._bob.result("send", **told, idempotency_key=token)
                content = result.structured_content or {}
                if not result.is_error:
                    break
                await anyio.sleep(_LOOK_S)
        self._sent.append(Sent(token, content["id"], at, state, shot.priority, calm))

    def _state(self) -> str:
        if not self._seat.is_here:
            return "away"
        return "idle" if self._model.is_quiet else "busy"

    def _lay(self, kill: Kill) -> None:
        if kill.what == HOOK:
            laid = self._strikes / f".{kill.event}"
            laid.write_text(kill.how, "utf-8")
            laid.rename(self._strikes / kill.event)

    def _take_strikes_away(self) -> None:
        for laid in self._strikes.iterdir():
            if "." not in laid.name:
                laid.unlink(missing_ok=True)

    async def _kill(self, kill: Kill) -> None:
        if kill.what in {"", HOOK}:
            return
        await anyio.sleep(kill.after_s)
        if kill.what == BROKER:
            found = self._live.launcher.find()
            if found is None:
                return
            self._live.kill_broker()
            self.outcome.kills[BROKER] += 1
        else:
            self.outcome.kills[kill.what] += await self._seat.kill(kill.what)

    async def _settle(self) -> None:
        """Let the turn end, and what wakes the session wake it."""
        await self._seat.quiet()
        if self._plan.setup != HOOKS and self._seat.is_here:
            waking = [one.token for one in self._sent if one.priority != "low"]
            await self._wait_for(waking, _WOKEN_S)
        await self._seat.quiet()

    async def _command(self, command: str) -> None:
        if not command or self._file is None:
            return
        before = len(self._model.turns), self._session()
        await self._seat.type(command)
        with anyio.move_on_after(_COMMAND_S):
            # Another process's commit gives no sign here.
            while before == (len(self._model.turns), self._session()):  # noqa: ASYNC110
                await anyio.sleep(_LOOK_S)
        await self._seat.quiet()

    def _session(self) -> str:
        assert self._file is not None
        asked = f"SELECT value FROM facts WHERE key = '{facts.SESSION}'"  # noqa: S608 - a constant
        return str(told_in(self._file, asked))

    async def _has_all(self, number: int) -> bool:
        """Tell whether nothing waits; gives leases of dead hooks the time to end."""
        self._read()
        if self._seen.lacks(self._tokens()):
            if number:
                await self._leases_end()
            return False
        # What a hook took along that died behind its print has come, and comes again.
        is_struck = any(self._strikes.glob("killed.*"))
        return not (is_struck and await self._leases_end())

    async def _leases_end(self) -> bool:
        """Wait until nothing is on offer that was not noted as printed; tells whether it had to."""
        assert self._file is not None
        asked = (
            "SELECT coalesce(max(lease_until_ms), 0) FROM inbox"
            " WHERE state = 'handed' AND printed IS NULL"
        )
        ((until_ms,),) = told_in(self._file, asked)
        left_s = until_ms / 1000 - time.time()
        await anyio.sleep(min(_LEASE_S, max(0.0, left_s)))
        return left_s > 0

    async def _wait_for(self, tokens: list[str], limit_s: float) -> None:
        with anyio.move_on_after(limit_s):
            while self._seen.lacks(tokens) and self._seat.is_here:
                await anyio.sleep(_LOOK_S)
                self._read()

    async def _delivered(self) -> None:
        """Wait until all is in the inbox: what is on its way can't be shown."""
        with anyio.move_on_after(_DELIVERED_S):
            # As above, of another session.
            while await self._are_on_their_way():  # noqa: ASYNC110
                await anyio.sleep(_LOOK_S)

    async def _are_on_their_way(self) -> bool:
        await self._check_seen()
        return any(one.status not in {"delivered", "seen", "held"} for one in self._sent)

    async def _all_told(self) -> None:
        """Wait a while for the last receipts."""
        with anyio.move_on_after(_TOLD_S):
            while any(one.status != "seen" for one in self._sent):
                await self._check_seen()
                await anyio.sleep(_LOOK_S)

    async def _check_seen(self) -> None:
        """Ask the sender's receipts; none may be ahead of the requests."""
        for one in self._sent:
            if one.status == "seen":
                continue
            result = await self._bob.result("message_status", id=one.id)
            if result.is_error:
                continue
            (row,) = (result.structured_content or {})["recipients"]
            one.status = row["status"]
            if row["status"] == "seen" and row["proved"]:
                self._read()
                self.outcome.seen += 1
                if self._seen.lacks([one.token]):
                    self.outcome.false_seen.append(one.token)

    def _tokens(self) -> list[str]:
        return [one.token for one in self._sent]

    def _read(self) -> None:
        self._seen.read(list(self._model.all))

    def _count(self) -> None:
        self._read()
        told = self.outcome
        told.messages = len(self._sent)
        told.kills[HOOK] += len(list(self._strikes.glob("killed.*")))
        for one in self._sent:
            first, *more = self._seen.of(one.token) or [None]
            if first is not None:
                ms = round((first.at - one.at) * 1000)
                told.times.append(Time(one.calm, first.route, one.state, ms))
            told.marked += sum(again.marked for again in more if again)
            told.unmarked += [one.token for again in more if again and not again.marked]
