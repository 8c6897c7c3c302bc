"""What is not shown any more: superseded, or for another commit than the one checked out."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from claudemesh_mcp import openrows, staleness, succession
from claudemesh_mcp.openrows import LEASE_MS
from claudemesh_mcp.staleness import head_of
from claudemesh_wire.content import ContentFields, ValidIf
from tests.support.letters import hand, message_id, report_all, rows, sealed, take, told, unread
from tests.support.repository import commit, git, repository
from tests.wire.world import CLEOS, NOW

OTHER = "0" * 40


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A repository with one commit."""
    return repository(tmp_path / "shop")


def after(earlier: object) -> ContentFields:
    """Say that a message takes the place of the one of this label."""
    return ContentFields(supersedes=message_id(earlier))


def only_at(sha: str) -> ContentFields:
    """Say that a message is for one commit."""
    return ContentFields(valid_if=ValidIf(git_sha=sha))


# What is checked out.


def test_reading_what_is_checked_out_needs_the_standard_library_alone() -> None:
    program = "import sys; sys.path[0:0] = [sys.argv[1]]; import claudemesh_mcp.staleness"
    root = str(Path(openrows.__file__).parent.parent)
    subprocess.run([sys.executable, "-I", "-S", "-c", program, root], check=True, timeout=60)


def test_a_branch_leads_to_its_commit_from_any_folder_of_the_checkout(shop: Path) -> None:
    (shop / "src" / "deep").mkdir(parents=True)
    said = git(shop, "rev-parse", "HEAD")
    assert head_of(str(shop)) == head_of(str(shop / "src" / "deep")) == said
    later = commit(shop)
    assert head_of(str(shop)) == later != said


def test_a_commit_that_is_checked_out_itself_is_found(shop: Path) -> None:
    first = git(shop, "rev-parse", "HEAD")
    commit(shop)
    git(shop, "switch", "--detach", first)
    assert head_of(str(shop)) == first


def test_a_branch_that_git_has_packed_is_found(shop: Path) -> None:
    git(shop, "branch", "mainly")
    git(shop, "tag", "--annotate", "--message=one", "main")
    said = commit(shop)
    git(shop, "pack-refs", "--all")
    assert not (shop / ".git" / "refs" / "heads" / "main").exists()
    assert head_of(str(shop)) == said


def test_a_branch_that_moved_since_it_was_packed_is_where_it_is_now(shop: Path) -> None:
    git(shop, "pack-refs", "--all")
    later = commit(shop)
    assert head_of(str(shop)) == later


@pytest.mark.parametrize("packed", [False, True])
def test_a_linked_worktree_has_a_head_of_its_own(shop: Path, *, packed: bool) -> None:
    git(shop, "worktree", "add", "-b", "fix", "../hotfix")
    tree = shop.parent / "hotfix"
    there = commit(tree)
    if packed:
        git(shop, "pack-refs", "--all")
    assert head_of(str(tree)) == there
    assert head_of(str(shop)) == git(shop, "rev-parse", "HEAD") != there


def test_a_submodule_has_a_head_of_its_own(shop: Path) -> None:
    whole = repository(shop.parent / "whole")
    git(whole, "submodule", "add", str(shop), "parts/till")
    commit(whole)
    assert head_of(str(whole / "parts" / "till")) == git(shop, "rev-parse", "HEAD")


def test_a_repository_of_sha_256_is_read_too(tmp_path: Path) -> None:
    folder = repository(tmp_path / "new", "--object-format=sha256")
    said = git(folder, "rev-parse", "HEAD")
    assert len(said) == 64
    assert head_of(str(folder)) == said


def test_a_branch_that_stands_for_another_is_followed_but_not_for_ever(shop: Path) -> None:
    git(shop, "symbolic-ref", "refs/heads/alias", "refs/heads/main")
    git(shop, "symbolic-ref", "HEAD", "refs/heads/alias")
    assert head_of(str(shop)) == git(shop, "rev-parse", "main")
    (shop / ".git" / "refs" / "heads" / "alias").write_text("ref: refs/heads/alias\n")
    assert head_of(str(shop)) is None


def test_an_empty_git_folder_inside_of_a_checkout_is_passed_over_as_git_does(shop: Path) -> None:
    (shop / "inner" / ".git").mkdir(parents=True)
    assert head_of(str(shop / "inner")) == git(shop / "inner", "rev-parse", "HEAD")


def test_without_a_commit_there_is_no_head(tmp_path: Path) -> None:
    git(tmp_path, "init", "new")
    assert head_of(str(tmp_path / "new")) is None
    (tmp_path / "plain").mkdir()
    assert head_of(str(tmp_path / "plain")) is None
    assert head_of(str(tmp_path / "gone")) is None


@pytest.mark.parametrize(
    "head",
    [
        "",
        "junk",
        "ref: refs/heads/.invalid",
        "ref: ../secret",
        "ref: refs/../../secret",
        "ref: /etc/passwd",
        "ref: refs/heads/\0",
        OTHER[1:],
        OTHER.replace("0", "g"),
        "\xff" * 9000,
    ],
)
def test_a_head_that_is_broken_is_none(shop: Path, head: str) -> None:
    (shop / "secret").write_text(OTHER)
    (shop / ".git" / "HEAD").write_text(head, encoding="latin-1")
    assert head_of(str(shop)) is None


@pytest.mark.parametrize("content", ["", "gitdir: /nowhere/at/all\n", "junk", "gitdir: \0\n"])
def test_a_git_file_that_points_nowhere_is_no_checkout(tmp_path: Path, content: str) -> None:
    (tmp_path / ".git").write_text(content)
    assert head_of(str(tmp_path)) is None


@pytest.mark.parametrize("name", ["HEAD", "packed-refs", "commondir"])
def test_a_pipe_in_the_place_of_a_file_keeps_nobody(shop: Path, name: str) -> None:
    git(shop, "switch", "--orphan", "nothing-yet")
    (shop / ".git" / name).unlink(missing_ok=True)
    os.mkfifo(shop / ".git" / name)
    assert head_of(str(shop)) is None


# What is superseded.


def test_what_was_superseded_before_it_was_shown_is_withheld_and_its_sender_told(
    sql: sqlite3.Connection,
) -> None:
    take(sql, sealed(1))
    take(sql, sealed(2, fields=after(1)))
    assert hand(sql) == [2]
    first, second = rows(sql)
    assert (first["state"], first["withheld"], first["text"]) == ("seen", "superseded", "hello")
    assert second["amends"] == 0
    assert told(sql) == [("delivered", ""), ("delivered", ""), ("withheld", "superseded")]
    assert unread(sql, NOW + LEASE_MS) == 1


def test_what_takes_the_place_of_something_shown_says_so(sql: sqlite3.Connection) -> None:
    take(sql, sealed(1))
    hand(sql)
    openrows.mark_seen(sql, [1], "tool", NOW)
    take(sql, sealed(2, fields=after(1)))
    (row,) = openrows.hand_out(sql, 9, None, "a:1", NOW)
    assert (row["supersedes"], row["amends"]) == (message_id(1), 1)
    assert rows(sql)[0]["withheld"] is None


def test_what_is_being_shown_is_left_alone_and_counts_as_perhaps_shown(
    sql: sqlite3.Connection,
) -> None:
    take(sql, sealed(1))
    hand(sql, holder="a:1")
    take(sql, sealed(2, fields=after(1)))
    (row,) = openrows.hand_out(sql, 9, None, "b:1", NOW)
    assert (row["seq"], row["amends"]) == (2, 1)
    assert openrows.mark_seen(sql, [1], "tool", NOW) == 1
    assert rows(sql)[0]["withheld"] is None


def test_an_offer_without_evidence_is_not_made_again_once_it_is_superseded(
    sql: sqlite3.Connection,
) -> None:
    take(sql, sealed(1))
    hand(sql)
    take(sql, sealed(2, fields=after(1)))
    assert hand(sql, now=NOW + LEASE_MS) == [2]
    assert rows(sql)[0]["withheld"] == "superseded"


def test_late_evidence_outweighs_that_it_was_withheld(sql: sqlite3.Connection) -> None:
    take(sql, sealed(1))
    hand(sql)
    take(sql, sealed(2, fields=after(1)))
    hand(sql, now=NOW + LEASE_MS)
    report_all(sql)
    assert openrows.mark_seen(sql, [1], "tool", NOW + LEASE_MS + 1) == 1
    assert told(sql) == [("seen", "")]
    assert (rows(sql)[0]["withheld"], rows(sql)[0]["route"]) == (None, "tool")


def test_no_evidence_makes_seen_what_was_never_offered(sql: sqlite3.Connection) -> None:
    take(sql, sealed(1))
    take(sql, sealed(2, fields=after(1)))
    hand(sql)
    assert openrows.mark_seen(sql, [1], "tool", NOW) == 0
    assert rows(sql)[0]["withheld"] == "superseded"


def test_the_message_of_another_sender_is_not_superseded(sql: sqlite3.Connection) -> None:
    take(sql, sealed(1))
    take(sql, sealed(2, sender=CLEOS, fields=after(1)))
    assert sorted(hand(sql)) == [1, 2]
    assert [row["amends"] for row in rows(sql)] == [0, 0]


def test_what_comes_behind_what_took_its_place_is_withheld_too(sql: sqlite3.Connection) -> None:
    take(sql, sealed(2, fields=after(1)))
    hand(sql)
    openrows.mark_seen(sql, [1], "tool", NOW)
    take(sql, sealed(1))
    assert hand(sql) == []
    assert [row["withheld"] for row in rows(sql)] == [None, "superseded"]


def test_of_a_chain_only_the_last_is_shown(sql: sqlite3.Connection) -> None:
    take(sql, sealed(1))
    take(sql, sealed(2, fields=after(1)))
    take(sql, sealed(3, fields=after(2)))
    assert hand(sql) == [3]
    assert [row["withheld"] for row in rows(sql)] == ["superseded", "superseded", None]


def test_what_supersedes_something_that_is_not_here_is_shown_as_any_other(
    sql: sqlite3.Connection,
) -> None:
    take(sql, sealed(2, fields=after(1)))
    (row,) = openrows.hand_out(sql, 9, None, "a:1", NOW)
    assert row["amends"] == 0


def test_looking_withholds_too(sql: sqlite3.Connection) -> None:
    take(sql, sealed(1))
    take(sql, sealed(2, fields=after(1)))
    assert [row["seq"] for row in openrows.peek(sql, 9, None, NOW)] == [2]


def test_rows_that_were_chosen_before_are_looked_at_once_more(sql: sqlite3.Connection) -> None:
    take(sql, sealed(1))
    take(sql, sealed(2, fields=after(1)))
    handed = openrows.hand_over(sql, [1, 2], "hook:s:n", NOW)
    assert [row["seq"] for row in handed] == [2]


def test_a_message_delivered_again_is_acknowledged_as_withheld(sql: sqlite3.Connection) -> None:
    take(sql, sealed(1))
    take(sql, sealed(2, fields=after(1)))
    hand(sql)
    report_all(sql)
    take(sql, sealed(1))
    assert told(sql) == [("withheld", "superseded")]


def test_an_heir_withholds_what_its_predecessor_had_not_shown(
    sql: sqlite3.Connection, tmp_path: Path
) -> None:
    late = sqlite3.connect(tmp_path / "late.db", isolation_level=None)
    late.row_factory = sqlite3.Row
    sql.backup(late)
    take(late, sealed(1))
    take(sql, sealed(2, fields=after(1)))
    succession.keep(sql, succession.hold(late))
    late.close()
    assert hand(sql) == [2]
    assert [row["withheld"] for row in rows(sql)] == [None, "superseded"]


# What is for one commit.


def test_a_message_for_the_commit_that_is_checked_out_is_shown(
    sql: sqlite3.Connection, shop: Path
) -> None:
    staleness.stand_in(sql, str(shop))
    head = git(shop, "rev-parse", "HEAD")
    for label, length in enumerate((7, 12, 40), 1):
        take(sql, sealed(label, fields=only_at(head[:length])))
    assert hand(sql) == [1, 2, 3]


def test_a_message_for_another_commit_is_withheld_for_good(
    sql: sqlite3.Connection, shop: Path
) -> None:
    staleness.stand_in(sql, str(shop))
    first = git(shop, "rev-parse", "HEAD")
    take(sql, sealed(1, fields=only_at(first)))
    commit(shop)
    assert hand(sql) == []
    assert told(sql) == [("delivered", ""), ("withheld", "stale")]
    git(shop, "switch", "--detach", first)
    assert hand(sql, now=NOW + LEASE_MS) == []


def test_what_is_checked_out_is_looked_up_at_the_offer(sql: sqlite3.Connection, shop: Path) -> None:
    staleness.stand_in(sql, str(shop))
    before = git(shop, "rev-parse", "HEAD")
    commit(shop)
    take(sql, sealed(1, fields=only_at(before)))
    git(shop, "switch", "--detach", before)
    assert hand(sql) == [1]


def test_without_a_checkout_a_message_for_a_commit_is_withheld(
    sql: sqlite3.Connection, tmp_path: Path
) -> None:
    take(sql, sealed(1, fields=only_at(OTHER)))
    assert hand(sql) == []
    staleness.stand_in(sql, str(tmp_path))
    take(sql, sealed(2, fields=only_at(OTHER)))
    take(sql, sealed(3))
    assert hand(sql) == [3]
    assert [row["withheld"] for row in rows(sql)] == ["no_checkout", "no_checkout", None]


def test_a_folder_whose_name_is_no_text_is_found(sql: sqlite3.Connection, tmp_path: Path) -> None:
    folder = repository(Path(os.fsdecode(os.fsencode(tmp_path) + b"/sh\xff\xfe\xc3\xbcp")))
    staleness.stand_in(sql, "/elsewhere")
    staleness.stand_in(sql, str(folder))
    take(sql, sealed(1, fields=only_at(git(folder, "rev-parse", "HEAD"))))
    assert hand(sql) == [1]


def test_what_is_held_is_looked_at_only_once_it_may_be_shown(sql: sqlite3.Connection) -> None:
    take(sql, sealed(1, fields=only_at(OTHER)))
    sql.execute("UPDATE inbox SET held = 'message'")
    assert hand(sql) == []
    assert [status for status, _ in told(sql)] == ["delivered"]
    sql.execute("UPDATE inbox SET held = NULL")
    assert hand(sql) == []
    assert told(sql)[-1] == ("withheld", "no_checkout")


def test_looking_for_what_is_stale_does_not_read_what_is_open(sql: sqlite3.Connection) -> None:
    asked: list[str] = []
    sql.set_trace_callback(asked.append)
    staleness.withhold(sql, NOW)
    sql.set_trace_callback(None)
    (plan,) = [sql.execute(f"EXPLAIN QUERY PLAN {one}").fetchone()["detail"] for one in asked]
    assert "inbox_conditional" in plan
