"""Reads what a reference says where git keeps them in tables; git itself is not run.

``staleness.py`` asks, in a hook too: the standard library is all that is imported, one block of a
table is read record by record, and of the others only where they begin.

Source: reftable(5), the format of versions 1 and 2.
"""

from __future__ import annotations

import os

from claudemesh_mcp.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

_LIST: Final = "tables.list"
_MOST_BYTES: Final = 64 * 1024 * 1024
_MOST_TRIES: Final = 3
_MAGIC: Final = b"REFT"
_HEADER_BYTES: Final = {1: 24, 2: 28}
_HASH_BYTES: Final = {b"sha1": 20, b"s256": 32}
_REFERENCES: Final = b"r"
_HEAD_BYTES: Final = 4
_SYMBOLIC: Final = 3
_MOST_NUMBER: Final = 1 << 63


def look_up(git: str, name: str) -> str:
    """Give what a reference says, as a file of its name would.

    Args:
        git: The folder that git keeps its references in.
        name: The reference, such as ``HEAD``.

    Returns:
        The hash of a commit, or ``ref:`` and the name of another one; empty if there is none, and
        where the tables make no sense.
    """
    folder = os.path.join(os.fsencode(git), b"reftable")
    for _ in range(_MOST_TRIES):
        try:
            return _in_stack(folder, os.fsencode(name))
        except FileNotFoundError:
            continue  # Another git has just made one table of several, and a new list.
        except (OSError, ValueError, LookupError):
            break
    return ""


def _in_stack(folder: bytes, wanted: bytes) -> str:
    for table in reversed(_content(os.path.join(folder, _LIST.encode())).split()):
        found = _in_table(_content(os.path.join(folder, os.path.basename(table))), wanted)
        if found is not None:
            return found
    return ""


def _content(path: bytes) -> bytes:
    # A pipe of this name would keep whoever opens it.
    if not os.path.isfile(path):
        raise FileNotFoundError
    with open(path, "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError
    return content


def _in_table(table: bytes, wanted: bytes) -> str | None:
    """Give what a table says of a reference; empty if it was deleted, ``None`` if nothing."""
    if not table.startswith(_MAGIC):
        raise ValueError
    header = _HEADER_BYTES[table[4]]
    block_size = int.from_bytes(table[5:8], "big")
    hash_size = _HASH_BYTES[table[24:28]] if header == _HEADER_BYTES[2] else _HASH_BYTES[b"sha1"]
    # The header of the table counts as part of its first block.
    begin, head, last = 0, header, None
    while table[head : head + 1] == _REFERENCES:
        end = begin + int.from_bytes(table[head + 1 : head + _HEAD_BYTES], "big")
        if not head + _HEAD_BYTES < end <= len(table):
            raise ValueError
        if _first_name(table, head + _HEAD_BYTES) > wanted:
            break
        last = table[head + _HEAD_BYTES : end]
        # Up to the next one it is filled with zeros, or not at all.
        begin = head = begin + block_size if table[end : end + 1] == b"\0" else end
        if begin < end:
            raise ValueError
    return None if last is None else _in_block(last, wanted, hash_size)


def _first_name(table: bytes, at: int) -> bytes:
    _, at = _number(table, at)
    word, at = _number(table, at)
    return table[at : at + (word >> 3)]


def _in_block(block: bytes, wanted: bytes, hash_size: int) -> str | None:
    name, at = b"", 0
    # At its end it says where its records can be read from, and how many such places there are.
    end = len(block) - 2 - 3 * int.from_bytes(block[-2:], "big")
    while at < end:
        shared, at = _number(block, at)
        word, at = _number(block, at)
        kind, size = word & 7, word >> 3
        name, at = name[:shared] + block[at : at + size], at + size
        _, at = _number(block, at)
        if kind > _SYMBOLIC:
            raise ValueError
        if kind == _SYMBOLIC:
            size, at = _number(block, at)
            said = f"ref: {os.fsdecode(block[at : at + size])}"
        else:
            # None for what was deleted, and two for a tag, the second of what it stands for.
            size = hash_size * kind
            said = block[at : at + min(size, hash_size)].hex()
        if name == wanted:
            return said
        at += size
    return None


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of as many bytes as it needs; gives where the next thing begins too."""
    value = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        value = ((value + 1) << 7) | (data[at] & 0x7F)
        if value >= _MOST_NUMBER:
            raise ValueError
    return value, at + 1
