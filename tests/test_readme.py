"""Guards the two READMEs: their settings are the code's, and their examples run as they stand.

``PYTHONPATH=.:broker python -m tests.test_readme`` writes the tables of settings.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, cast

import anyio
import anyio.to_thread
import pytest

from claudemesh_broker.config import PREFIX, described
from claudemesh_mcp.config import RULES
from tests.support.checkout import BROKER, ROOT, SESSION, WIRE, python_files, strings
from tests.support.documents import README, between_marks, definitions
from tests.support.hosting import Guest, a_guest, a_host_at_home, ok
from tests.support.netns import HOST, a_cable, is_possible
from tests.support.shell import LIMIT_S, Shell, shell_in

BROKER_README: Final = ROOT / "broker" / "README.md"
_LINK: Final = re.compile(r"\]\((?!\w+://)([^)#]+)\)")
_VARIABLE: Final = re.compile(r"\bCLAUDEMESH_[A-Z_]+[A-Z]\b")


def session_settings() -> str:
    """One row per setting of a session."""
    rows = [f"| `{rule.variable}` | {rule.says} |" for rule in RULES.values()]
    return "\n".join(["| variable | what it does |", "|---|---|", *rows])


def broker_settings() -> str:
    """One row per setting of a broker."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {'' if default is None else shown(default)} | {says} |"
        for name, says, default in described()
    ]
    return "\n".join(["| variable | default | what it does |", "|---|---|---|", *rows])


def shown(default: object) -> str:
    """A default as one writes it."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return ", ".join(cast("tuple[str, ...]", default))
    return f"{default:g}" if isinstance(default, float) else str(default)


SETTINGS: Final[dict[Path, Callable[[], str]]] = {
    README: session_settings,
    BROKER_README: broker_settings,
}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_in(tmp_path) as shell:
        yield shell


def example(name: str) -> str:
    """The code that stands between two marks of the README."""
    marked = between_marks(name, README.read_text("utf-8")) or ""
    found = re.fullmatch(r"```\w+\n(.*)```", marked.strip(), re.DOTALL)
    assert found, f"README.md has no example {name}"
    return found[1]


@pytest.mark.parametrize("document", SETTINGS, ids=lambda path: path.parent.name)
def test_the_settings_in_a_readme_are_those_of_the_code(document: Path) -> None:
    assert between_marks("settings", document.read_text("utf-8")) == SETTINGS[document]()


def test_every_variable_that_a_readme_names_is_read() -> None:
    read = {rule.variable for rule in RULES.values()}
    read |= {f"{PREFIX}{name.upper()}" for name, _, _ in described()}
    named = {
        name
        for path in (README, BROKER_README)
        for name in _VARIABLE.findall(path.read_text("utf-8"))
    }
    assert named - read == set()


def test_every_error_code_that_a_readme_names_is_raised() -> None:
    told = {"membership_rollback", "name_changed"}
    raised = {text for path in python_files(SESSION, BROKER, WIRE) for text in strings(path)}
    assert told <= set(re.findall(r"`(\w+_\w+)`", BROKER_README.read_text("utf-8")))
    assert told - raised == set()


def test_the_files_of_a_broker_are_where_its_readme_says_and_private(shell: Shell) -> None:
    named = re.findall(r"^\| `(\w+/[\w.]+)` \|", BROKER_README.read_text("utf-8"), re.MULTILINE)
    assert len(named) >= 5
    assert shell.run("up").code == 0
    modes = {name: (shell.home / name).stat().st_mode & 0o777 for name in named}
    assert modes == dict.fromkeys(named, 0o600)


@pytest.mark.parametrize("document", SETTINGS, ids=lambda path: path.parent.name)
def test_every_file_that_a_readme_links_to_is_there(document: Path) -> None:
    linked = _LINK.findall(document.read_text("utf-8"))
    assert linked
    assert [name for name in linked if not (document.parent / name).exists()] == []


def test_the_readme_names_every_tool() -> None:
    text = README.read_text("utf-8")
    assert [tool["name"] for tool in definitions() if f"`{tool['name']}(" not in text] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "sdk",
            [
                "ada: The build is red. Do you know why?",
                "bob: I am on it. (answers mine: True)",
            ],
        ),
        ("functions", ["3"]),
    ],
)
def test_the_example_of_a_program_is_short_and_runs(
    name: str, said: list[str], shell: Shell
) -> None:
    program = example(name)
    assert len([line for line in program.splitlines() if line.strip()]) <= 15
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=shell.environment(),
        cwd=shell.folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == said


async def test_the_lines_for_a_shell_run(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        async with shell.session("ada") as ada:
            for line in example("shell").splitlines():
                program, *words = shlex.split(line)
                assert program == "claudemesh"
                done = await anyio.to_thread.run_sync(partial(shell.run_cold, *words))
                assert done.code == 0, f"{line}: {done.err}"
            (message,) = (await ada.call("inbox", wait_s=20))["messages"]
            assert message["text"] in example("shell")


def test_the_four_commands_for_a_team_run_as_they_stand(tmp_path: Path) -> None:
    with a_guest(tmp_path / "ada") as ada, a_guest(tmp_path / "bob") as bob:
        run_the_four_commands(ada, bob)


@pytest.mark.skipif(not is_possible(), reason="network namespaces take root, Linux and `ip`")
def test_the_four_commands_for_a_team_run_on_two_machines(tmp_path: Path) -> None:
    with a_cable() as cable, a_guest(tmp_path / "a") as ada, a_guest(tmp_path / "b") as bob:
        shown = run_the_four_commands(
            Guest(ada.folder, tuple(cable.at_host())), Guest(bob.folder, tuple(cable.at_guest()))
        )
    assert shown.startswith(f"https://{HOST}:")


def run_the_four_commands(ada: Shell, bob: Shell) -> str:
    """Do what the README says for a team; gives the address that the broker printed."""
    lines = [shlex.split(line, comments=True) for line in example("team").splitlines()]
    assert [line[0] for line in lines] == ["claudemesh"] * 4
    host, create, invite, join = (line[1:] for line in lines)
    with a_host_at_home(ada, *host) as broker:
        address = {"URL": broker.printed_url}
        ok(ada.run_cold(*(address.get(word, word) for word in create)))
        link = {"LINK": ok(ada.run_cold(*invite)).out.strip()}
        ok(bob.run_cold(*(link.get(word, word) for word in join)))
        names = [row["name"] for row in ok(ada.run("members", "--json")).json["members"]]
        assert names == ["max", "max-2"]
        return broker.printed_url


def with_settings(text: str, table: str) -> str:
    """The text with its table of settings as the code has it now."""
    before, mark, rest = text.partition("<!-- settings -->\n")
    _, end, after = rest.partition("<!-- /settings -->")
    return f"{before}{mark}{table}\n{end}{after}"


if __name__ == "__main__":
    for document, table in SETTINGS.items():
        document.write_text(with_settings(document.read_text("utf-8"), table()), "utf-8")
