"""Lets a peer in: verifies its hello against the membership chain, then attaches or admits it.

A broker that other machines reach demands the local token of nobody; a mesh is made there by who
proves that token or the admin secret, since an address proves nothing: whatever hands connections
on has its own machine's. ``session.py`` hands in the first request of a connection. Everything the
hello claims is checked before anything is stored; what it proves becomes the connection's
``Caller``.
"""

from dataclasses import dataclass
from functools import partial
from typing import Final

from claudemesh_broker import arrivals
from claudemesh_broker.arrivals import Arrival, Arrived
from claudemesh_broker.delivery import Attachment
from claudemesh_broker.offered import Offer, Offered, is_proved, longest
from claudemesh_broker.roster import (
    check_certificate,
    entries_after,
    mesh_ended,
    unknown_mesh,
)
from claudemesh_broker.service import Caller, Parts
from claudemesh_wire import DATA_VERSION, VERSION, canonical
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Conflict, Forbidden, MeshError, Unauthenticated
from claudemesh_wire.handshake import (
    Claims,
    Facts,
    Hello,
    Welcome,
    admin_mac,
    hello_mac,
    is_charter,
    is_hello_signed,
    nonce_text,
    write_charter,
    write_welcome,
)
from claudemesh_wire.keys import SigningKey, b64, broker_id, same
from claudemesh_wire.membership import Chain

MAX_ENTRIES: Final = 200


@dataclass(frozen=True)
class Identity:
    """What makes this broker itself.

    Args:
        key: Its signing key; the broker's id is made of its public half.
        token: The local token whose knowledge every client has to prove, if there is one.
        node: The name of this process among those that share the data.
        admin_secret: Whoever proves to know it may make meshes here from another home.
    """

    key: SigningKey
    token: bytes | None
    node: str
    admin_secret: bytes | None = None

    @property
    def id(self) -> str:
        """The broker's id."""
        return broker_id(self.key.public)


@dataclass(frozen=True)
class Origin:
    """Where a connection comes from.

    Args:
        address: That of whoever is at its other end, as far as it is known.
        is_local: Whether that is this machine.
        place: Whose connections it is counted among; empty when nobody's.
    """

    address: str
    is_local: bool
    place: str = ""

    @property
    def rated_as(self) -> str:
        """Whose rate its hellos draw on: its place's, as far as it has one."""
        return self.place or self.address


@dataclass(frozen=True)
class Admitted:
    """A caller, and the welcome that tells it so."""

    caller: Caller
    welcome: Welcome
    arrived: Arrived


class Admission:
    """The door of one broker."""

    def __init__(self, parts: Parts, identity: Identity) -> None:
        self.parts = parts
        self.identity = identity

    async def admit(self, hello: Hello, nonce: bytes, origin: Origin, offered: Offered) -> Admitted:
        """Verify a hello and let its peer in.

        Args:
            hello: The first request of a connection.
            nonce: The one that was sent in this connection's challenge.
            origin: Where the connection comes from.
            offered: What came of a log in earlier hellos of this connection; is added to.

        Raises:
            Unauthenticated: the token, a nonce, a signature or the certificate is not right.
            NotFound: ``unknown_mesh``: say hello again with the log.
            Conflict: ``membership_fork``, or ``membership_behind``: say hello again with the log
                from ``details.head_seq`` on.
            Forbidden: the chain does not bear the certificate out, or the peer is another's;
                ``membership_forbidden``: the log holds what this member can't vouch for.
            Invalid: ``clock``: an entry of the log is of a time to come.
        """
        is_home = self._check_token(hello)
        claims = self._read_claims(hello, nonce)
        certificate = _read_certificate(hello, claims)
        is_near = origin.is_local or self.parts.reach is not None
        may_found = self._is_vouched_for(hello, claims) or (is_home and is_near)
        chain = await self._chain(hello, claims, certificate, offered, may_found=may_found)
        return await self._arrive(hello, claims, certificate, chain)

    def _check_token(self, hello: Hello) -> bool:
        token = self.identity.token
        if token is None or (self.parts.reach is not None and not hello.token_mac):
            return False
        if not same(hello.token_mac, hello_mac(token, hello.claims, hello.certificate)):
            raise Unauthenticated(
                "The hello does not prove the local token.",
                "Run as the user whose broker this is, with the same CLAUDEMESH_HOME.",
                code="bad_token",
            )
        return True

    def _is_vouched_for(self, hello: Hello, claims: Claims) -> bool:
        """Tell whether the broker's admin, or this broker itself before, admitted the mesh."""
        secret = self.identity.admin_secret
        if hello.admin_mac:
            mac = admin_mac(secret, hello.claims, hello.certificate) if secret else b""
            if not same(hello.admin_mac, mac):
                raise Unauthenticated(
                    "The hello does not prove the broker's admin secret.",
                    "Name the file that `claudemesh broker run` told, as it is there now.",
                    code="bad_admin_secret",
                )
            return True
        return is_charter(hello.charter, self.identity.key.public, claims.mesh)

    def _read_claims(self, hello: Hello, nonce: bytes) -> Claims:
        claims = canonical.decode(hello.claims, Claims, "claims")
        if (claims.broker, claims.bn) != (self.identity.id, nonce_text(nonce)):
            raise Unauthenticated(
                "The hello is meant for another broker or another connection.",
                "Connect again.",
                code="wrong_broker",
            )
        return claims

    async def _chain(
        self,
        hello: Hello,
        claims: Claims,
        certificate: Certificate,
        offered: Offered,
        *,
        may_found: bool,
    ) -> Chain:
        """Give the mesh's chain, with what the client knows beyond it; checks the certificate."""
        while True:
            known = await self.parts.roster.load(claims.mesh)
            if known is None and not (hello.log and may_found):
                raise _unknown(claims.mesh, is_offered=bool(hello.log))
            now_ms, is_known = self.parts.now_ms(), known is not None
            offer = Offer(hello.log, certificate, now_ms, is_known=is_known)
            chain = longest(offered.behind(known, certificate.hash), offer, claims)
            may_offer = may_found or (known is not None and is_proved(known, certificate, now_ms))
            if may_offer and hello.log and chain.head.seq < claims.head_seq:
                offered.keep(chain, certificate.hash, is_known=is_known)
                raise _is_behind(chain)
            self._check_member(chain, certificate, claims)
            _compare_heads(chain, claims)
            if chain is known:
                return chain
            try:
                if chain.ended:
                    await self.parts.end_mesh(chain, known)
                    raise mesh_ended()
                return await self.parts.append_log(chain, known)
            except Conflict as moved:
                # Another connection offers the same log at this moment.
                if moved.code != "membership_moved":
                    raise
                await self.parts.roster.reload(claims.mesh)

    def _check_member(self, chain: Chain, certificate: Certificate, claims: Claims) -> None:
        """Refuse a removed member, with what it needs to return when its time has come."""
        try:
            check_certificate(chain, certificate, self.parts.now_ms())
        except Forbidden as error:
            if error.code == "member_removed" and error.details.get("returns_ms"):
                lacking = entries_after(chain, claims.head_seq, MAX_ENTRIES)
                error.details["entries"] = [b64(entry) for entry in lacking]
            raise

    async def _arrive(
        self, hello: Hello, claims: Claims, certificate: Certificate, chain: Chain
    ) -> Admitted:
        parts = self.parts
        now_ms = parts.now_ms()
        mode = claims.mode
        arrival = Arrival(
            mode=mode,
            certificate=certificate,
            wishes=claims.handles,
            session=claims.session,
            version=claims.version,
            node=self.identity.node,
            now_ms=now_ms,
        )
        arrived = await parts.commit(partial(arrivals.arrive, arrival=arrival))
        parts.roster.remember(certificate)
        said = certificate.fields
        device = b64(certificate.sign_key.fingerprint)
        place = Attachment(said.mesh, said.peer, said.member, device, arrived.fence)
        caller = Caller(mode, place)
        facts = Facts(
            broker=claims.broker,
            bn=claims.bn,
            cn=claims.cn,
            peer=said.peer,
            handle=arrived.handle,
            fence=arrived.fence,
            head_seq=chain.head.seq,
            head=b64(chain.head.hash),
            now=now_ms,
            version=VERSION,
            data_version=DATA_VERSION,
            last_seen=arrived.last_seen_ms,
            lease=parts.settings.lease_ms,
            credit=parts.deliveries.credit.messages,
            queued=arrived.queued,
            succeeds=list(arrived.succeeds),
        )
        lacking = entries_after(chain, claims.head_seq, MAX_ENTRIES)
        welcome = write_welcome(
            facts, hello.claims, self.identity.key, self.identity.token, lacking
        )
        charter = write_charter(self.identity.key, said.mesh)
        return Admitted(caller, welcome.model_copy(update={"charter": charter}), arrived)


def _unknown(mesh: str, *, is_offered: bool) -> MeshError:
    if not is_offered:
        return unknown_mesh(mesh)
    return Forbidden(
        "This broker takes new meshes from its own home, or with its admin secret.",
        "Give claudemesh mesh create the file that its admin has: --admin-secret-file FILE."
        " For a mesh that it has lost: claudemesh mesh trust NAME --admin-secret-file FILE.",
        code="may_not_found",
    )


def _read_certificate(hello: Hello, claims: Claims) -> Certificate:
    """Give the certificate that the claims name, if its device signed the hello."""
    certificate = Certificate.parse(hello.certificate)
    said = certificate.fields
    is_named = claims.cert == b64(certificate.hash)
    if not is_named or (said.mesh, said.peer) != (claims.mesh, claims.peer):
        raise Unauthenticated(
            "The certificate is not the one that the hello names.", code="wrong_certificate"
        )
    if not is_hello_signed(hello, certificate.sign_key):
        raise Unauthenticated("The hello is not signed by its device.", code="bad_signature")
    return certificate


def _is_behind(chain: Chain) -> Conflict:
    return Conflict(
        "The client's membership log is longer than the broker's.",
        "Say hello again with the membership log.",
        code="membership_behind",
        details={"head_seq": chain.head.seq},
    )


def _compare_heads(chain: Chain, claims: Claims) -> None:
    """Refuse a client that believes in another history than this broker."""
    if claims.head_seq > chain.head.seq:
        raise _is_behind(chain)
    here = chain.head_at(claims.head_seq)
    if here is None or b64(here.hash) != claims.head:
        raise Conflict(
            "The client's membership log and the broker's have parted.",
            "One was tampered with or restored from a copy: restore it again, and connect first"
            " from a home that knows the newest changes of members.",
            code="membership_fork",
        )
