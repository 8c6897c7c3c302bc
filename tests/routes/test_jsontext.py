"""Hooks read and write JSON as `json` does, with the part of it that is quick to import."""

import json
import sys

import pytest

from claudemesh_mcp.routes import jsontext

TEXTS = [
    b"{}",
    b' \t\r\n{"a": [1, 2.5, -1e3, true, false, null]} \n',
    b'{"a": 1, "a": 2}',
    b'["\\u00fc \\ud83d\\ude00 \\ud800", "\xc3\xbc"]',
    b'"\xed\xa0\x80"',
    b"123456789012345678901234567890",
    b"Infinity",
    b"-Infinity",
    '\ufeff{"a": 1}'.encode(),
    '{"a": 1}'.encode("utf-16"),
    b"",
    b"   ",
    b"{",
    b'{"a"}',
    b"{} {}",
    b"{}\x0b",
    b'["\n"]',
    b'"\xff"',
    b"nul",
]


def outcome(read: object, text: bytes) -> tuple[str, str]:
    """Give what is read, or how that fails."""
    assert callable(read)
    try:
        found: object = read(text)
    except ValueError as fault:
        return type(fault).__name__, str(fault)
    return type(found).__name__, repr(found)


@pytest.mark.parametrize("has_part", [True, False])
@pytest.mark.parametrize("text", TEXTS)
def test_what_is_read_is_what_json_reads(
    text: bytes, monkeypatch: pytest.MonkeyPatch, *, has_part: bool
) -> None:
    expected = outcome(json.loads, text)
    if not has_part:
        monkeypatch.setitem(sys.modules, "_json", None)
    assert outcome(jsontext.read, text) == expected


@pytest.mark.parametrize("has_part", [True, False])
def test_what_is_written_is_read_as_it_was(
    monkeypatch: pytest.MonkeyPatch, *, has_part: bool
) -> None:
    if not has_part:
        monkeypatch.setitem(sys.modules, "_json", None)
    told = {
        "decision": "block",
        "more": {
            'a"b\\': "Grüße\n\x00\u2028\U0001f600\ud800</x>",
            "": "",
            "on": True,
            "off": False,
        },
    }
    assert json.loads(jsontext.write(told)) == told
    assert jsontext.write(told).isascii()
