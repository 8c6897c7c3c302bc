"""How a server is started or reached: a command with its environment, or a URL with its headers.

Whoever registers a server describes it by a ``Launch``; ``transport.py`` starts it, and ``to_json``
is what is kept sealed of a server that comes back.
"""

import ipaddress
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, cast
from urllib.parse import SplitResult, parse_qsl, urlsplit

from claudemesh_wire.errors import Invalid

MAX_LAUNCH_BYTES: Final = 64 * 1024
_SHORTEST_SECRET: Final = 6
"""What is shorter, as a port or a switch, stands in too many texts to be taken out of them."""
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e\t]*")
_OF_THE_TRANSPORT: Final = frozenset(
    {"accept", "connection", "content-length", "content-type", "host", "transfer-encoding"}
)


@dataclass(frozen=True)
class Launch:
    """How a server is started or reached: by a command or by a URL.

    Only what can't be a secret is in its ``repr``: the name of the program, or the URL's host.

    Args:
        command: The program, a path or a name to be found in ``PATH``.
        args: Its arguments.
        env: What its environment has beside the little that every server gets.
        cwd: The folder it runs in; empty for that of the session.
        url: Where it answers Streamable HTTP.
        headers: Go along with each request to the URL.

    Raises:
        Invalid: ``bad_launch``.
    """

    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str = ""
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        """Refuse what could not be started."""
        if bool(self.command) == bool(self.url):
            raise _bad("it needs either a command or a url")
        if self.url:
            self._check_url()
        else:
            self._check_command()
        if len(self.to_json()) > MAX_LAUNCH_BYTES:
            raise _bad(f"it has more than {MAX_LAUNCH_BYTES} bytes")

    def _check_command(self) -> None:
        if self.headers:
            raise _bad("headers go with a url, not with a command")
        texts = (self.command, *self.args, *self.env.keys(), *self.env.values(), self.cwd)
        if any("\0" in text for text in texts):
            raise _bad("there is a NUL character in it")
        if any(not name or "=" in name for name in self.env):
            raise _bad("a name in env is empty or has an equals sign in it")

    def _check_url(self) -> None:
        if self.args or self.env or self.cwd:
            raise _bad("args, env and cwd go with a command, not with a url")
        parts = self._parts()
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise _bad("the url must begin with https:// (or http://) and name a host")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise _bad("plain http is for this machine only: use https")
        if parts.username is not None or parts.fragment:
            raise _bad("the url has a user or a fragment in it: put a password into headers")
        for name, value in self.headers.items():
            if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
                raise _bad("a header has a character in it that headers can't have")
            if name.lower() in _OF_THE_TRANSPORT or name.lower().startswith("mcp-"):
                raise _bad(f"the header {name} is set for each request anew")

    def _parts(self) -> SplitResult:
        try:
            parts = urlsplit(self.url)
            _ = parts.port
        except ValueError as error:
            raise _bad("the url is none") from error
        if not self.url.isascii() or not self.url.isprintable() or " " in self.url:
            raise _bad("the url has characters in it that have to be escaped")
        return parts

    @property
    def shown(self) -> str:
        """Name it without anything secret: the program, or scheme and host of the URL."""
        if self.command:
            return self.command
        parts = self._parts()
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}"

    @property
    def command_line(self) -> str:
        """The whole command for its owner's eyes: arguments may be secret; or ``shown``."""
        return shlex.join((self.command, *self.args)) if self.command else self.shown

    def hide(self, text: str) -> str:
        """Take out of a text whatever values of env, headers and the URL's query are in it."""
        for secret in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def _secrets(self) -> set[str]:
        given = {*self.env.values(), *self.headers.values()}
        given |= {value for _, value in parse_qsl(self._parts().query)} if self.url else set()
        # Of `Bearer …` the second word alone is as secret.
        words = {word for value in self.headers.values() for word in value.split()[1:]}
        return {one for one in given | words if len(one) >= _SHORTEST_SECRET}

    def __repr__(self) -> str:
        """Name it without anything secret."""
        return f"Launch({self.shown!r})"

    def to_json(self) -> bytes:
        """Write it down, secrets too."""
        said = {
            "command": self.command,
            "args": list(self.args),
            "env": dict(self.env),
            "cwd": self.cwd,
            "url": self.url,
            "headers": dict(self.headers),
        }
        kept = {name: value for name, value in said.items() if value}
        return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            Invalid: ``bad_launch``.
        """
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _bad("it is not JSON") from error
        if not isinstance(found, dict):
            raise _bad("it is no object")
        said = cast("dict[str, Any]", found)
        args = said.get("args", [])
        if not isinstance(args, list):
            raise _bad("args is no list of texts")
        return cls(
            command=_text(said.get("command", "")),
            args=tuple(_text(one) for one in cast("list[Any]", args)),
            env=_texts(said.get("env", {})),
            cwd=_text(said.get("cwd", "")),
            url=_text(said.get("url", "")),
            headers=_texts(said.get("headers", {})),
        )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _bad("a value in it is no text")
    return value


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _bad("env and headers are objects of texts")
    return {_text(name): _text(one) for name, one in cast("dict[Any, Any]", value).items()}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bad(why: str) -> Invalid:
    return Invalid(
        f"This is no way to start a server: {why}.",
        "Give command (with args, env, cwd) or url (with headers).",
        code="bad_launch",
    )
