"""Chooses what serves the plugin's client: the installed program, our environment, or a front.

``start.sh`` runs it by path, under a Python with the standard library only. As long as the
libraries are missing the client is served by ``waiting.py``, in this same process, which becomes
the server once they are there.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

ROOT: Final = Path(__file__).resolve().parents[2]
_PROGRAM: Final = "claudemesh"
_ANSWER_S: Final = 5.0
_OFF: Final = frozenset({"off", "false", "no", "0"})


def main(arguments: Sequence[str]) -> int:
    """Serve the client of this process.

    Args:
        arguments: The plugin's data folder.
    """
    sys.path[:0] = [str(ROOT), str(ROOT / "broker")]
    # Each when it is needed: a client waits, and most have the program.
    if program := _program():
        os.execv(program, [program, "mcp"])
    from claudemesh_mcp.plugin.environment import Environment
    from claudemesh_mcp.routes.places import environment as environ

    environment = Environment(Path(arguments[0]))
    if environment.is_ready:
        become_server(environment.python)
    if _is_off(environ()):
        return _serve_nothing()
    from claudemesh_mcp.plugin.waiting import Front

    if handover := Front(environment).serve():
        become_server(environment.python, "--handover", str(handover))
    return 0


def become_server(python: Path, *flags: str) -> NoReturn:
    """Go on as the server, in this process: its parent is the client, which the hooks know too."""
    # Not the project's folder, which `-m` would put in front: it may hold modules of any name.
    from claudemesh_mcp.routes.places import environment as environ

    command = [str(python), "-P", "-m", "claudemesh_mcp"]
    leave_program(python.parents[2] / "bin" / _PROGRAM, command)
    os.execve(command[0], [*command, "mcp", *flags], environment_of(environ()))


def leave_program(file: Path, command: Sequence[str]) -> None:
    """Leave a program for the user's shell: a plugin brings none that is found there.

    Args:
        file: Where.
        command: What it runs.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "broker")])
    line = f'PYTHONPATH={shlex.quote(path)} exec {shlex.join(command)} "$@"'
    script = f"#!/bin/sh\n{line}\n"
    # Whatever is in the way, the server is more important.
    with suppress(OSError):
        if file.exists() and file.read_text("utf-8") == script:
            return
        file.parent.mkdir(exist_ok=True)
        fresh = file.with_name(f"{file.name}.{os.getpid()}")
        fresh.write_text(script, "utf-8")
        fresh.chmod(0o755)
        fresh.replace(file)


def environment_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the variables under which the environment's Python runs our code.

    Args:
        environ: Those of this process.
    """
    others = {"PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__"}
    kept = {name: value for name, value in environ.items() if name not in others}
    path = os.pathsep.join([str(ROOT), str(ROOT / "broker")])
    return {**kept, "PYTHONPATH": path}


def _program() -> str:
    """Find the installed program, if it is of this version."""
    from claudemesh_wire import VERSION

    # By an entry such as `.` the project would bring it, which nobody has agreed to.
    folders = filter(os.path.isabs, os.get_exec_path())
    path = shutil.which(_PROGRAM, path=os.pathsep.join(folders))
    if path is None:
        return ""
    try:
        asked = [path, "--version"]
        told = subprocess.run(
            asked, capture_output=True, stdin=subprocess.DEVNULL, timeout=_ANSWER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return path if told.stdout.strip() == VERSION.encode() else ""


def _is_off(environ: Mapping[str, str]) -> bool:
    """Tell whether claudemesh takes no part in this session, without what reads its settings."""
    from claudemesh_mcp.routes.places import is_off

    return is_off(environ) or (not environ.get("CLAUDEMESH") and _project_is_off(environ))


def _project_is_off(environ: Mapping[str, str]) -> bool:
    from claudemesh_mcp import projectfile

    try:
        file = projectfile.find(Path(environ.get("CLAUDE_PROJECT_DIR") or Path.cwd()))
        told = projectfile.read(file)[0].get("enabled") if file else None
    except (OSError, ValueError):
        return False
    return told is False or str(told).lower() in _OFF


def _serve_nothing() -> int:
    from claudemesh_mcp.front import RefusingSession, off
    from claudemesh_mcp.offer import switched_off
    from claudemesh_mcp.stdio import run

    return run(RefusingSession(off()), switched_off())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
