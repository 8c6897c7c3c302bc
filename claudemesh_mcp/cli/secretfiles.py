"""Reads what may be secret for a server: from variables and files, and from no command line.

``mcp_servers.py`` asks it. Whatever stands in a command line every user of the machine can read,
and a shell keeps it.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from claudemesh_mcp.config import named_variable
from claudemesh_wire.errors import Invalid, NotFound

_MOST_BYTES: Final = 256 * 1024


def variables(names: Sequence[str], file: Path | None) -> dict[str, str]:
    """Give the environment that a server is to have: of a file, and over it variables by name.

    Args:
        names: Variables of this command whose values it is to have.
        file: With a line ``NAME=VALUE`` for each.

    Raises:
        Invalid: ``secret_in_command``: a value stands in the command line; ``bad_variable``: no
            name does; ``bad_file``.
        NotFound: ``no_variable``: this command has no such variable.
    """
    found = dict(_pairs(file, "=", "NAME=VALUE")) if file is not None else {}
    return found | dict(_of_this_command(names))


def headers(file: Path | None) -> dict[str, str]:
    """Give the headers that a URL is to be asked with, of a file with a line ``Name: value`` each.

    Raises:
        Invalid: ``bad_file``.
    """
    return dict(_pairs(file, ":", "Name: value")) if file is not None else {}


def _of_this_command(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        called, equals, _ = name.partition("=")
        if not called.strip():
            raise Invalid(
                "--env names no variable.",
                "Name one that is set here: --env DB_URL",
                code="bad_variable",
            )
        if equals:
            raise Invalid(
                f"The value of {called[:80]} stands in the command line, where others can read it.",
                f"Set the variable before, and say --env {called[:80]}; or use --env-file.",
                code="secret_in_command",
            )
        value = named_variable(name)
        if value is None:
            raise NotFound(
                f"There is no variable {name[:80]} here.",
                f"Set it before: read -rs {name[:80]} && export {name[:80]}",
                code="no_variable",
            )
        yield name, value


def _pairs(file: Path, between: str, form: str) -> Iterator[tuple[str, str]]:
    """Give what a file's lines say; empty ones and those that begin with ``#`` say nothing."""
    for number, line in enumerate(_read(file).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, found, value = line.partition(between)
        if not found or not name.strip():
            # The line itself may be the secret.
            raise Invalid(
                f"{file}, line {number} says no {form}.", "Correct that line.", code="bad_file"
            )
        yield name.strip(), value.strip()


def _read(file: Path) -> str:
    """Give the text of a file or a pipe, if it has an end that is not far.

    Raises:
        Invalid: ``bad_file``.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise _unreadable(file, f"it has more than {_MOST_BYTES} bytes")
        return data.decode("utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise _unreadable(file, why or "the system refuses") from error


def _unreadable(file: Path, why: str) -> Invalid:
    return Invalid(
        f"{file} can't be read: {why}.",
        "Name a file of text with a line for each.",
        code="bad_file",
    )
