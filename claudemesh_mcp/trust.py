"""What this home believes of a mesh: its membership chain, kept on disk, and certificates under it.

``client.py`` checks the broker's head here, ``sending.py`` the recipients it resolved,
``receiving.py`` the senders of envelopes and signers of receipts. The file is shared by all
sessions of the home; a shorter or different history than the one on disk is refused.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar

from claudemesh_mcp.home import Home, atomic_write, file_lock, private_folder, read_private
from claudemesh_mcp.identity import Identity
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.envelope import Header, Refusal
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, MeshError
from claudemesh_wire.keys import public_hash
from claudemesh_wire.membership import Chain, Head, Member, walk
from claudemesh_wire.receipts import SignedReceipts, are_receipts_signed

_LENGTH_BYTES: Final = 4
_MOST_CERTIFICATES: Final = 2048
_REVOKED: Final = frozenset({"member_removed", "device_revoked"})
T = TypeVar("T")


class Trust:
    """The verified membership of one mesh and the certificates verified under it.

    Args:
        folder: Where the log is kept.
        chain: What was verified so far.
    """

    def __init__(self, folder: Path, chain: Chain) -> None:
        self.chain = chain
        self._folder = folder
        # The file's thread asks for certificates while the loop learns new ones.
        self._lock = threading.Lock()
        self._certificates: OrderedDict[bytes, Certificate] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[Certificate, MeshError]] = OrderedDict()

    @classmethod
    def open(cls, identity: Identity) -> "Trust":
        """Read the log of the identity's mesh and walk it; begins with the founding entry.

        Raises:
            Invalid: ``log_damaged``: the file was altered, or is of another mesh;
                ``unsupported_version``: a newer claudemesh wrote it.
        """
        folder = private_folder(identity.home.meshes / identity.mesh)
        trust = cls(folder, Chain(identity.mesh))
        trust.extend([])
        if trust.chain.head.seq == 0:
            trust.extend([identity.founding])
        return trust

    @property
    def path(self) -> Path:
        """The file of the log, which another session of the home may have made longer."""
        return self._folder / "log"

    @property
    def mesh(self) -> str:
        """The mesh's id."""
        return self.chain.mesh

    @property
    def head(self) -> Head:
        """Where the known history ends."""
        return self.chain.head

    def extend(self, entries: Iterable[bytes]) -> None:
        """Take in what follows the known history, verified, and keep it on disk.

        Args:
            entries: In order; those known already may come first.

        Raises:
            MeshError: an entry is refused by the walk; nothing of it is kept.
        """
        path = self.path
        with file_lock(self._folder / "lock"):
            kept = tuple(_read(path))
            chain = _longer(self.chain, kept, path)
            known = set(chain.entries)
            chain = chain.extend(entry for entry in entries if entry not in known)
            if chain.entries != kept:
                atomic_write(path, _write(chain.entries))
            if chain.entries != self.chain.entries:
                self._believe(chain)

    def _believe(self, chain: Chain) -> None:
        """Take over a longer history; certificates that it no longer bears out are dropped."""
        with self._lock:
            self.chain = chain
            self._refused.clear()
            for digest, certificate in list(self._certificates.items()):
                try:
                    chain.member_behind(certificate)
                except MeshError as error:
                    del self._certificates[digest]
                    self._refused[digest] = (certificate, error)

    def check_head(self, seq: int, head: bytes, least: int = 0) -> bool:
        """Compare the broker's head with the history that is known.

        Args:
            seq: How many entries the broker says there are.
            head: The hash of the last of them.
            least: How many it has to know, because it was told of them. Fewer than are known here
                by now are no lie by themselves: the answer may be older than the newest entry.

        Returns:
            Whether the broker knows more, which is to be fetched and verified.

        Raises:
            Conflict: ``membership_rollback``: the broker shows a shorter or another history.
        """
        return check_head(self.chain, seq, head, least)

    def check_seen_head(self, header: Header) -> None:
        """Compare the head a sender saw with ours.

        Raises:
            Refusal: ``membership_behind`` (fetch the log, then try again) or ``membership_fork``.
        """
        seen = header.mh
        if seen.seq > self.head.seq:
            raise Refusal(
                "The sender knows membership entries we lack.",
                "Fetch them, and look at it again.",
                code="membership_behind",
            )
        ours = self.chain.head_at(seen.seq)
        if ours is None or ours.hash != public_hash(seen.head):
            raise Refusal(
                "The sender was shown another membership log.",
                "An admin has to say which history is right.",
                code="membership_fork",
            )

    def verify(self, blob: bytes) -> Certificate:
        """Verify a certificate through the chain and remember it.

        Raises:
            Forbidden: ``not_a_member``, ``member_removed``, ``device_revoked`` or
                ``certificate_forged``.
            Invalid: it is malformed.
        """
        known = self.known(hashlib.sha256(blob).digest())
        if known is not None:
            return known
        certificate = Certificate.parse(blob)
        with self._lock:
            try:
                self.chain.member_behind(certificate)
            except MeshError as error:
                _keep(self._refused, certificate.hash, (certificate, error))
                raise
            _keep(self._certificates, certificate.hash, certificate)
        return certificate

    def learn(self, blobs: Iterable[bytes]) -> list[MeshError]:
        """Verify what can be verified of certificates that came along; give the refusals."""
        refused: list[MeshError] = []
        for blob in blobs:
            try:
                self.verify(blob)
            except MeshError as error:
                refused.append(error)
        return refused

    def known(self, digest: bytes) -> Certificate | None:
        """Give a verified certificate by its hash."""
        with self._lock:
            certificate = self._certificates.get(digest)
            if certificate is not None:
                self._certificates.move_to_end(digest)
        return certificate

    def sender_of(self, header: Header) -> Certificate:
        """Give the certificate an envelope names.

        Raises:
            Refusal: ``unknown_certificate`` as long as it was not fetched; ``revoked``, also of a
                member whose time was over, or the chain's own code when it is not believed.
        """
        self.check_seen_head(header)
        digest = public_hash(header.cert)
        certificate = self.known(digest)
        if certificate is None:
            refused = self._refused.get(digest)
            if refused is None:
                raise Refusal(
                    "The sender's certificate is not here.",
                    "Fetch it, and look at it again.",
                    code="unknown_certificate",
                )
            error = refused[1]
            code = "revoked" if error.code in _REVOKED else error.code
            raise Refusal(error.reason, error.hint, code=code) from error
        try:
            self.member_of(certificate, header.ts)
        except MeshError as error:
            raise Refusal(error.reason, error.hint, code="revoked") from error
        return certificate

    def member_of(self, certificate: Certificate, at_ms: int | None = None) -> Member:
        """Give the member behind a verified certificate.

        Args:
            certificate: Verified here.
            at_ms: A time at which its membership must not have been over; its end is no matter
                if not given.

        Raises:
            Forbidden: ``not_a_member``: the log knows none of that id; ``member_removed``: it left
                or was removed; ``member_expired``: its time was over at ``at_ms``.
        """
        member = self.chain.member(certificate.fields.member)
        if at_ms is not None and member.has_expired(at_ms):
            raise Forbidden(
                f"The membership of {member.name} has ended.",
                "An admin can remove it and take it back: claudemesh ban NAME, claudemesh unban"
                " NAME.",
                code="member_expired",
            )
        return member

    def check_receipts(self, batch: SignedReceipts) -> None:
        """Believe a batch of receipts, or say that it was forged.

        Raises:
            Forbidden: ``forged_receipt``: no known certificate of that peer, or not its signature;
                ``revoked``: its member or device has been removed since, or the member's time was
                over, so that its word proves nothing.
        """
        refused = self._refused.get(batch.certificate)
        if refused is not None and refused[1].code in _REVOKED:
            raise Forbidden(refused[1].reason, refused[1].hint, code="revoked")
        certificate = self.known(batch.certificate)
        genuine = (
            certificate is not None
            and all(item.at_ms <= certificate.fields.not_after for item in batch.items)
            and are_receipts_signed(self.mesh, batch, certificate)
        )
        if not genuine:
            raise Forbidden(
                f"A receipt was not signed by {batch.recipient}, whose word it claims to be.",
                "Do not rely on this broker's word about it.",
                code="forged_receipt",
            )
        if certificate is not None:
            try:
                self.member_of(certificate, max(item.at_ms for item in batch.items))
            except MeshError as error:
                raise Forbidden(error.reason, error.hint, code="revoked") from error


def check_head(chain: Chain, seq: int, head: bytes, least: int = 0) -> bool:
    """Compare a broker's head with a chain; see ``Trust.check_head``."""
    if seq > chain.head.seq:
        return True
    ours = chain.head_at(seq)
    if seq < least or ours is None or ours.hash != head:
        raise rolled_back(chain, seq)
    return False


def rolled_back(chain: Chain, seq: int) -> Conflict:
    """Say that a broker shows a shorter history than this home has verified, or another one."""
    return Conflict(
        f"The broker shows a membership log that ends at entry {seq},"
        f" unlike the {chain.head.seq} entries this home has verified.",
        "Do not trust this broker before an admin has explained it.",
        code="membership_rollback",
    )


def kept_log(home: Home, mesh: str) -> Chain:
    """Give what this home has verified of a mesh, also of one that it left; perhaps nothing.

    Raises:
        Invalid: as ``Trust.open``.
    """
    path = home.meshes / mesh / "log"
    return _longer(Chain(mesh), tuple(_read(path)), path)


def name_in_log(home: Home, mesh: str) -> str | None:
    """Give what its members call a mesh; ``None`` where this home's log of it can't be read."""
    try:
        return kept_log(home, mesh).name or None
    except MeshError:
        return None


def keep_log(home: Home, chain: Chain) -> None:
    """Put a verified log on disk, for a mesh that was just entered; a longer one there stays."""
    folder = private_folder(home.meshes / chain.mesh)
    Trust(folder, Chain(chain.mesh)).extend(chain.entries)


def _longer(known: Chain, kept: tuple[bytes, ...], path: Path) -> Chain:
    """Give the history known here or the one on disk, of which one continues the other."""
    ours = known.entries
    if ours[: len(kept)] == kept:
        # What was verified once is not forgotten because the file was cut or removed.
        return known
    try:
        # Another session of this home has learned more in the meantime.
        chain = walk(known.mesh, kept)
    except MeshError as error:
        if error.code == "unsupported_version":
            raise
        raise _damaged(path) from error
    if kept[: len(ours)] != ours:
        raise _damaged(path)
    return chain


def _read(path: Path) -> list[bytes]:
    data = read_private(path) or b""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        at += _LENGTH_BYTES
        if size == 0 or at + size > len(data):
            raise _damaged(path)
        entries.append(data[at : at + size])
        at += size
    return entries


def _damaged(path: Path) -> Invalid:
    return Invalid(
        f"{path} is damaged.",
        "Restore it from a backup, or remove it to have it fetched and verified again.",
        code="log_damaged",
    )


def _keep(known: "OrderedDict[bytes, T]", digest: bytes, what: T) -> None:
    known[digest] = what
    if len(known) > _MOST_CERTIFICATES:
        known.popitem(last=False)


def _write(entries: Iterable[bytes]) -> bytes:
    return b"".join(len(entry).to_bytes(_LENGTH_BYTES, "big") + entry for entry in entries)
