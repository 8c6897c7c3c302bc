"""What a send of the command line waits for, takes back, and keeps for one commit."""

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from tests.support.shell import LIMIT_S, Shell, shell_in


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_in(tmp_path) as shell:
        yield shell


async def test_a_send_that_waits_ends_by_how_far_all_got(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        async with shell.session("ada"):
            waits = ("--wait-for", "delivered", "--wait", "30", "--json")
            sent = await shell.runs("send", "ada", "Deploy at two.", *waits)
            assert sent.code == 0, sent.err
            assert sent.json["reached"] is True
            (to,) = sent.json["recipients"]
            assert (to["status"], to["proved"]) == ("delivered", True)
            unread = await shell.runs(
                "send", "ada", "Read me.", "--wait-for", "seen", "--wait", "1"
            )
            assert (unread.code, len(unread.out.split())) == (1, 1)
            assert "ada" in unread.err
            wrong = await shell.runs("send", "ada", "Read me.", "--wait", "1", "--json")
            assert (wrong.code, wrong.json["error"]["code"]) == (2, "bad_wait")


async def test_what_is_taken_back_or_for_another_commit_is_not_shown(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        async with shell.session("ada") as ada:
            first = await shell.runs("send", "ada", "At two.", "--git-sha", "0123456", "--json")
            assert first.code == 0, first.err
            second = await shell.runs(
                "send", "ada", "At three.", "--supersedes", first.json["id"], "--json"
            )
            assert second.code == 0, second.err
            (shown,) = (await ada.call("inbox", wait_s=LIMIT_S))["messages"]
            assert (shown["text"], "supersedes" in shown) == ("At three.", False)
            row = {"status": ""}
            while row["status"] != "withheld":  # Her receipt travels while we ask.
                told = await shell.runs("message-status", first.json["id"], "--json")
                (row,) = told.json["recipients"]
            assert (row["reason"] in {"superseded", "no_checkout"}, row["proved"]) == (True, True)
            back = await ada.call(
                "send", to=shown["from"], text="Fine.", wait_for="delivered", wait_s=1
            )
            assert back["reached"] is False
            assert [one["status"] for one in back["recipients"]] == ["queued"]
