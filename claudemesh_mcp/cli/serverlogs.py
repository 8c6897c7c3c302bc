"""The command ``mcp-server logs``: what a server that is hosted in this home writes to stderr.

``mcp_servers.py`` adds it. ``hosting/errlog.py`` writes the files and turns full ones over.
"""

import re
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import anyio
import typer

from claudemesh_mcp.cli import chosen, show
from claudemesh_wire.errors import NotFound

_LOOK_S: Final = 0.5
_NAME: Final = re.compile("[a-z0-9][a-z0-9_-]{0,39}")
_KEPT: Final = 2


def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The server's name.")],
    *,
    lines: Annotated[int, typer.Option(min=0, help="So many of the last lines.")] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what it writes, until Ctrl-C.")
    ] = False,
) -> None:
    """Print what a server that is hosted in this home has written to stderr.

    Of several with this name it is the one that has written last.

    \b
    Examples:
      claudemesh mcp-server logs time
      claudemesh mcp-server logs db --lines 200 --follow
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    path = _newest(chosen.settings().paths().logs, name)
    texts = [one.read_bytes() for one in _parts(path) if one.exists()]
    told = b"".join(texts)
    shown = told.splitlines()[-lines:] if lines else []
    for line in shown:
        _print(line)
    if follow:
        show.flush()
        anyio.run(partial(_follow, path, len(texts[-1]) if texts else 0))


def _newest(folder: Path, name: str) -> Path:
    found = list((folder / "mcp-servers").glob(f"*/{name}.log")) if _NAME.fullmatch(name) else []
    if not found:
        raise NotFound(
            f"No server {name[:80]!a} has written anything to stderr here.",
            "claudemesh mcp-server list shows which there are, and which are hosted here.",
            code="no_log",
        )
    return max(found, key=lambda path: path.stat().st_mtime)


def _parts(path: Path) -> list[Path]:
    """Give the files of a log, the oldest first."""
    older = [path.with_name(f"{path.name}.{number}") for number in range(_KEPT, 0, -1)]
    return [*older, path]


def _print(line: bytes) -> None:
    show.line(line.decode("utf-8", "replace"))


async def _follow(path: Path, offset: int) -> None:
    """Print what is written behind an offset, also once the file was turned over."""
    rest = b""
    while True:
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                # A shorter one is another file: the old one was full.
                offset = file.seek(offset if size >= offset else 0)
                data = file.read()
        except FileNotFoundError:
            data, offset = b"", 0
        offset += len(data)
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            _print(line)
        show.flush()
        await anyio.sleep(_LOOK_S)
