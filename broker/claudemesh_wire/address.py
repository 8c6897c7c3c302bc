"""The grammar of addresses: a peer, ``member/handle``, ``@group``, ``#topic``, everybody.

Tools and the broker's roster parse with it; a name validated here is the only kind of name that
reaches SQL or a conversation id.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Final

from pydantic import AfterValidator, StringConstraints

from claudemesh_wire.errors import Invalid
from claudemesh_wire.keys import make_id

MAX_HANDLE: Final = 40
MIN_ID_PREFIX: Final = 8
PEER_ID_LENGTH: Final = 28
HANDLE_PATTERN: Final = r"[a-z0-9](?:[a-z0-9._-]{0,38}[a-z0-9])?"
_HANDLE: Final = re.compile(HANDLE_PATTERN, re.ASCII)
_DIRECT: Final = re.compile(r"d_[a-z2-7]{26}", re.ASCII)
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", re.ASCII)
_PEER_ID: Final = re.compile(rf"p_[a-z2-7]{{{MIN_ID_PREFIX - 2},26}}", re.ASCII)
_MEMBER_ID: Final = re.compile(r"mem_[a-z2-7]{26}", re.ASCII)
_RESERVED: Final = ("p_", "mem_", "mesh_", "msg_", "b_")
_EVERYBODY: Final = "all"
_TWO: Final = 2


def _unreserved(handle: str) -> str:
    if handle.startswith(_RESERVED):
        raise ValueError("a handle does not look like an id")
    return handle


def _joinable(group: str) -> str:
    if group == _EVERYBODY:
        raise ValueError("@all is everybody, not a group")
    return group


Handle = Annotated[
    str,
    StringConstraints(pattern=f"^{HANDLE_PATTERN}$", max_length=MAX_HANDLE),
    AfterValidator(_unreserved),
]
GroupName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$"),
    AfterValidator(_joinable),
]


class AddressKind(StrEnum):
    """What an address names."""

    HANDLE = "handle"
    MEMBER_HANDLE = "member_handle"
    PEER_ID = "peer_id"
    GROUP = "group"
    TOPIC = "topic"
    EVERYBODY = "everybody"


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address; ``name`` is without its sign, ``member`` only for ``member/handle``."""

    kind: AddressKind
    name: str
    member: str = ""

    def __str__(self) -> str:
        """Write it as a user would."""
        match self.kind:
            case AddressKind.GROUP:
                return f"@{self.name}"
            case AddressKind.TOPIC:
                return f"#{self.name}"
            case AddressKind.EVERYBODY:
                return "*"
            case AddressKind.MEMBER_HANDLE:
                return f"{self.member}/{self.name}"
            case _:
                return self.name

    @property
    def is_multicast(self) -> bool:
        """Whether it stands for however many peers there are."""
        return self.kind in {AddressKind.GROUP, AddressKind.TOPIC, AddressKind.EVERYBODY}


@lru_cache(maxsize=2048)
def parse(text: str) -> Address:
    """Read one address.

    Raises:
        Invalid: it fits no form; the hint lists the forms.
    """
    if not text.isascii():  # Lower-casing would make letters of lookalikes, as of the Kelvin sign.
        raise _no_address(text)
    written = text.strip(" ").lower()
    if written in {"*", f"@{_EVERYBODY}"}:
        return Address(AddressKind.EVERYBODY, "*")
    for sign, kind in (("@", AddressKind.GROUP), ("#", AddressKind.TOPIC)):
        if written.startswith(sign):
            return Address(kind, _checked_name(written[1:], text))
    if written.startswith("p_"):
        return _peer_id(written, text)
    member, slash, handle = written.partition("/")
    if slash:
        return Address(
            AddressKind.MEMBER_HANDLE, _checked_handle(handle, text), _checked_member(member, text)
        )
    return Address(AddressKind.HANDLE, _checked_handle(written, text))


def _peer_id(written: str, text: str) -> Address:
    if not _PEER_ID.fullmatch(written):
        raise _no_address(text)
    return Address(AddressKind.PEER_ID, written)


def _checked_handle(handle: str, text: str) -> str:
    if not is_handle(handle):
        raise _no_address(text)
    return handle


def _checked_member(member: str, text: str) -> str:
    """Give a member's name, or its id, which stays when a name is given to another."""
    return member if _MEMBER_ID.fullmatch(member) else _checked_handle(member, text)


def _checked_name(name: str, text: str) -> str:
    if not _NAME.fullmatch(name):
        raise _no_address(text)
    return name


def _no_address(text: str) -> Invalid:
    shown = ascii(text[:60])
    return Invalid(
        f"{shown} is not an address.",
        "Use a handle (ada), member/handle, a peer id or its first 8 characters, @group, or *.",
        code="bad_address",
    )


def is_handle(text: str) -> bool:
    """Tell whether a text may be somebody's handle (lower case ASCII, 1 to 40 characters)."""
    return _HANDLE.fullmatch(text) is not None and not text.startswith(_RESERVED)


def handle_from(text: str, *, otherwise: str = "peer") -> str:
    """Make a handle out of a folder or user name: lower case, other characters become ``-``."""
    folded = re.sub(r"[^a-z0-9._-]+", "-", text.lower().strip())[:MAX_HANDLE].strip("._-")
    if folded.startswith(_RESERVED):
        folded = folded.replace("_", "-", 1)
    return folded if is_handle(folded) else otherwise


def direct_conversation(participants: Iterable[str]) -> str:
    """Name the conversation of these peers: the same for each of them, whoever writes."""
    these = sorted(set(participants))
    return _between(*these) if len(these) == _TWO else _conversation(these)


@lru_cache(maxsize=8192)
def _between(one: str, other: str) -> str:
    return _conversation([one, other])


def _conversation(these: list[str]) -> str:
    joined = "\n".join(these).encode()
    return make_id("d_", hashlib.sha256(b"claudemesh/conversation/v1\n" + joined).digest())


def is_conversation(text: str) -> bool:
    """Tell whether a text names a conversation: direct, ``@group``, ``#topic`` or ``*``."""
    if text == "*" or _DIRECT.fullmatch(text):
        return True
    if text == f"@{_EVERYBODY}":  # Its one name is "*".
        return False
    return text[:1] in {"@", "#"} and _NAME.fullmatch(text[1:]) is not None
