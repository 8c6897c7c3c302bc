"""Asks the keyring of the operating system, which may be missing, lie, raise or hang.

``keystore.py`` is the only caller: it stores one secret per profile and reads it back. The keyring
is asked by ``python -m claudemesh_mcp.oskeyring``, a process that lives for one question: its
libraries would stay in every session (6 MiB), and so would a thread that hangs.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

SERVICE: Final = "claudemesh"
LIMIT_S: Final = 3.0
_START_S: Final = 10.0

T = TypeVar("T")


class KeyringFailed(Exception):
    """The keyring raised, hung, or is one that must not be trusted."""


def get_secret(name: str) -> str | None:
    """Look a secret up.

    Args:
        name: The name it was stored under.

    Returns:
        The secret, or ``None`` when the keyring has none of that name.

    Raises:
        KeyringFailed: There is no keyring, or it gave no answer in 3 s.
    """
    return _ask("get", name)


def set_secret(name: str, secret: str) -> None:
    """Store a secret; only ``get_secret`` tells whether the keyring kept it.

    Args:
        name: The name to store it under.
        secret: A short text; Windows holds about 1,280 characters.

    Raises:
        KeyringFailed: There is no keyring, or it gave no answer in 3 s.
    """
    _ask("set", name, secret)


def _ask(verb: str, name: str, secret: str = "") -> str | None:
    try:
        ended = subprocess.run(
            # Safely: this runs in a project's folder, which must not lend it modules.
            [sys.executable, "-P", "-m", __name__, verb, name],
            input=secret,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=_START_S + LIMIT_S,
        )
        answer: dict[str, str | None] = json.loads(ended.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise KeyringFailed("it could not be asked") from error
    if "failure" in answer:
        raise KeyringFailed(answer["failure"])
    return answer["secret"]


def main() -> None:
    """Answer the one question of the process that started this one."""
    _, verb, name = sys.argv
    # A keyring that has to start services must not hand them what the asker reads to its end.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        try:
            secret = sys.stdin.read()
            found = _within(LIMIT_S, lambda: _get(name) if verb == "get" else _set(name, secret))
            answers.write(json.dumps({"secret": found}))
        except KeyringFailed as failed:
            answers.write(json.dumps({"failure": str(failed)}))


def _get(name: str) -> str | None:
    found = (backend.get_password(SERVICE, name) for backend in _backends())
    return next((secret for secret in found if secret is not None), None)


def _set(name: str, secret: str) -> None:
    _backends()[0].set_password(SERVICE, name, secret)


def _backends() -> list[Any]:
    # Imported in the worker thread: looking for backends talks to the desktop and may hang too.
    from keyring import get_keyring
    from keyring.backends.chainer import ChainerBackend

    chosen: Any = get_keyring()
    found: list[Any] = chosen.backends if isinstance(chosen, ChainerBackend) else [chosen]
    # keyrings.alt stores in plain text, or asks for a password on the terminal.
    trusted = [backend for backend in found if not _is_alternative(backend)]
    if not trusted:
        raise KeyringFailed("there is none but keyrings.alt")
    return trusted


def _is_alternative(backend: object) -> bool:
    return any(kind.__module__.startswith("keyrings.alt") for kind in type(backend).__mro__)


def _within(limit_s: float, call: Callable[[], T]) -> T:
    answers: list[T] = []
    failures = ["no answer in time"]

    def work() -> None:
        try:
            answers.append(call())
        except Exception as error:  # noqa: BLE001 - a backend may raise whatever it likes
            failures.append(str(error) or type(error).__name__)

    # A daemon: a prompt that nobody answers must not keep the process from ending.
    thread = threading.Thread(target=work, name="keyring", daemon=True)
    thread.start()
    thread.join(limit_s)
    if answers:
        return answers[0]
    raise KeyringFailed(failures[-1])


if __name__ == "__main__":
    main()
