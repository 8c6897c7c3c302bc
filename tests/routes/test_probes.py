"""Probes of the hooks: when one is printed, and what the client's transcript says of it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claudemesh_mcp.routes import bells, facts, probes
from claudemesh_mcp.routes.door import now_ms
from claudemesh_mcp.routes.facts import Health
from claudemesh_mcp.routes.settings import ANSWER_MS
from tests.support.routing import Beside, beside
from tests.support.transcript import context, prompt, ran, reply, write_down

LINE = re.compile(r"claudemesh: ready\. \(probe ([0-9a-f]{8})\)")


class Client:
    """Runs the hooks of a client that keeps a transcript, and writes down what they bring.

    Args:
        peer: The peer whose client it is.
        path: The transcript.
    """

    def __init__(self, peer: Beside, path: Path) -> None:
        self.peer = peer
        self.path = path

    def hook(self, event: str, *, is_heard: bool = True, **told: str) -> str:
        """Run a hook; what it prints is put into the context, unless nobody hears it."""
        said = self.peer.hook(event, transcript_path=str(self.path), **told)
        if said:
            lines = [ran(event, said), context(event, said)] if is_heard else [ran(event, "")]
            write_down(self.path, *lines)
        return said

    def start(self, source: str = "resume", *, is_heard: bool = True, **told: str) -> str:
        """Start a session."""
        return self.hook("SessionStart", source=source, is_heard=is_heard, **told)

    def prompt(self, *, is_heard: bool = True, **told: str) -> str:
        """Let a human send a prompt."""
        write_down(self.path, prompt("Go on."))
        return self.hook("UserPromptSubmit", prompt="Go on.", is_heard=is_heard, **told)

    def tool(self, *, is_heard: bool = True) -> str:
        """Let the model reply by a call, which ends."""
        write_down(self.path, reply("msg_1", "toolu_1"))
        return self.hook("PostToolUse", tool_use_id="toolu_1", is_heard=is_heard)

    def stop(self) -> None:
        """Let the model reply, and its turn end."""
        write_down(self.path, reply("msg_2"))
        assert self.hook("Stop") == ""

    def known(self, later_ms: int = 0) -> Health:
        """Look as the session's server does; gives what is known of the hooks then."""
        found = probes.verdict(self.peer.sql, now_ms() + later_ms)
        if found is not None:
            probes.settle(self.peer.sql, found)
        return facts.hooks(self.peer.sql)


@pytest.fixture
def client(bob: Beside, tmp_path: Path) -> Client:
    """Give a client beside bob's session, whose prompts' hook was heard before."""
    facts.put(bob.sql, facts.PROMPTS, "1")
    return Client(bob, tmp_path / "transcript of a session.jsonl")


@pytest.mark.parametrize("source", ["startup", "resume", "clear", "compact", "fork"])
def test_each_start_of_a_session_is_probed_by_one_line(client: Client, source: str) -> None:
    # The same session twice, as with /compact, and another one.
    for session in ("one", "one", "another"):
        assert LINE.fullmatch(client.start(source, session_id=session))
        for event in ("UserPromptSubmit", "Stop", "UserPromptSubmit", "Stop"):
            assert client.hook(event, session_id=session) == ""


def test_a_new_client_is_probed_by_the_hook_of_its_first_prompt(client: Client) -> None:
    facts.put(client.peer.sql, facts.PROMPTS, "")
    assert client.start("resume") == ""
    assert LINE.fullmatch(client.prompt())
    assert client.peer.fact(facts.PROMPTS) == ""
    client.stop()
    assert (client.known(), client.peer.fact(facts.PROMPTS)) == (Health.REACHES, "1")
    assert LINE.fullmatch(client.start("clear"))


def test_what_the_start_of_a_session_shows_says_nothing_of_the_hook_of_its_prompts(
    client: Client,
) -> None:
    facts.put(client.peer.sql, facts.PROMPTS, "")
    client.peer.put("Two herons.")
    assert "Two herons." in client.start("resume")
    write_down(client.path, reply("msg_0"))
    assert (client.known(), client.peer.fact(facts.PROMPTS)) == (Health.REACHES, "")
    assert LINE.fullmatch(client.prompt(is_heard=False))
    client.stop()
    assert (client.known(ANSWER_MS), client.peer.fact(facts.PROMPTS)) == (Health.SILENT, "")


def test_a_start_that_finds_no_session_leaves_the_probe_to_its_first_prompt(
    client: Client,
) -> None:
    folder = client.peer.home / "run" / "clients"
    folder.rename(client.peer.home / "run" / "not yet")
    assert client.start("startup") == ""
    (client.peer.home / "run" / "not yet").rename(folder)
    assert LINE.fullmatch(client.prompt())
    client.stop()
    assert client.known() is Health.REACHES
    assert client.prompt() == ""


def test_a_run_whose_first_hook_is_that_of_a_tool_is_probed_there(client: Client) -> None:
    client.peer.environ["CLAUDE_CODE_ENTRYPOINT"] = "sdk-cli"
    assert LINE.fullmatch(client.tool())
    assert client.known() is Health.UNTRIED
    client.stop()
    assert client.known() is Health.REACHES


def test_what_a_hook_printed_reaches_the_model_once_that_has_replied_to_it(
    client: Client,
) -> None:
    client.start()
    client.prompt()
    assert (client.known(), bells.reaching(client.peer.sql, [], now_ms())) == (Health.UNTRIED, [])
    client.tool()
    assert client.known() is Health.REACHES
    assert bells.reaching(client.peer.sql, [], now_ms()) == ["hooks"]


def test_hooks_whose_print_is_dropped_are_silent_behind_their_first_turn(client: Client) -> None:
    assert client.start(is_heard=False) != ""
    assert client.known(ANSWER_MS) is Health.UNTRIED
    client.prompt()
    client.tool()
    assert client.known(ANSWER_MS) is Health.UNTRIED
    client.stop()
    assert client.known() is Health.UNTRIED
    assert client.known(ANSWER_MS) is Health.SILENT
    assert bells.reaching(client.peer.sql, [], now_ms()) == []


def test_hooks_that_are_silent_are_probed_again_with_the_next_prompt(client: Client) -> None:
    client.start(is_heard=False)
    client.prompt()
    client.stop()
    assert client.known(ANSWER_MS) is Health.SILENT
    assert client.tool() == ""
    assert LINE.fullmatch(client.prompt())
    assert client.known() is Health.SILENT
    client.stop()
    assert client.known() is Health.REACHES


def test_a_transcript_that_is_late_makes_no_hook_silent(client: Client) -> None:
    line = client.start(is_heard=False)
    client.prompt()
    client.stop()
    assert client.known(ANSWER_MS - 1_000) is Health.UNTRIED
    write_down(client.path, context("SessionStart", line), reply("msg_2"))
    assert client.known(ANSWER_MS) is Health.REACHES


def test_a_turn_whose_request_never_came_through_makes_no_hook_silent(client: Client) -> None:
    client.start()
    write_down(client.path, reply("msg_1", model="<synthetic>"))
    client.hook("Stop")
    assert client.known(ANSWER_MS) is Health.UNTRIED
    client.stop()
    assert client.known() is Health.REACHES


def test_nothing_is_known_of_the_hooks_when_a_session_starts_anew(client: Client) -> None:
    client.start()
    client.stop()
    assert client.known() is Health.REACHES
    assert LINE.fullmatch(client.start("clear", is_heard=False, session_id="another"))
    assert client.known(ANSWER_MS) is Health.UNTRIED
    client.hook("Stop", session_id="another")
    assert client.known(ANSWER_MS) is Health.SILENT


def test_nothing_is_known_of_the_hooks_in_a_session_whose_start_could_not_be_noted(
    client: Client,
) -> None:
    client.start()
    client.stop()
    assert client.known() is Health.REACHES
    assert LINE.fullmatch(client.prompt(session_id="another"))
    assert client.known() is Health.UNTRIED


def test_nothing_is_known_of_the_hooks_of_another_client(client: Client) -> None:
    client.start()
    client.stop()
    assert client.known() is Health.REACHES
    facts.begin(client.peer.sql, "1.1", "another", attended=True)
    assert client.known() is Health.UNTRIED


@pytest.mark.parametrize("moment", ["start", "prompt", "tool"])
def test_messages_that_are_shown_are_a_probe_themselves_and_need_no_line(
    client: Client, moment: str
) -> None:
    client.peer.put(priority="now")
    shown = getattr(client, moment)()
    assert "Hello." in shown
    assert "(probe" not in shown
    assert client.known(ANSWER_MS) is Health.UNTRIED
    client.stop()
    assert client.known() is Health.REACHES


def test_hooks_that_were_heard_are_silent_once_messages_do_not_come_through(
    client: Client,
) -> None:
    client.start()
    client.stop()
    assert client.known() is Health.REACHES
    client.peer.put()
    assert "Hello." in client.prompt(is_heard=False)
    assert client.known() is Health.REACHES
    client.stop()
    assert client.known(ANSWER_MS) is Health.SILENT


def test_what_goes_on_with_a_turn_is_no_probe_since_it_is_no_context(client: Client) -> None:
    client.start()
    client.tool()
    client.peer.put()
    assert "Hello." in client.hook("Stop", is_heard=False)
    client.stop()
    assert client.known(ANSWER_MS) is Health.REACHES


def test_a_start_that_comes_while_the_one_before_is_looked_at_is_settled_by_its_own_probe(
    client: Client,
) -> None:
    client.start()
    client.stop()
    late = probes.verdict(client.peer.sql, now_ms())
    assert late is not None
    client.start("clear", session_id="another")
    probes.settle(client.peer.sql, late)
    assert facts.hooks(client.peer.sql) is Health.UNTRIED


def test_of_a_long_transcript_what_stood_there_before_is_not_read(client: Client) -> None:
    write_down(client.path, *[reply("msg_0")] * 1_000)
    size = client.path.stat().st_size
    client.start()
    probe = probes.unsettled(client.peer.sql)
    assert probe is not None
    assert (probe.offset, probe.path) == (size, str(client.path))


def test_where_a_count_alone_is_said_the_probe_stands_behind_it(client: Client) -> None:
    facts.set_mode(client.peer.sql, facts.Mode.INBOX)
    client.peer.put()
    said = client.start()
    assert re.fullmatch(
        r"claudemesh: 1 unread message; inbox shows them\. \(probe [0-9a-f]{8}\)", said
    )
    assert client.prompt() == "claudemesh: 1 unread message; inbox shows them."
    client.stop()
    assert client.known() is Health.REACHES


def test_where_nothing_is_to_be_said_there_is_no_probe(client: Client) -> None:
    facts.set_mode(client.peer.sql, facts.Mode.OFF)
    assert [client.start(), client.prompt()] == ["", ""]
    facts.set_mode(client.peer.sql, facts.Mode.PUSH)
    facts.set_dnd(client.peer.sql, on=True)
    assert [client.start(), client.prompt()] == ["", ""]
    facts.set_dnd(client.peer.sql, on=False)
    assert LINE.fullmatch(client.prompt())


def test_without_a_server_that_looks_for_it_there_is_no_probe(client: Client) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    client.peer.record(server=gone.pid)
    assert [client.start(), client.prompt()] == ["", ""]


def test_a_notice_of_another_machine_brings_no_probe(client: Client) -> None:
    notice = "<task-notification>Build done.</task-notification>"
    assert client.hook("UserPromptSubmit", prompt=notice) == ""


@pytest.mark.parametrize("path", ["", "/none", "/", "a\0b", "\ud800"])
def test_where_the_transcript_can_not_be_read_nothing_is_known(bob: Beside, path: str) -> None:
    client = Client(bob, bob.home / "unused")
    for event in ("SessionStart", "UserPromptSubmit", "PostToolUse", "Stop"):
        bob.hook(event, transcript_path=path, tool_use_id="toolu_1")
    assert client.known(ANSWER_MS) is Health.UNTRIED
    assert bob.hook("UserPromptSubmit", prompt="Go on.", transcript_path=path) == ""


def test_a_transcript_that_holds_no_lines_of_a_client_makes_hooks_silent(client: Client) -> None:
    client.start()
    client.path.write_bytes(b"\xff\0 (probe\n" * 100)
    client.hook("Stop")
    assert client.known(ANSWER_MS) is Health.SILENT


@pytest.fixture
def work(bob: Beside) -> Iterator[Beside]:
    """Give the peer of the same client in a second mesh."""
    with beside(bob.home, "p_" + "w" * 26, "work", "mesh_work") as opened:
        yield opened


def test_a_client_of_two_meshes_is_probed_by_one_line(client: Client, work: Beside) -> None:
    facts.put(work.sql, facts.PROMPTS, "1")
    assert LINE.fullmatch(client.start())
    client.stop()
    for peer in (client.peer, work):
        assert Client(peer, client.path).known() is Health.REACHES
