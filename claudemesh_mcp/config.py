"""Says how a session is set up: flag, ``CLAUDEMESH_*``, project file, config file, else default.

Every entry point (``__main__``, ``server.py``, ``cli/``, ``sdk.py``) calls ``Settings.load`` once
and hands the frozen result down; ``home.py`` makes folders of its paths. No other module of the
session side reads the environment, and this one imports nothing slow: it runs before
``initialize`` is answered.
"""

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from claudemesh_mcp import projectfile
from claudemesh_mcp.rules import RULES
from claudemesh_wire.errors import Invalid

FILE_NAME: Final = "config.toml"
_APP: Final = "claudemesh"


_OF_PROGRAMS: Final = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER")


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the state of one user lives; nothing here has been created or checked yet.

    Args:
        data: What must survive: the root of broker, sessions, keys, meshes and run.
        config: Where ``config.toml`` is looked for.
        cache: What may be deleted at any time.
        logs: Where the rotating log files are.
    """

    data: Path
    config: Path
    cache: Path
    logs: Path

    @classmethod
    def of(cls, home: Path | None) -> Self:
        """Place everything below ``home``, or where this platform keeps such things.

        Args:
            home: The folder of ``CLAUDEMESH_HOME``, if it is set.
        """
        # Resolved, because a home may be a link to another disk, but nothing below it may.
        if home is not None:
            root = home.resolve()
            return cls(root, root, root / "cache", root / "logs")
        import platformdirs

        dirs = platformdirs.PlatformDirs(_APP, appauthor=False)
        return cls(
            data=dirs.user_data_path.resolve(),
            config=dirs.user_config_path,
            cache=dirs.user_cache_path,
            logs=dirs.user_log_path.resolve(),
        )

    @property
    def broker(self) -> Path:
        """The embedded broker's own data."""
        return self.data / "broker"

    @property
    def run(self) -> Path:
        """What a running broker says about itself, and the lock for starting one."""
        return self.data / "run"

    @property
    def keys(self) -> Path:
        """Sealed key files, and the wrapping key where there is no keyring."""
        return self.data / "keys"

    @property
    def meshes(self) -> Path:
        """One folder per mesh: its membership log and the names seen."""
        return self.data / "meshes"

    @property
    def sessions(self) -> Path:
        """One file per peer: inbox, outbox and history."""
        return self.data / "sessions"


@dataclass(frozen=True, slots=True)
class Settings:
    """What this process was told; ``RULES`` says for each field where it may come from."""

    home: Path | None = None
    enabled: bool = True
    mesh: str | None = None
    name: str | None = None
    role: str | None = None
    groups: tuple[str, ...] = ()
    resume: str | None = None
    session_id: str | None = None
    project_dir: Path | None = None
    host: str | None = None
    key_file: Path | None = None
    credentials_dir: Path | None = None
    keyring: bool = True
    ping_interval_s: float = 20.0
    strict: bool = False
    messages: str = "push"
    channel: bool = True
    multicast: bool | None = None
    toolsets: tuple[str, ...] = ("all",)
    entrypoint: str = ""
    attended: bool = True
    log_level: str = "info"

    @classmethod
    def load(
        cls,
        overrides: Mapping[str, object] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> Self:
        """Read the settings of this process.

        Args:
            overrides: Flags by the name of their field; ``None`` means that it was not given.
            environ: The environment.

        Raises:
            Invalid: A flag, a variable or the config file (``config_invalid``) makes no sense.
        """
        told = what_was_told(overrides or {}, environ)
        return cls(**{key: value for values in told.values() for key, value in values.items()})

    @property
    def off(self) -> bool:
        """Whether this session takes no part in any mesh."""
        return not self.enabled

    @property
    def is_attended(self) -> bool:
        """Whether somebody sits at the terminal of this session, as ``routes/`` sees it too."""
        return self.attended and self.entrypoint in {"", "cli"}

    @property
    def is_headless(self) -> bool:
        """Whether nobody sits before this session: it answers one prompt and ends."""
        return self.entrypoint.startswith("sdk-") or not self.attended

    def paths(self) -> Paths:
        """Say where this user's state lives."""
        return Paths.of(self.home)


def what_was_told(
    overrides: Mapping[str, object], environ: Mapping[str, str] = os.environ
) -> dict[str, dict[str, Any]]:
    """Give the settings that are not left at their defaults, by what told them, weakest first."""
    flags = {key: value for key, value in overrides.items() if value is not None}
    for key in flags:
        if key not in RULES:
            raise Invalid(f"There is no setting {key}.", _did_you_mean(key))
    variables = _from_environment(environ)
    given = {
        key: _read(key, value, f"the flag --{key.replace('_', '-')}")
        for key, value in flags.items()
    }
    both = variables | given
    file = Paths.of(both.get("home")).config / FILE_NAME
    return {
        str(file): _from_file(file),
        projectfile.FILE_NAME: _from_project(both.get("project_dir")),
        "environment": variables,
        "flag": given,
    }


def file_telling(key: str, folder: Path | None) -> str:
    """Name the file that gives a setting its value here.

    Args:
        key: The setting.
        folder: The project's, if that is not the present one.

    Returns:
        Its path; empty if a variable gives it, or nothing does.
    """
    told = what_was_told({"project_dir": folder})
    origin = next((one for one in reversed(told) if key in told[one]), "")
    if origin == projectfile.FILE_NAME:
        return str(projectfile.find(folder or Path.cwd()) or origin)
    return "" if origin in {"environment", "flag"} else origin


def locate(environ: Mapping[str, str] = os.environ) -> Paths:
    """Say where this user's state lives, also when the config file there makes no sense.

    Args:
        environ: The environment.

    Raises:
        Invalid: ``CLAUDEMESH_HOME`` is no path.
    """
    variable = RULES["home"].variable
    home = environ.get(variable)
    return Paths.of(_read("home", home, f"the variable {variable}") if home else None)


def given_to_programs(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Give the little of the environment that a program of somebody else gets: nothing secret."""
    return {name: environ[name] for name in _OF_PROGRAMS if name in environ}


def _read(key: str, value: object, origin: str) -> Any:
    try:
        return RULES[key].read(value)
    except ValueError as error:
        raise Invalid(
            f"{origin[0].upper()}{origin[1:]} must be {error}.",
            "Correct it, or leave it out for the default.",
            code="config_invalid",
        ) from error


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        key: _read(key, environ[rule.variable], f"the variable {rule.variable}")
        for key, rule in RULES.items()
        # An empty variable is how a wrapper says "not set".
        if environ.get(rule.variable)
    }


def _from_project(folder: Path | None) -> dict[str, Any]:
    try:
        file = projectfile.find(folder or Path.cwd())
    except FileNotFoundError:  # somebody removed the folder from under this process
        return {}
    if file is None:
        return {}
    try:
        table, text = projectfile.read(file)
    except (OSError, ValueError) as error:
        raise _file_error(f"{file} can't be read: {error}.") from error
    for key in table:
        if key not in projectfile.KEYS:
            raise Invalid(
                f"{file}, line {_line_of(key, text)}: there is no setting {key} here.",
                f"A project says no more than {', '.join(projectfile.KEYS)}.",
                code="config_invalid",
            )
    return {
        key: _read(key, value, f"{file}, line {_line_of(key, text)}: {key}")
        for key, value in table.items()
    }


def _from_file(file: Path) -> dict[str, Any]:
    text = _text_of(file)
    if text is None:
        return {}
    import tomllib

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _file_error(f"{file} is not TOML: {error}.") from error
    for key in table:
        if key not in RULES or not RULES[key].in_file:
            raise _file_error(
                f"{file}, line {_line_of(key, text)}: there is no setting {key} here.", key
            )
    return {
        key: _read(key, value, f"{file}, line {_line_of(key, text)}: {key}")
        for key, value in table.items()
    }


def _text_of(file: Path) -> str | None:
    try:
        return file.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _file_error(f"{file}, line {line} is not UTF-8 text.") from error
    except OSError as error:
        raise _file_error(f"{file} can't be read: {error.strerror}.") from error


def _file_error(reason: str, key: str = "") -> Invalid:
    remedy = _did_you_mean(key) if key else "Correct the file, or move it away for the defaults."
    return Invalid(reason, remedy, code="config_invalid")


def _line_of(key: str, text: str) -> int:
    pattern = re.compile(rf"""\s*\[?\s*["']?{re.escape(key)}["']?\s*[].=]""")
    lines = text.splitlines()
    return next((number for number, line in enumerate(lines, 1) if pattern.match(line)), 1)


def _did_you_mean(key: str) -> str:
    if key in RULES:
        return f"Give it by the variable {RULES[key].variable} instead."
    import difflib

    near = difflib.get_close_matches(key, RULES, n=1, cutoff=0.5)
    known = ", ".join(RULES)
    return f"Did you mean {near[0]}?" if near else f"The settings are: {known}."


def client_folder(environ: Mapping[str, str] = os.environ) -> tuple[Path, Path]:
    """Say where Claude Code keeps this user's settings, and in which file its servers.

    Args:
        environ: The environment.
    """
    told = environ.get("CLAUDE_CONFIG_DIR")
    folder = Path(told).expanduser().absolute() if told else Path.home() / ".claude"
    return folder, folder / ".claude.json" if told else Path.home() / ".claude.json"


def caller_of_sudo(environ: Mapping[str, str] = os.environ) -> str:
    """Give who has this run as another user, in whose home that one would leave files.

    Args:
        environ: The environment.

    Returns:
        The name; empty if it was not started by ``sudo``.
    """
    return environ.get("SUDO_USER", "")


def named_variable(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Give a variable that somebody names, of which a command is to hand on the value.

    Args:
        name: The variable.
        environ: The environment of this process.
    """
    return environ.get(name)


def session_environment(
    added: Mapping[str, str], environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Give the environment of this process with some more in it, for a client started from here.

    Args:
        added: What is set for that client alone.
        environ: The environment of this process.
    """
    return {**environ, **added}


def keep_plugins_out(environ: MutableMapping[str, str] = os.environ) -> None:
    """Keep pydantic from loading plugins of other packages into this process.

    They would be shown every model, messages among them, and to look for them is to read the
    metadata of every package that is installed.

    Args:
        environ: The environment of this process, where a user may have said something else.
    """
    environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


# What a broker may inherit: it outlives the session that starts it, and that session's
# environment holds secrets (API keys, tokens) that have no business in a lasting process.
_INHERITED: Final = frozenset(
    {"HOME", "LANG", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "SYSTEMROOT", "TMPDIR", "TZ", "USER"}
)
_INHERITED_PREFIXES: Final = ("CLAUDEMESH_", "COVERAGE_", "LC_", "PYTHON", "VIRTUAL_ENV", "XDG_")


def broker_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Give the environment for a broker that this process starts in the background.

    Args:
        environ: The environment of this process.

    Returns:
        A copy without the session's secrets, that works from any working folder.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    if kept.get("PYTHONPATH"):
        entries = kept["PYTHONPATH"].split(os.pathsep)
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in entries)
    return kept
