"""The commands ``config get``, ``config set`` and ``config path``.

They read what ``config.py`` reads, and change one line of the user's own file.
"""

import json as json_format
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from claudemesh_mcp.cli import chosen, show
from claudemesh_mcp.config import FILE_NAME, RULES, locate
from claudemesh_mcp.suggestions import did_you_mean
from claudemesh_wire.errors import Conflict, Invalid, NotFound

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    config = typer.Typer(help="Read and change settings.", no_args_is_help=True)
    config.command()(get)
    config.command("set")(set_)
    config.command()(path)
    app.add_typer(config, name="config")


def get(
    key: Annotated[str | None, typer.Argument(help="A setting; all of them without it.")] = None,
    json: Json = False,
) -> None:
    """Print what holds here: variable before file before default.

    \b
    Examples:
      claudemesh config get
      claudemesh config get name
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    settings = chosen.settings()
    if key is not None:
        _check(key)
    values = {name: _written(getattr(settings, name)) for name in RULES if key in {None, name}}
    if json:
        show.data(values)
    elif key is not None:
        show.line(_plain(values[key]))
    else:
        rows = [(name, _plain(values[name]), RULES[name].variable) for name in values]
        show.table(("setting", "value", "variable"), rows)


def set_(
    key: Annotated[str, typer.Argument(help="A setting.")],
    value: Annotated[str, typer.Argument(help="Its value.")],
) -> None:
    """Write a setting to the config file; everything else in that file stays as it is.

    \b
    Examples:
      claudemesh config set name ada
      claudemesh config set keyring off
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    _check(key)
    rule = RULES[key]
    if not rule.in_file:
        raise Invalid(
            f"{key} belongs to one process and not into the file.",
            f"Give it by the variable {rule.variable}.",
            code="config_invalid",
        )
    try:
        rule.read(value)
    except ValueError as error:
        raise Invalid(f"{key} must be {error}.", rule.says, code="config_invalid") from error
    file = write_setting(key, value)
    show.word(f"{key} is written to {file}. Sessions take it when they start.")


def write_setting(key: str, value: str) -> Path:
    """Write a setting that was checked to the user's file; gives the file."""
    file = _file()
    _write(file, key, value)
    return file


def written_setting(key: str) -> str | None:
    """Give what the user's file says of a setting, whatever holds instead of it here."""
    file = _file()
    told = _parsed(file.read_text("utf-8"), file).get(key) if file.exists() else None
    return told if isinstance(told, str) else None


def path() -> None:
    """Print where the config file is, or would be.

    \b
    Examples:
      claudemesh config path
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    print(_file())


def _file() -> Path:
    # Not by way of Settings: it is needed also when what the file says makes no sense.
    return locate().config / FILE_NAME


def _check(key: str) -> None:
    if key not in RULES:
        raise NotFound(f"There is no setting {key}.", did_you_mean(key, RULES))


def _write(file: Path, key: str, value: str) -> None:
    from claudemesh_mcp.home import atomic_write

    old = file.read_text("utf-8") if file.exists() else ""
    before = _parsed(old, file)
    new = _with(old, key, json_format.dumps(value, ensure_ascii=False))
    if _parsed(new, file) != before | {key: value}:
        raise Conflict(
            f"{key} is written in {file} in a way that can't be changed from here.",
            "Change it with an editor.",
            code="config_invalid",
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, new.encode())


def _parsed(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(
            f"{file} is not TOML: {error}.",
            "Correct the file, or move it away for the defaults.",
            code="config_invalid",
        ) from error


def _with(text: str, key: str, value: str) -> str:
    """Give the text with this line in it, in its old place or at the end."""
    line = f"{key} = {value}"
    new, found = re.subn(rf"(?m)^[ \t]*{re.escape(key)}[ \t]*=.*$", lambda _: line, text, count=1)
    gap = "" if not text or text.endswith("\n") else "\n"
    return new if found else f"{text}{gap}{line}\n"


def _written(value: object) -> Any:
    return str(value) if isinstance(value, Path) else value


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, cast("tuple[object, ...]", value)))
    return "" if value is None else str(value)
