# ruff: noqa: ARG002 - the library names the arguments, also of those that use none
"""Keyrings with one property each, chosen by ``PYTHON_KEYRING_BACKEND`` in a child process."""

import json
import os
import threading
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.compat import properties

NEVER_BY_ITSELF = -1.0


class Kept(KeyringBackend):
    """Keeps secrets in the file that ``TEST_KEYRING`` names: an honest keyring."""

    @properties.classproperty
    def priority(self) -> float:
        return 6.0

    def _all(self) -> dict[str, str]:
        path = Path(os.environ["TEST_KEYRING"])  # noqa: TID251 - a test's own variable
        return json.loads(path.read_text()) if path.exists() else {}

    def get_password(self, service: str, username: str) -> str | None:
        return self._all().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        kept = self._all() | {f"{service}/{username}": password}
        Path(os.environ["TEST_KEYRING"]).write_text(json.dumps(kept))  # noqa: TID251 - as above


class Garbled(Kept):
    """Gives back something else than it was given."""

    priority = NEVER_BY_ITSELF  # type: ignore[assignment] - as below

    def get_password(self, service: str, username: str) -> str | None:
        kept = super().get_password(service, username)
        return kept and kept.swapcase()


class Raising(KeyringBackend):
    """Raises what no keyring library declares."""

    priority = NEVER_BY_ITSELF  # type: ignore[assignment] - the library allows a number

    def get_password(self, service: str, username: str) -> str | None:
        raise ZeroDivisionError

    def set_password(self, service: str, username: str, password: str) -> None:
        raise ZeroDivisionError


class Hanging(KeyringBackend):
    """Waits for a prompt that nobody sees."""

    priority = NEVER_BY_ITSELF  # type: ignore[assignment] - as above

    def get_password(self, service: str, username: str) -> str | None:
        threading.Event().wait()
        return None

    def set_password(self, service: str, username: str, password: str) -> None:
        threading.Event().wait()


class HangingOnSet(Hanging):
    """Answers, but waits when it is to keep something."""

    def get_password(self, service: str, username: str) -> str | None:
        return None
