"""A peer of a real home that speaks frames over a WebSocket and keeps no rule of its own.

The process tests say with it to a real broker what no session would say. Of the session side it
uses the home's keys only, without which the broker lets nobody in.
"""

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
from websockets.asyncio.client import ClientConnection, connect

from claudemesh_mcp.brokerinfo import BrokerInfo
from claudemesh_mcp.config import Settings
from claudemesh_mcp.home import Home
from claudemesh_mcp.identity import Device, open_device, open_identity
from claudemesh_mcp.peer import system_ms
from claudemesh_wire import VERSION, canonical
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.content import KIND, ContentFields, pack
from claudemesh_wire.envelope import Header, MembershipHead, Sealed, seal
from claudemesh_wire.errors import MeshError
from claudemesh_wire.exchange import Answered, Event, Exchange, Noticed
from claudemesh_wire.handshake import (
    Challenge,
    Facts,
    Hello,
    Mode,
    Session,
    hello_mac,
    nonce_text,
    sign_hello,
)
from claudemesh_wire.keys import b64, make_id
from claudemesh_wire.membership import Chain
from claudemesh_wire.message import ReplyT, Request
from claudemesh_wire.messages import Resolve, Send
from claudemesh_wire.presence import Certify

LIMIT_S: Final = 60
_HOUR_MS: Final = 3600 * 1000


class RawClient:
    """One connection.

    Args:
        socket: To the broker.
        device: The keys of the peer it is.
    """

    def __init__(self, socket: ClientConnection, device: Device) -> None:
        self.socket = socket
        self.exchange = Exchange()
        self.certificate: Certificate
        self.facts: Facts
        self._device = device
        self._sent = 0

    async def event(self) -> Event | None:
        """Wait for what the broker says next."""
        return self.exchange.receive(await self.text())

    async def text(self) -> str:
        """Wait for the next frame, as it is."""
        with anyio.fail_after(LIMIT_S):
            return await self.socket.recv(decode=True)

    async def ask(self, request: Request[ReplyT]) -> ReplyT:
        """Ask, and give the reply or raise the refusal; notices are passed over."""
        number, text = self.exchange.ask(request)
        await self.socket.send(text)
        return await self.outcome(number)

    async def outcome(self, number: int) -> Any:
        """Wait for the answer to a request of the exchange."""
        while True:
            event = await self.event()
            if isinstance(event, Answered) and event.number == number:
                if isinstance(event.outcome, MeshError):
                    raise event.outcome
                return event.outcome

    async def answer(self, number: int) -> str:
        """Wait for the frame that answers a number, as it is."""
        while not (text := await self.text()).startswith(f"0 {number} "):
            pass
        return text

    async def say_hello(self, broker: BrokerInfo, handle: str) -> None:
        """Be let in, and be addressable under the handle that the broker gives."""
        event = await self.event()
        assert isinstance(event, Noticed)
        assert isinstance(event.notice, Challenge)
        device, identity = self._device, self._device.identity
        certificate = device.certify(handle, system_ms())
        head = Chain(identity.mesh).extend([identity.founding]).head
        claims = canonical.encode(
            {
                "v": 1,
                "broker": broker.id,
                "bn": nonce_text(event.notice.nonce),
                "cn": nonce_text(secrets.token_bytes(32)),
                "mode": Mode.ATTACH,
                "mesh": identity.mesh,
                "peer": device.peer,
                "cert": b64(certificate.hash),
                "head_seq": head.seq,
                "head": b64(head.hash),
                "version": VERSION,
                "handles": [handle],
                "session": Session(type="sdk").model_dump(),
            }
        )
        hello = Hello(
            claims=claims,
            certificate=certificate.blob,
            signature=sign_hello(claims, certificate.blob, device.sign),
            token_mac=hello_mac(broker.token, claims, certificate.blob),
            log=[identity.founding],
        )
        welcome = await self.ask(hello)
        self.facts = canonical.decode(welcome.facts, Facts, "facts")
        self.certificate = device.certify(self.facts.handle, system_ms())
        await self.ask(Certify(certificate=self.certificate.blob))

    async def seal(self, to: str, text: str | bytes, **changed: Any) -> Send:
        """Seal to whom the broker says; ``changed`` replaces fields of the header."""
        resolved = await self.ask(Resolve(to=[to]))
        certificates = [Certificate.parse(one.certificate) for one in resolved.recipients]
        self._sent += 1
        now_ms = system_ms()
        said: dict[str, Any] = {
            "mesh": self._device.identity.mesh,
            "conv": resolved.conversation,
            "kind": KIND,
            "id": make_id("msg_", secrets.token_bytes(16)),
            "sender": self._device.peer,
            "cert": b64(self.certificate.hash),
            "mh": MembershipHead(seq=resolved.head_seq, head=b64(resolved.head)),
            "seq": self._sent,
            "ts": now_ms,
            "exp": now_ms + _HOUR_MS,
            "to": [one.peer for one in resolved.recipients],
            "kgen": [one.fields.kem_generation for one in certificates],
            "kc": "",
        }
        plaintext = text if isinstance(text, bytes) else pack(ContentFields(), text)
        keys = [one.kem_key for one in certificates]
        header = Header(**{**said, **changed})
        sealed = seal(header, plaintext, keys, self._device.sign, secrets.token_bytes(32))
        return Send(envelope=sealed.to_bytes(), resolved_ms=resolved.resolved_ms)


def id_of(send: Send) -> str:
    """Give the id of the message in a request."""
    return Sealed.parse(send.envelope).read_header().id


@asynccontextmanager
async def raw_client(home: Home, broker: BrokerInfo, handle: str) -> AsyncGenerator[RawClient]:
    """Connect a raw client of this home's member; the same handle is the same peer again."""
    settings = Settings(home=home.data, keyring=False)
    identity = open_identity(home, settings)
    device = open_device(identity, f"raw:{handle}", system_ms())
    url = broker.url.replace("http", "ws", 1) + "/ws"
    async with connect(url, proxy=None, compression=None, max_size=None) as socket:
        client = RawClient(socket, device)
        await client.say_hello(broker, handle)
        yield client
