"""What is checked out where git keeps its references in tables, read without git."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_mcp.reftable import look_up
from claudemesh_mcp.staleness import head_of
from tests.support.reftables import Said, keep, table
from tests.support.repository import git, repository

MAIN: tuple[str, Said] = ("HEAD", "ref: refs/heads/main")
BRANCH = "refs/heads/main"
ONE, TWO, THREE = "11" * 20, "22" * 20, "33" * 20
# As dulwich 1.2 writes it: HEAD, two branches, one that was deleted, a tag.
BY_DULWICH = bytes.fromhex(
    "524546540100100000000000000000010000000000000005720000a3002348454144000f726566732f68656164732f"
    "6d61696e0079726566732f68656164732f6d61696e0111111111111111111111111111111111111111110f3974656e"
    "616e63650222222222222222222222222222222222222222220b186f6c64040539746167732f763103333333333333"
    "333333333333333333333333333300001c00003300025245465401001000000000000000000100000000000000050000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000a003b98c"
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The folder that git keeps what it knows in, of a checkout that has no references yet."""
    (tmp_path / "shop" / ".git").mkdir(parents=True)
    return tmp_path / "shop" / ".git"


def head(git_folder: Path) -> str | None:
    return head_of(str(git_folder.parent))


def test_a_branch_leads_to_its_commit(shop: Path) -> None:
    keep(shop, table([MAIN, ("refs/heads/fix", TWO), (BRANCH, ONE), ("refs/tags/v1", THREE)]))
    assert head(shop) == ONE


def test_a_commit_that_is_checked_out_itself_is_found(shop: Path) -> None:
    keep(shop, table([("HEAD", TWO), (BRANCH, ONE)]))
    assert head(shop) == TWO


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("HEAD", "ref: refs/heads/main"),
        ("refs/heads/main", ONE),
        ("refs/heads/maintenance", TWO),
        ("refs/heads/old", ""),
        ("refs/tags/v1", THREE),
        ("refs/heads/mai", ""),
        ("refs/heads/main/more", ""),
        ("A", ""),
        ("z", ""),
    ],
)
def test_a_table_that_another_program_wrote_says_the_same(shop: Path, name: str, said: str) -> None:
    keep(shop, BY_DULWICH)
    assert look_up(str(shop), name) == said


def test_the_newest_table_counts(shop: Path) -> None:
    keep(shop, table([MAIN, (BRANCH, ONE)]), table([(BRANCH, TWO)]), table([("refs/x", THREE)]))
    assert head(shop) == TWO


def test_a_branch_that_was_deleted_later_has_no_commit(shop: Path) -> None:
    keep(shop, table([MAIN, (BRANCH, ONE)]), table([(BRANCH, None)]))
    assert head(shop) is None


def test_a_branch_without_a_commit_has_none(shop: Path) -> None:
    keep(shop, table([MAIN]))
    assert head(shop) is None


@pytest.mark.parametrize("is_padded", [True, False])
@pytest.mark.parametrize("at", [0, 1, 15, 16, 17, 480, 999])
def test_one_of_many_is_found_in_whatever_block_it_is(
    shop: Path, at: int, *, is_padded: bool
) -> None:
    names = [f"refs/heads/topic-{number:04}" for number in range(1000)]
    hashes = [f"{number:040x}" for number in range(1000)]
    records: list[tuple[str, Said]] = [
        ("HEAD", f"ref: {names[at]}"),
        *zip(names, hashes, strict=True),
        ("refs/tags/v1", (THREE, hashes[at])),
        ("refs/tags/v2", ONE),
    ]
    written = table(records, block_size=512, is_padded=is_padded)
    assert len(written) > 40 * 512
    keep(shop, written)
    assert head(shop) == hashes[at]
    assert look_up(str(shop), "refs/tags/v1") == THREE
    assert look_up(str(shop), "refs/tags/v2") == ONE
    assert look_up(str(shop), names[at] + "x") == ""


def test_a_repository_of_sha_256_is_read_too(shop: Path) -> None:
    keep(shop, table([MAIN, (BRANCH, "ab" * 32), ("refs/heads/next", "cd" * 32)]))
    assert head(shop) == "ab" * 32


def test_a_linked_worktree_has_a_head_of_its_own(tmp_path: Path) -> None:
    main = repository(tmp_path / "shop")
    git(main, "worktree", "add", "-b", "fix", "../hotfix")
    keep(main / ".git", table([MAIN, ("refs/heads/fix", TWO), (BRANCH, ONE)]))
    keep(main / ".git" / "worktrees" / "hotfix", table([("HEAD", "ref: refs/heads/fix")]))
    assert head_of(str(main)) == ONE
    assert head_of(str(tmp_path / "hotfix")) == TWO


def test_a_branch_that_stands_for_itself_is_not_followed_for_ever(shop: Path) -> None:
    keep(shop, table([MAIN, (BRANCH, f"ref: {BRANCH}")]))
    assert head(shop) is None


@pytest.mark.parametrize("content", [b"", b"REFT", b"REFT\3", b"PACK" * 20, b"REFT\2" + bytes(99)])
def test_what_is_no_table_says_nothing(shop: Path, content: bytes) -> None:
    keep(shop, content)
    assert head(shop) is None


def test_a_table_that_is_gone_or_a_pipe_keeps_nobody(shop: Path) -> None:
    keep(shop, table([MAIN, (BRANCH, ONE)]))
    (file,) = (shop / "reftable").glob("*.ref")
    file.unlink()
    assert head(shop) is None
    os.mkfifo(file)
    assert head(shop) is None
    (shop / "reftable" / "tables.list").unlink()
    assert head(shop) is None


WHOLE = table([MAIN, *((f"refs/heads/{name}", ONE) for name in "abcdefgh"), (BRANCH, ONE)])


@given(
    at=st.integers(0, len(WHOLE) - 1),
    other=st.binary(min_size=1, max_size=6),
    is_cut=st.booleans(),
)
def test_whatever_is_damaged_ends_in_an_answer(
    tmp_path_factory: pytest.TempPathFactory, at: int, other: bytes, *, is_cut: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged" / ".git"
    folder.mkdir(parents=True, exist_ok=True)
    keep(folder, WHOLE[:at] if is_cut else WHOLE[:at] + other + WHOLE[at + len(other) :])
    said = head_of(str(folder.parent))
    assert said is None or len(said) == 40
