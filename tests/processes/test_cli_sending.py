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


async def test_a_message_is_waited_for_taken_back_and_kept_for_one_commit(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        async with shell.session("ada") as ada:
            waiting = ("--wait-for", "delivered", "--wait", "30", "--json")
            first = await shell.runs("send", "ada", "Deploy at two.", *waiting)
            assert first.code == 0, first.err
            assert first.json["reached"] is True
            (to,) = first.json["recipients"]
            assert (to["status"], to["proved"]) == ("delivered", True)
            unread = await shell.runs(
                "send", "ada", "Read me.", "--wait-for", "seen", "--wait", "1"
            )
            assert (unread.code, len(unread.out.split())) == (1, 1)
            assert "delivered" in unread.err
            second = await shell.runs(
                "send", "ada", "At three.", "--supersedes", first.json["id"], *waiting
            )
            assert second.code == 0, second.err
            elsewhere = await shell.runs(
                "send", "ada", "For another commit.", "--git-sha", "0123456", *waiting
            )
            assert elsewhere.code == 0, elsewhere.err
            shown = (await ada.call("inbox"))["messages"]
            assert [one["text"] for one in shown] == ["Read me.", "At three."]
            reasons: list[str] = []
            for sent in (first, elsewhere):
                row = {"status": "delivered"}
                while row["status"] == "delivered":  # Her receipt travels while we ask.
                    told = await shell.runs("message-status", sent.json["id"], "--json")
                    (row,) = told.json["recipients"]
                assert (row["status"], row["proved"]) == ("withheld", True)
                reasons.append(row["reason"])
            assert reasons == ["superseded", "no_checkout"]
            back = await ada.call(
                "send", to=shown[0]["from"], text="Fine.", wait_for="delivered", wait_s=1
            )
            assert back["reached"] is False
            assert [one["status"] for one in back["recipients"]] == ["queued"]
