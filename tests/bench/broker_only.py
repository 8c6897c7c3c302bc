"""How much the broker alone can do: envelopes sealed beforehand, clients that only move frames.

    python tests/bench/broker_only.py [PEERS] [MESSAGES] [--window 32]

A broker process on a throw-away home; half of the peers write to the other half, each sender with
``--window`` unanswered sends. Readers ack what they are given in one report per frame, with
receipts that nobody signs: the broker does not look at that. The last line is one JSON object.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import os
import resource
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from claudemesh_wire import canonical
from claudemesh_wire.address import direct_conversation
from claudemesh_wire.certificate import LIFETIME_MS, Certificate, CertificateFields
from claudemesh_wire.envelope import Header, MembershipHead, seal
from claudemesh_wire.exchange import Exchange, Noticed
from claudemesh_wire.handshake import Challenge, Claims, Hello, Mode, hello_mac, sign_hello
from claudemesh_wire.keys import (
    KemPrivateKey,
    SigningKey,
    b64,
    make_id,
    member_id,
    mesh_id,
    peer_id,
    unb64,
)
from claudemesh_wire.membership import Entry, EntryFields, walk

ROOT = Path(__file__).parents[2]
GENEROUS = {
    f"CLAUDEMESH_BROKER_{name}": "1000000"
    for name in ("CHAT_PER_S", "CHAT_BURST", "RPC_PER_S", "RPC_BURST", "AUTH_PER_S", "AUTH_BURST")
}
TEXT_BYTES = 400


@dataclass
class Peer:
    """One client, its keys and its socket."""

    number: int
    mesh: "Home"
    sign: SigningKey = field(default_factory=lambda: SigningKey(secrets.token_bytes(32)))
    kem: KemPrivateKey = field(default_factory=lambda: KemPrivateKey(secrets.token_bytes(32)))
    sends: list[str] = field(default_factory=list[str])
    began: dict[str, float] = field(default_factory=dict[str, float])
    accepted_ms: list[float] = field(default_factory=list[float])
    delivered: list[str] = field(default_factory=list[str])
    news: int = 0

    def __post_init__(self) -> None:
        """Make its certificate."""
        now = now_ms()
        anchor = hashlib.sha256(str(self.number).encode()).digest()
        self.peer = peer_id(self.mesh.id, self.mesh.member, anchor)
        self.certificate = Certificate.issue(
            CertificateFields(
                mesh=self.mesh.id,
                member=self.mesh.member,
                peer=self.peer,
                anchor=b64(anchor),
                handle=f"peer-{self.number}",
                sign=b64(self.sign.public.raw),
                kem=b64(self.kem.public.raw),
                kem_generation=1,
                not_before=now - 1000,
                not_after=now + LIFETIME_MS,
            ),
            self.mesh.key,
        )

    async def connect(self, url: str, token: bytes) -> ClientConnection:
        """Connect and be welcomed."""
        socket = await connect(
            url.replace("http", "ws") + "/ws",
            compression=None,
            proxy=None,
            max_size=None,
            ssl=unchecked() if url.startswith("https") else None,
        )
        exchange = Exchange()
        event = exchange.receive(str(await socket.recv()))
        assert isinstance(event, Noticed)
        assert isinstance(event.notice, Challenge)
        claims = canonical.encode(
            Claims(
                broker=event.notice.broker,
                bn=b64(event.notice.nonce),
                cn=b64(bytes(32)),
                mode=Mode.ATTACH,
                mesh=self.mesh.id,
                peer=self.peer,
                cert=b64(self.certificate.hash),
                head_seq=1,
                head=b64(self.mesh.head),
                version="bench",
            )
        )
        blob = self.certificate.blob
        hello = Hello(
            claims=claims,
            certificate=blob,
            signature=sign_hello(claims, blob, self.sign),
            token_mac=hello_mac(token, claims, blob),
            log=[self.mesh.entry],
        )
        await socket.send(exchange.ask(hello)[1])
        answer = str(await socket.recv())
        assert answer.startswith("0 1 handshake.welcome "), answer
        return socket

    def seal_to(self, reader: "Peer", count: int) -> None:
        """Seal messages and write their frames."""
        for number in range(count):
            now = now_ms()
            message = make_id("msg_", secrets.token_bytes(16))
            header = Header(
                mesh=self.mesh.id,
                conv=direct_conversation([self.peer, reader.peer]),
                kind="message",
                id=message,
                sender=self.peer,
                cert=b64(self.certificate.hash),
                mh=MembershipHead(seq=1, head=b64(self.mesh.head)),
                seq=number + 1,
                ts=now,
                exp=now + 3600_000,
                to=[reader.peer],
                kgen=[1],
            )
            sealed = seal(
                header, bytes(TEXT_BYTES), [reader.kem.public], self.sign, secrets.token_bytes(32)
            )
            body = base64.urlsafe_b64encode(sealed.to_bytes()).decode()
            self.sends.append(
                f'{number + 1} 0 messages.send {{"envelope":"{body}","resolved_ms":%d}}'
            )


class Home:
    """A mesh of one member."""

    def __init__(self) -> None:
        self.key = SigningKey(secrets.token_bytes(32))
        self.member = member_id(self.key.public)
        salt = secrets.token_bytes(16)
        self.id = mesh_id(self.key.public, salt)
        self.entry = Entry.issue(
            EntryFields(
                mesh=self.id,
                seq=1,
                prev="",
                at=now_ms(),
                kind="found",
                by=self.member,
                member=self.member,
                key=b64(self.key.public.raw),
                name="bench",
                salt=b64(salt),
                mesh_name="bench",
            ),
            self.key,
        ).blob
        self.head = walk(self.id, [self.entry]).head.hash


def unchecked() -> ssl.SSLContext:
    """Give TLS that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def now_ms() -> int:
    """Give the time."""
    return time.time_ns() // 1_000_000


async def write(peer: Peer, socket: ClientConnection, window: int) -> None:
    """Send everything, with so many sends unanswered."""
    room = asyncio.Semaphore(window)
    answers = asyncio.create_task(hear_answers(peer, socket, room))  # noqa: TID251 - awaited below
    for number, text in enumerate(peer.sends, 1):
        await room.acquire()
        peer.began[str(number)] = time.perf_counter()
        await socket.send(text % now_ms())
    await answers


async def hear_answers(peer: Peer, socket: ClientConnection, room: asyncio.Semaphore) -> None:
    """Take answers, and receipts until there is one for each message."""
    while len(peer.accepted_ms) < len(peer.sends) or peer.news < len(peer.sends):
        text = str(await socket.recv())
        _, number, kind, body = text.split(" ", 3)
        if kind == "receipts.news":
            peer.news += body.count('"status"')
        elif number != "0":
            assert kind == "messages.accepted", text
            peer.accepted_ms.append((time.perf_counter() - peer.began[number]) * 1000)
            room.release()


async def read(peer: Peer, socket: ClientConnection, sender: Peer) -> None:
    """Take deliveries and ack each frame with one report."""
    name = base64.urlsafe_b64encode(peer.certificate.hash).decode()
    count, asked = len(sender.sends), 0
    while len(peer.delivered) < count or asked:
        text = str(await socket.recv())
        _, number, kind, body = text.split(" ", 3)
        if number != "0":
            assert kind == "receipts.reported", text
            asked -= 1
        if kind != "messages.deliver":
            continue
        items: list[dict[str, Any]] = []
        for one in json.loads(body)["deliveries"]:
            copy = base64.urlsafe_b64decode(one["envelope"])
            raw = copy[7 : 7 + int.from_bytes(copy[1:3])]
            identity = json.loads(raw)["id"]
            peer.delivered.append(identity)
            items.append(
                {
                    "id": identity,
                    "header_hash": base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).decode(),
                    "status": "delivered",
                    "at_ms": now_ms(),
                }
            )
        batch = {
            "sender": sender.peer,
            "recipient": peer.peer,
            "certificate": name,
            "items": items,
            "signature": "A" * 86 + "==",
        }
        asked += 1
        await socket.send(
            f"{len(peer.delivered)} 0 receipts.report {json.dumps({'batches': [batch]})}"
        )


def percentiles(values: list[float]) -> dict[str, float]:
    """Give p50, p95 and p99."""
    ordered = sorted(values)
    return {
        f"p{part}": round(ordered[min(len(ordered) * part // 100, len(ordered) - 1)], 2)
        for part in (50, 95, 99)
    }


async def measure(url: str, token: bytes, options: argparse.Namespace, pid: int) -> dict[str, Any]:
    """Connect, seal, send, read, and give what was seen."""
    home = Home()
    peers = [Peer(number, home) for number in range(options.peers * 2)]
    senders, readers = peers[: options.peers], peers[options.peers :]
    sockets = {peer.number: await peer.connect(url, token) for peer in peers}
    for sender, reader in zip(senders, readers, strict=True):
        sender.seal_to(reader, options.messages)
    cpu_before, own_before = cpu_s(pid), resource.getrusage(resource.RUSAGE_SELF).ru_utime
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for sender, reader in zip(senders, readers, strict=True):
            tasks.create_task(write(sender, sockets[sender.number], options.window))
            tasks.create_task(read(reader, sockets[reader.number], sender))
    seconds = time.perf_counter() - began
    cpu = cpu_s(pid) - cpu_before
    for socket in sockets.values():
        await socket.close()
    counted = Counter(one for reader in readers for one in reader.delivered)
    sent = options.peers * options.messages
    return {
        "senders": options.peers,
        "messages": sent,
        "window": options.window,
        "delivered": len(counted),
        "repeated": sum(count - 1 for count in counted.values()),
        "lost": sent - len(counted),
        "seconds": round(seconds, 3),
        "messages_per_s": round(sent / seconds),
        "messages_per_broker_cpu_s": round(sent / cpu),
        "accepted_ms": percentiles([one for sender in senders for one in sender.accepted_ms]),
        "broker_cpu_s": round(cpu, 2),
        "client_cpu_s": round(resource.getrusage(resource.RUSAGE_SELF).ru_utime - own_before, 2),
        "broker_rss_mb": rss_mb(pid),
    }


def cpu_s(pid: int) -> float:
    """Give the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Give the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024, 1)


@dataclass
class Running:
    """A broker's process, and how to be let in."""

    url: str
    token: bytes
    pid: int


@contextmanager
def running(*flags: str, profiled: Sequence[str] = ()) -> Iterator[Running]:
    """Run a broker on a throw-away home."""
    folder = Path(tempfile.mkdtemp(prefix="claudemesh-bench-"))
    command = [sys.executable, *profiled, "-m", "claudemesh_broker", "run", "--port", "0", *flags]
    command += ["--data", str(folder / "broker"), "--run", str(folder / "run")]
    path = os.pathsep.join((str(ROOT), str(ROOT / "broker")))
    environment = {**os.environ, **GENEROUS, "PYTHONPATH": path}  # noqa: TID251 - a child's
    with (folder / "log").open("w") as log:
        broker = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
    try:
        assert broker.stdout is not None
        url = broker.stdout.readline().rsplit(" ", 1)[-1].strip()
        said = json.loads((folder / "run" / "broker.json").read_text())
        yield Running(url, unb64(said["token"]), broker.pid)
    finally:
        broker.send_signal(signal.SIGTERM)
        broker.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Start a broker, measure it, print one line; gives whether all came through once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("peers", type=int, nargs="?", default=50)
    parser.add_argument("messages", type=int, nargs="?", default=200)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--profile", type=Path, help="write a profile of the broker there")
    options = parser.parse_args()
    profiled = ["-m", "cProfile", "-o", str(options.profile)] if options.profile else []
    with running(profiled=profiled) as broker:
        result = asyncio.run(measure(broker.url, broker.token, options, broker.pid))
    print(json.dumps(result))
    return 1 if result["lost"] or result["repeated"] else 0


if __name__ == "__main__":
    sys.exit(main())
