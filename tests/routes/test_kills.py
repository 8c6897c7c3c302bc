"""Hooks at the same time, and hooks killed at any moment: nothing is lost, or repeated unmarked."""

import json
import sqlite3
import subprocess
from collections import Counter
from pathlib import Path

from claudemesh_mcp import succession
from tests.support.hostile import frames_of
from tests.support.routing import LIMIT_S, SESSION, Beside, Ran, beside

COUNT = 24
SAID = json.dumps({"session_id": SESSION, "tool_use_id": "toolu_1"}).encode()


def put_all(bob: Beside) -> None:
    for number in range(COUNT):
        bob.put(f"Message {number}. {'x' * 900}", priority="now", sender=f"p_{number}")


def read(out: bytes) -> list[tuple[dict[str, str], str]]:
    """Read what a hook printed; nothing if it is not whole, as the client does."""
    try:
        text = Ran(0, out.decode(), "").text
    except ValueError:
        return []
    return frames_of(text, text.count("</mesh-message-")) if text else []


def test_hooks_at_the_same_time_show_each_message_once(bob: Beside) -> None:
    put_all(bob)
    shown = Counter[str]()
    for _ in range(6):
        bob.sql.execute("DELETE FROM pushes")
        hooks = [bob.start("hook.py", "PostToolUse") for _ in range(4)]
        for hook in hooks:
            assert hook.stdin is not None
            hook.stdin.write(SAID)
            hook.stdin.close()
            hook.stdin = None
        for hook in hooks:
            out, err = hook.communicate(timeout=LIMIT_S)
            assert (hook.returncode, err) == (0, b"")
            shown.update(body for _, body in read(out))
    # One that had to wait too long for the others has shown nothing, and lost nothing.
    assert set(shown.values()) == {1}
    assert len(shown) == COUNT


def killed(bob: Beside, after_s: float) -> bytes:
    """Run a hook and kill it; gives what its client has read."""
    with bob.start("hook.py", "PostToolUse") as hook:
        assert hook.stdin is not None
        hook.stdin.write(SAID)
        hook.stdin.close()
        hook.stdin = None
        try:
            return hook.communicate(timeout=after_s)[0]
        except subprocess.TimeoutExpired:
            hook.kill()
            return hook.communicate()[0]


def test_hooks_killed_at_any_moment_lose_nothing_and_repeat_nothing_unmarked(bob: Beside) -> None:
    put_all(bob)
    shown = Counter[str]()
    unmarked = Counter[str]()
    outputs = [killed(bob, after_ms / 1000) for after_ms in range(20, 400, 20)]
    for _ in range(20):
        bob.sql.execute("DELETE FROM pushes")
        end_leases(bob.sql)
        ran = bob.feed("PostToolUse", SAID)
        outputs.append(ran.out.encode())
        if not ran.out:
            break
    for out in outputs:
        for told, body in read(out):
            shown[body] += 1
            unmarked[body] += "redelivered" not in told
    assert len(shown) == COUNT
    assert max(unmarked.values()) == 1
    bob.stop()
    assert bob.states() == ["seen"] * COUNT


def end_leases(sql: sqlite3.Connection) -> None:
    sql.execute("UPDATE inbox SET lease_until_ms = 0 WHERE printed IS NULL")


def test_an_heir_shows_marked_what_its_predecessor_printed_and_nothing_proved(
    bob: Beside, tmp_path: Path
) -> None:
    bob.put("Printed.")
    bob.prompt()
    bob.put("Not yet.")
    left = succession.hold(bob.sql)
    with beside(tmp_path / "other home") as heir:
        succession.keep(heir.sql, left)
        # A kill between the two has it moved a second time.
        succession.keep(heir.sql, succession.hold(bob.sql))
        succession.end(bob.sql, left, 1)
        found = frames_of(heir.prompt(), 2)
        assert [(body, "redelivered" in told) for told, body in found] == [
            ("Printed.", True),
            ("Not yet.", False),
        ]
        # What the predecessor's session was shown proves nothing in the heir's.
        assert heir.receipts() == []
        heir.stop()
        assert heir.states() == ["seen", "seen"]
    assert bob.prompt() == ""
