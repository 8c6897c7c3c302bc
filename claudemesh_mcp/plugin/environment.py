"""The environment of the plugin's server: where it is, whether it is whole, and how it is made.

``start.py`` asks whether it is ready, ``waiting.py`` follows how it is made. That is a process
of its own, which is run by path (``environment.py DATA``) and outlives the session that began it.
Standard library only: it runs before there is anything else.
"""

import fcntl
import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
LOCK: Final = ROOT / "requirements.lock"
_TESTS_ONLY: Final = "# ---- Only for"
_KEPT: Final = 2
_TRIES: Final = 10
_TRY_S: Final = 0.02
_TAIL: Final = 4000

# What a tool says, and what that means for the reader. The first that is found counts.
_CAUSES: Final = (
    (
        ("No space left on device", "Disk quota exceeded"),
        "storage_full",
        "There is no space left to install the libraries.",
        "Free some space on the disk of {data}; then call setup_status with retry.",
    ),
    (
        ("DO NOT MATCH THE HASHES", "Hash mismatch", "hash mismatch"),
        "hash_mismatch",
        "The registry gave other packages than requirements.lock pins: nothing was installed.",
        "Look which registry pip is set up to ask; then call setup_status with retry.",
    ),
    (
        (
            "NewConnectionError",
            "ConnectionError",
            "Connection refused",
            "Temporary failure in name resolution",
            "Name or service not known",
            "Network is unreachable",
            "ProxyError",
            "timed out",
            "SSLError",
            "error sending request",
            "No matching distribution found",
            "Could not find a version",
            "No solution found",
        ),
        "registry_unreachable",
        "The package registry could not be reached, so the libraries are not installed.",
        "Check network, proxy and registry (HTTPS_PROXY, PIP_INDEX_URL, for uv UV_DEFAULT_INDEX).",
    ),
)


@dataclass(frozen=True)
class Progress:
    """How far the making has come.

    Args:
        state: ``building``, ``failed`` or ``ready``.
        step: What is being done, in words.
        done: How many packages have been fetched.
        total: How many there are.
        code: Why it failed, in a word.
        message: The same, in a sentence.
        hint: What puts it right.
    """

    state: str
    step: str = ""
    done: int = 0
    total: int = 0
    code: str = ""
    message: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Environment:
    """The environment that belongs to this version of the plugin.

    It holds the libraries that ``requirements.lock`` pins; our own code is run from the plugin's
    folder, so that server, hooks and monitor are always of one version.

    Args:
        data: The plugin's data folder.
        held: The lock of the making, in the process that makes it; its tools hold it too.
    """

    data: Path
    held: tuple[int, ...] = ()

    @property
    def log(self) -> Path:
        """What the tools said that made it."""
        return self.data / "setup.log"

    @cached_property
    def folder(self) -> Path:
        """Its own folder: other libraries or another Python are another environment."""
        held = f"{pins()}\n{sys.version}\n{sys.executable}"
        return self.data / f"env-{hashlib.sha256(held.encode()).hexdigest()[:16]}"

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    @property
    def is_ready(self) -> bool:
        """Whether it is whole, and its Python still there."""
        return (self.folder / "ready").is_file() and os.access(self.python, os.X_OK)

    @property
    def is_being_made(self) -> bool:
        """Whether a process is about it."""
        if (handle := self._take_lock()) is None:
            return True
        os.close(handle)
        return False

    def progress(self) -> Progress:
        """Say how far it has come."""
        if self.is_ready:
            return Progress("ready")
        try:
            told = Progress(**json.loads(self._state.read_bytes()))
        except (OSError, ValueError, TypeError):
            told = Progress("building", "about to begin")
        if told.state == "building" and not self.is_being_made and not self.is_ready:
            message = "The setting up was interrupted."
            hint = f"Call setup_status with retry; {self.log} says how far it came."
            return Progress("failed", code="interrupted", message=message, hint=hint)
        return told

    def begin(self) -> "subprocess.Popen[bytes] | None":
        """Have it made by a process that outlives this one; ``None`` when one is about it.

        Raises:
            OSError: nothing can be written to the data folder.
        """
        # Not at the top: the process that is started here finds no modules of ours.
        from claudemesh_mcp.routes.places import environment

        for _ in range(_TRIES):
            if (handle := self._take_lock()) is not None:
                break
            # Somebody who only looks whether it is taken has it for an instant.
            select.select([], [], [], _TRY_S)
        else:
            return None
        try:
            # What an earlier attempt said is no answer to somebody who asks after this one.
            self.note(Progress("building", "about to begin"))
            return subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, str(self.data), str(handle)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                # With the certificates of the system uv, like pip, passes a company's proxy.
                env={"UV_SYSTEM_CERTS": "1", **environment()},
                start_new_session=True,
                # It goes on to hold the lock, without a moment in which nobody does.
                pass_fds=[handle],
            )
        finally:
            os.close(handle)

    def make(self) -> None:
        """Make it, and note how far it has come; only the process that holds the lock does."""
        try:
            if not self.is_ready:
                self._make()
        except subprocess.CalledProcessError as error:
            self.note(self._failure(str(error.output)))
        except OSError as error:
            self.note(self._failure(str(error)))

    def note(self, progress: Progress) -> None:
        """Write down how far it has come, for whoever waits."""
        fresh = self.data / f"setup.{os.getpid()}"
        fresh.write_text(json.dumps(asdict(progress)), "utf-8")
        fresh.replace(self._state)

    @property
    def _state(self) -> Path:
        return self.data / "setup.json"

    def _take_lock(self) -> int | None:
        """Take the lock of the making; ``None`` when somebody else has it.

        Raises:
            OSError: nothing can be written to the data folder.
        """
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The client may have made it, open to others: what runs here is to be said by nobody else.
        self.data.chmod(0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(self.data / "setup.lock", flags, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        return handle

    def _make(self) -> None:
        self.log.write_bytes(b"")
        total = pins().count("==")
        self.note(Progress("building", "making an environment", total=total))
        shutil.rmtree(self.folder, ignore_errors=True)
        wanted = self.data / "pins.txt"
        wanted.write_text(pins(), "utf-8")
        if pip := _bundled_pip():
            # Without a pip of its own, which takes longer than all else but the network.
            self._run([sys.executable, "-I", "-m", "venv", "--without-pip", str(self.folder)])
            # By the environment's Python: told by `--python` it would start itself a second time,
            # and out of a wheel all of it is compiled at each start.
            quick = ["--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
            install = [str(self.python), "-I", str(pip), "install"]
            install += ["--no-input", "--compile", *quick]
        elif uv := _uv():
            self._run([uv, "venv", "--python", sys.executable, str(self.folder)])
            install = [uv, "pip", "install", "--python", str(self.python), "--compile-bytecode"]
        else:
            raise OSError(f"{sys.executable} has no venv module, and there is no uv")
        self._install([*install, "--require-hashes", "--requirement", str(wanted)], total)
        (self.folder / "ready").write_text("", "utf-8")
        self.note(Progress("ready"))
        self._sweep()

    def _install(self, command: Sequence[str], total: int) -> None:
        done = 0
        for line in self._lines(command):
            step = "fetching the libraries"
            if line.startswith(("Installing collected", "Installed ")):
                done, step = total, "installing the libraries"
            elif line.startswith("Collecting "):
                done = min(done + 1, total)
            self.note(Progress("building", step, done, total))

    def _run(self, command: Sequence[str]) -> None:
        for _ in self._lines(command):
            pass

    def _lines(self, command: Sequence[str]) -> Generator[str]:
        """Run a tool; give what it says, line by line.

        Raises:
            CalledProcessError: it failed; its output is the end of what it said.
        """
        said = ""
        with (
            self.log.open("a", encoding="utf-8") as log,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                pass_fds=self.held,
            ) as process,
        ):
            for line in process.stdout or ():
                log.write(line)
                said = (said + line)[-_TAIL:]
                yield line
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command, said)

    def _failure(self, said: str) -> Progress:
        for signs, code, message, hint in _CAUSES:
            if any(sign in said for sign in signs):
                return Progress("failed", "", 0, 0, code, message, hint.format(data=self.data))
        last = said.strip().splitlines()[-1][:300] if said.strip() else "the tool said nothing"
        message = f"The libraries could not be installed: {last}"
        hint = f"{self.log} says more. Call setup_status with retry once that is put right."
        return Progress("failed", code="setup_failed", message=message, hint=hint)

    def _sweep(self) -> None:
        """Remove environments of earlier versions; a session may still run in the last one."""
        made = [one for one in self.data.glob("env-*") if one != self.folder]
        made.sort(key=lambda one: one.stat().st_mtime, reverse=True)
        for old in made[_KEPT - 1 :]:
            shutil.rmtree(old, ignore_errors=True)


def pins() -> str:
    """Give the part of the lock that a session and its broker need."""
    return LOCK.read_text("utf-8").partition(_TESTS_ONLY)[0]


def _bundled_pip() -> Path | None:
    """Find the pip that Python brings along, as a program inside of its wheel."""
    try:
        import ensurepip
        import venv
    except ImportError:  # as Debian has it without python3-venv
        return None
    del venv
    folders = (Path(ensurepip.__file__).with_name("_bundled"), Path("/usr/share/python-wheels"))
    wheels = [wheel for folder in folders for wheel in folder.glob("pip-*.whl")]
    return wheels[0] / "pip" if wheels else None


def _uv() -> str | None:
    """Find uv, but not where a relative entry of PATH leads."""
    folders = filter(os.path.isabs, os.get_exec_path())
    return shutil.which("uv", path=os.pathsep.join(folders))


def main(arguments: Sequence[str]) -> None:
    """Make the environment of a data folder.

    Args:
        arguments: The folder, and the descriptor of the lock.
    """
    with suppress(KeyboardInterrupt):
        Environment(Path(arguments[0]), (int(arguments[1]),)).make()


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main(sys.argv[1:])
