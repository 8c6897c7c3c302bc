"""Repositories that keep their references in tables, as a newer git than this machine's makes them.

Written by reftable(5), for the tests of what reads them without git.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

Said = str | tuple[str, str] | None
"""What a reference says: a hash, a tag's and its target's, ``ref: NAME``; none: it was deleted."""

_RESTART_EVERY: Final = 16


def table(
    records: Sequence[tuple[str, Said]], *, block_size: int = 4096, is_padded: bool = True
) -> bytes:
    """Write a table.

    Args:
        records: The references, in the order of their names.
        block_size: The most bytes of a block.
        is_padded: Whether each block begins at a multiple of that size.
    """
    sizes = {len(said) for _, said in records if isinstance(said, str) and " " not in said}
    is_sha256 = sizes == {64}
    header = b"REFT" + (b"\2" if is_sha256 else b"\1")
    header += (block_size if is_padded else 0).to_bytes(3, "big") + (1).to_bytes(8, "big") * 2
    header += b"s256" if is_sha256 else b""
    written, block = b"", _Block(header)
    for name, said in records:
        if not block.takes(name, said, block_size):
            written += block.whole()
            written += bytes(-len(written) % block_size if is_padded else 0)
            block = _Block(b"")
            assert block.takes(name, said, block_size)
    return written + block.whole() + header + bytes(40 + 4)


class _Block:
    """A block of references.

    Args:
        header: What stands before it and counts as part of it.
    """

    def __init__(self, header: bytes) -> None:
        self._header, self._records, self._before = header, b"", b""
        self._count, self._restarts = 0, list[int]()

    def takes(self, name: str, said: Said, most: int) -> bool:
        """Add a reference, if there is room for it."""
        here = len(self._header) + 4 + len(self._records)
        is_restart = self._count % _RESTART_EVERY == 0
        record = _record(b"" if is_restart else self._before, name.encode(), said)
        if here + len(record) + 3 * (len(self._restarts) + 1) + 2 > most:
            return False
        self._restarts += [here] if is_restart else []
        self._records, self._before = self._records + record, name.encode()
        self._count += 1
        return True

    def whole(self) -> bytes:
        """Give its bytes."""
        ends = b"".join(one.to_bytes(3, "big") for one in self._restarts)
        rest = self._records + ends + len(self._restarts).to_bytes(2, "big")
        size = len(self._header) + 4 + len(rest)
        return self._header + b"r" + size.to_bytes(3, "big") + rest


def _record(before: bytes, name: bytes, said: Said) -> bytes:
    shared = 0
    while before[shared : shared + 1] and before[shared : shared + 1] == name[shared : shared + 1]:
        shared += 1
    kind, value = _value(said)
    head = number(shared) + number((len(name) - shared) << 3 | kind)
    return head + name[shared:] + number(300) + value


def _value(said: Said) -> tuple[int, bytes]:
    if said is None:
        return 0, b""
    if isinstance(said, tuple):
        return 2, b"".join(map(bytes.fromhex, said))
    if said.startswith("ref: "):
        target = said.removeprefix("ref: ").encode()
        return 3, number(len(target)) + target
    return 1, bytes.fromhex(said)


def number(value: int) -> bytes:
    """Write a number of as many bytes as it needs."""
    written = [value & 0x7F]
    while value := value >> 7:
        value -= 1
        written.append(value & 0x7F | 0x80)
    return bytes(reversed(written))


def keep(git: Path, *tables: bytes) -> None:
    """Let a repository, or a linked worktree, have its references in these tables, oldest first."""
    folder = git / "reftable"
    folder.mkdir(exist_ok=True)
    names = [f"0x{at:012x}-0x{at:012x}-{at:08x}.ref" for at in range(len(tables))]
    for name, content in zip(names, tables, strict=True):
        (folder / name).write_bytes(content)
    (folder / "tables.list").write_text("".join(f"{name}\n" for name in names))
    (git / "HEAD").write_text("ref: refs/heads/.invalid\n")
