"""Two homes at one host: what tests of members of other homes begin with.

``tests/processes/conftest.py`` hands the fixtures on; the functions are imported.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosting import Host, a_guest, a_host, ok
from tests.support.shell import Shell


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A broker for other machines."""
    with a_host(tmp_path / "broker") as host:
        yield host


@pytest.fixture
def ada(tmp_path: Path, host: Host) -> Iterator[Shell]:
    """The owner of the mesh `team`; as her system calls her, she is max."""
    with a_guest(tmp_path / "ada") as ada:
        ok(ada.run("mesh", "create", "team", *host.for_its_admin))
        yield ada


@pytest.fixture
def bob(tmp_path: Path) -> Iterator[Shell]:
    """Somebody else, who is in no mesh but his own."""
    with a_guest(tmp_path / "bob") as bob:
        yield bob


def link_of(ada: Shell, *words: str) -> str:
    """Make an invite and give its link."""
    link: str = ok(ada.run("invite", *words, "--json")).json["link"]
    return link


def joined(ada: Shell, bob: Shell, *words: str) -> None:
    """Bring one into the other's mesh, by an invite of these words."""
    ok(bob.run("join", link_of(ada, *words), "--as", "bob"))


def members(shell: Shell) -> dict[str, str]:
    """Give all who are or were members, each with its role or what became of it."""
    rows = ok(shell.run("members", "--all", "--json")).json["members"]
    return {row["name"]: row["role"] if row["state"] == "present" else row["state"] for row in rows}
