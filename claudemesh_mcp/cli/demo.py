"""The command ``demo``: the whole exchange on real processes, with proof of each step.

It plays on ``stage.py`` and prints through ``show.py``. A step that is missing fails the demo.
"""

import hashlib
import json as json_format
import secrets
import signal
import sys
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import anyio
import typer

from claudemesh_mcp.cli import show
from claudemesh_mcp.cli.stage import Actor, Failed, Stage, raised

_SOON_S: Final = 15.0
_PAUSE_S: Final = 0.05
_TIMES: Final = ("accepted", "queued", "delivered", "seen")
_SIGNED: Final = frozenset({"delivered", "seen"})


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(demo)


def demo(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show on real processes that it works.

    A broker and two sessions run on a throw-away home. They find each other, exchange sealed
    messages and sign receipts; one is killed, comes back, gets what was sent meanwhile, and
    answers. At the end the broker's files are searched for the texts.

    \b
    Examples:
      claudemesh demo
      claudemesh demo --json
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    # A request to end cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    play = Play(_silent if json else _print_step)
    anyio.run(play.perform)
    if json:
        show.data(play.report)
    elif play.report["ok"]:
        _print_receipts(play.report)
    if not play.report["ok"]:
        raise typer.Exit(show.FAILED)


@dataclass
class Letter:
    """A message of the play, and what became of it."""

    id: str
    sender: Actor
    reader: Actor
    text: str
    receipts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def shown(self) -> dict[str, Any]:
        """Give what the report says of it."""
        return {
            "id": self.id,
            "from": self.sender.name,
            "to": self.reader.name,
            "text_sha256": hashlib.sha256(self.text.encode()).hexdigest(),
            "receipts": self.receipts,
        }


class Play:
    """The scenes, in order; each adds to the report what it proved.

    Args:
        tell: Takes a step's mark, title and details.
    """

    def __init__(self, tell: Callable[[str, str, str], None]) -> None:
        self.report: dict[str, Any] = {"ok": False}
        self._tell = tell
        self._detail = ""
        # Words that occur nowhere else, so that finding them anywhere means something.
        self._nonce = secrets.token_hex(8)
        self._letters: list[Letter] = []

    async def perform(self) -> None:
        """Play all of it, and end what it started."""
        began = anyio.current_time()
        try:
            async with raised() as stage:
                await self._scenes(stage)
                self.report["ok"] = True
        except Failed as failure:
            self.report["error"]["message"] = str(failure)
        self.report["messages"] = [letter.shown() for letter in self._letters]
        self.report["seconds"] = round(anyio.current_time() - began, 2)

    async def _scenes(self, stage: Stage) -> None:
        async with self._step("a broker starts"):
            broker = (await stage.run("up"))["broker"]
            self.report["broker"] = {"pid": broker["pid"], "url": broker["url"]}
            self._detail = f"pid {broker['pid']}, {broker['url']}"
        sessions = {"ada": str(uuid.uuid4()), "bob": str(uuid.uuid4())}
        ada = await self._enters(stage, "ada", sessions["ada"])
        bob = await self._enters(stage, "bob", sessions["bob"])
        await self._meet(ada, bob)
        first = await self._exchange(ada, bob, "The build is green")
        await self._is_read(first)
        await self._is_proved(first)
        again = await self._interrupt(stage, ada, bob, sessions["bob"])
        await self._end(stage, ada, again)

    async def _enters(self, stage: Stage, name: str, session: str) -> Actor:
        async with self._step(f"{name} starts and is on the mesh"):
            actor = await stage.enter(name, session)
            shown = {"name": name, "pid": actor.process.pid, "peer": actor.peer}
            self.report.setdefault("sessions", []).append(shown)
            self._detail = f"pid {actor.process.pid}, {actor.peer}"
        return actor

    async def _meet(self, ada: Actor, bob: Actor) -> None:
        async with self._step("ada finds bob"):
            found = await ada.call("search_peers", query="bob")
            _require([row["peer"] for row in found["peers"]] == [bob.peer], f"found {found}")
            self._detail = f"{found['peers'][0]['handle']}, {found['peers'][0]['status']}"

    async def _exchange(self, sender: Actor, reader: Actor, text: str, **more: Any) -> Letter:
        said = f"{text}. ({self._nonce}-{len(self._letters) + 1})"
        async with self._step(f"{sender.name} sends {reader.name} a sealed message"):
            sent = await sender.call("send", to=reader.name, text=said, **more)
            letter = Letter(sent["id"], sender, reader, said)
            self._letters.append(letter)
            (to,) = sent["recipients"]
            _require(to["peer"] == reader.peer, f"it went to {to}")
            _require(to["e2e"] is True, "it was not sealed end to end")
            _require(to["status"] in {"accepted", "queued"}, f"it is {to['status']}")
            self._detail = f"{letter.id}, {to['status']}"
        return letter

    async def _is_read(self, letter: Letter, **expected: Any) -> None:
        reader = letter.reader
        async with self._step(f"{reader.name} reads it"):
            read = await reader.call("inbox", wait_s=_SOON_S)
            _require(len(read["messages"]) == 1, f"the inbox held {len(read['messages'])} messages")
            (message,) = read["messages"]
            told = {"id": letter.id, "from": letter.sender.peer, "text": letter.text, "e2e": True}
            for key, value in (told | expected).items():
                _require(message[key] == value, f"{key} was {message[key]!r}")
            self._detail = json_format.dumps(message["text"])

    async def _is_proved(self, letter: Letter) -> None:
        """Wait until the sender holds the reader's signature for delivered and seen."""
        async with self._step(f"{letter.sender.name} has {letter.reader.name}'s signed receipts"):
            row: dict[str, Any] = {}
            with anyio.move_on_after(_SOON_S):
                while row.get("status") != "seen":
                    # What the reader's client asks next proves that the text has reached it.
                    await letter.reader.ask("ping", {})
                    await anyio.sleep(_PAUSE_S)
                    status = await letter.sender.call("message_status", id=letter.id)
                    (row,) = status["recipients"]
            letter.receipts = [
                {"status": name, "at": row[f"{name}_at"], "signed": name in _SIGNED}
                for name in _TIMES
                if row.get(f"{name}_at")
            ]
            missing = _SIGNED - {one["status"] for one in letter.receipts}
            _require(not missing, f"no receipt says {' or '.join(sorted(missing))}: {row}")
            _require(row.get("proved") is True, f"a signature was not verified: {row}")
            self._detail = ", ".join(f"{one['status']} {one['at']}" for one in letter.receipts)

    async def _interrupt(self, stage: Stage, ada: Actor, bob: Actor, session: str) -> Actor:
        """Kill bob, write to him meanwhile, bring him back, and have him answer."""
        async with self._step("bob is killed"):
            await bob.kill()
            self.report["killed"] = {"pid": bob.process.pid}
            self._detail = f"SIGKILL to pid {bob.process.pid}"
        waiting = await self._exchange(ada, bob, "The deploy failed, look at the log")
        async with self._step("it lies sealed at the broker"):
            places = stage.check_sealed(waiting.id, self._nonce)
            self._detail = f"its id is in {', '.join(places)}, its text nowhere"
        async with self._step("bob is back, as the same peer"):
            again = await stage.enter("bob", session)
            same = again.peer == bob.peer
            pid = again.process.pid
            self.report["resumed"] = {"pid": pid, "peer": again.peer, "same_peer": same}
            _require(same, f"he is {again.peer}, and was {bob.peer}")
            self._detail = f"pid {pid}, {again.peer}"
        waiting.reader = again
        await self._is_read(waiting)
        await self._is_proved(waiting)
        answer = await self._exchange(again, ada, "On it", reply_to=waiting.id)
        await self._is_read(answer, reply_to=waiting.id)
        await self._is_proved(answer)
        return again

    async def _end(self, stage: Stage, *actors: Actor) -> None:
        async with self._step("the sessions and the broker end"):
            for actor in actors:
                await actor.leave()
            stopped = (await stage.run("down"))["stopped"]
            _require(stopped["pid"] == self.report["broker"]["pid"], f"another ended: {stopped}")
        async with self._step("no text is in any file of the broker"):
            for letter in self._letters:
                stage.check_sealed(letter.id, self._nonce)
            self._detail = f"{len(self._letters)} messages looked for"

    @asynccontextmanager
    async def _step(self, title: str) -> AsyncGenerator[None]:
        self._detail = ""
        self.report["error"] = {"code": "demo_failed", "step": title, "message": ""}
        try:
            yield
        except Failed as failure:
            self._tell("✗", title, str(failure))
            raise
        del self.report["error"]
        self._tell("✓", title, self._detail)


def _require(fact: object, otherwise: str) -> None:
    if not fact:
        raise Failed(otherwise)


def _silent(_mark: str, _title: str, _detail: str) -> None:
    """Print no step: the report says it all."""


def _print_step(mark: str, title: str, detail: str) -> None:
    show.line(f"{mark} {title}" + (f": {detail}" if detail else ""))
    sys.stdout.flush()


def _print_receipts(report: dict[str, Any]) -> None:
    print()
    for message in report["messages"]:
        show.line(f"{message['id']}  {message['from']} to {message['to']}")
        for receipt in message["receipts"]:
            whose = f"signed by {message['to']}" if receipt["signed"] else "the broker's word"
            show.line(f"{receipt['status']:<10} {receipt['at']}  {whose}", indent=4)
    killed, resumed = report["killed"]["pid"], report["resumed"]["pid"]
    show.line(
        f"Broker {report['broker']['pid']}, killed {killed}, resumed {resumed}:"
        f" everything arrived, in {report['seconds']} s."
    )
