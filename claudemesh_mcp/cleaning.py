"""Clean text that others wrote before a model reads it, and count what had to go.

``server.py`` passes every result and every error through ``clean_value``; tools that show how much
was stripped call ``clean`` themselves, and ``clean_line`` for what belongs on one line. Two things
are taken out. What a reader can't see: control characters, terminal escape sequences, direction
overrides, zero-width characters, tags and variation selectors that hide text. And what could close
or forge the frame around a text: the tags of such frames and the markers of a conversation's turns.

What people write stays: code, indentation, emoji made of several characters, right-to-left
scripts, joiners where a script needs them.
"""

from __future__ import annotations

from functools import cache

from claudemesh_mcp.plain import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from re import Match, Pattern
    from typing import Any, Final

# Emoji, and the symbols that a variation selector turns into one.
_EMOJI: Final = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u2460-\u24ff\u25a0-\u27bf"
    "\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
)
_ONE_EMOJI: Final = f"{_EMOJI}[\ufe0e\ufe0f]?[\U0001f3fb-\U0001f3ff]?"
_TAG_FLAGS: Final = "|".join(
    "".join(chr(0xE0000 + ord(letter)) for letter in region)
    for region in ("gbeng", "gbsct", "gbwls")
)
_IDEOGRAPH: Final = "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_MONGOLIAN: Final = "[\u1810-\u1819\u1820-\u18aa]"
# Scripts whose spelling uses joiners and non-joiners: Arabic to Thaana, Indic, Tibetan to
# Myanmar, Khmer, and Arabic's presentation forms; none of these holds an invisible character.
_JOINING: Final = (
    "[\u0620-\u06dc\u06df-\u070d\u0710-\u08ff\u0900-\u109f\u1780-\u17b3\u17b6-\u17dd"
    "\ufb50-\ufdff\ufe70-\ufefc]"
)
# A visible character together with the invisible ones that belong to it; these are kept whole,
# so that every invisible character outside of them can go.
_LEGITIMATE: Final = "|".join(
    (
        f"\U0001f3f4(?:{_TAG_FLAGS})\U000e007f",
        f"{_ONE_EMOJI}(?:\u200d{_ONE_EMOJI})*",
        "[0-9#*]\ufe0f\u20e3",
        f"{_IDEOGRAPH}[\ufe00-\ufe02\U000e0100-\U000e01ef]",
        f"{_MONGOLIAN}[\u180b-\u180d\u180f]",
        f"{_JOINING}[\u200c\u200d]",
    )
)
_ESCAPE_SEQUENCES: Final = (
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]|"
    # Strings for the terminal (title, hyperlink, clipboard): up to their end, or the line's.
    "(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\\\|\x9c)|"
    "\x1b[ -/]{0,2}[0-~]"
)
_INVISIBLE: Final = (
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_UNSEEN: Final = (
    f"(?P<kept>{_LEGITIMATE})|(?P<end>\r\n)|(?P<line>[\r\u2028\u2029])"
    f"|{_ESCAPE_SEQUENCES}|{_INVISIBLE}"
)
# The names of frames around what a model reads, ours and those of clients and model formats.
_FRAMES: Final = (
    "antml:[a-z_]+|"
    "(?:mesh|peer|teammate|channel|cross-session|task)[-_](?:message|notification|event)s?"
    # With a nonce too: only the right one counts, but a reader may not compare it.
    "(?:-[0-9a-z]{1,40})?|"
    "claudemesh(?:[-_][a-z_-]+)?|"
    "messages?|channel|"
    "system(?:[-_](?:reminder|prompt|message|warning))?|"
    "human|user|assistant|"
    "function_(?:calls?|results?)|invoke|tool_(?:use|call|result|output|response)s?|"
    "user-prompt-submit-hook|new-diagnostics|ide_[a-z_]+|"
    "local-command-[a-z]+|command-(?:name|message|args|contents)|bash-(?:input|stdout|stderr)|"
    "persisted-output|untrusted[-_][a-z_-]+"
)
_OPENERS: Final = "<\uff1c\ufe64"
# Right behind a word these alone are type parameters; with attributes they are none.
_TYPES: Final = "messages?|channel|system|human|user|assistant|invoke"
_TAG: Final = (
    f"(?i)[{_OPENERS}](?="
    f"[\\s\\\\]{{0,3}}[/\uff0f]\\s{{0,3}}(?:{_FRAMES})(?![\\w.:-])"
    f"|(?:{_FRAMES})(?:\\s+[\\w:-]+\\s*=|\\s*[/\uff0f]\\s*[>\uff1e])"
    f"|(?!(?<=\\w[{_OPENERS}])(?:{_TYPES})[\\s>\uff1e])"
    f"(?:{_FRAMES})(?:\\s[^<>\\n]{{0,200}})?\\s*[>\uff1e]"
    "|\\|[a-z_]{2,24}\\|>)"
)
_TURN: Final = "(\n[ \t]{0,16}\n[ \t]{0,16}(?:Human|Assistant)):"
_TURNS: Final = ("Human:", "Assistant:")
# What of the invisible Python calls printable, and from where on all of it may be invisible.
_PRINTABLE_UNSEEN: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
    + "".join(map(chr, range(0xFE00, 0xFE10)))
)
_TAGS: Final = "\U000e0000"
# How each of the frames' names begins, and what may stand between it and its opener.
_FRAME_STARTS: Final = (
    *("antml:", "mesh", "peer", "teammate", "channel", "cross-session", "task", "claudemesh"),
    *("message", "system", "human", "user", "assistant", "function_", "invoke", "tool_"),
    *("new-diagnostics", "ide_", "local-command-", "command-", "bash-", "persisted-output"),
    *("untrusted", "|"),
)
_WIDTHS: Final = "".join(map(chr, range(0x2000, 0x200B)))
_BEFORE_NAME: Final = f" \n\t\\/\uff0f\xa0\u1680\u202f\u205f\u3000{_WIDTHS}"
# To a pattern that ignores case these are ASCII letters; `lower` leaves some of them.
_FOLDED: Final = str.maketrans("\u0130\u0131\u017f\u212a", "iisk")
_LINES: Final = str.maketrans("", "", "\n\t")
_WHITE: Final = "[\n\t\r\u2028\u2029]+"
_HARMLESS_OPENER: Final = "\u2039"
_HARMLESS_COLON: Final = "\ua789"


class Cleaned(NamedTuple):
    """A text that is safe to show, and how many of its characters were removed or replaced."""

    text: str
    stripped: int


class CleanedValue(NamedTuple):
    """A JSON value that is safe to show, and how many characters that took."""

    value: Any
    stripped: int


def clean(text: str) -> Cleaned:
    """Take out what can't be seen and make harmless what could pass for a frame.

    Cleaning twice changes nothing more, and the text never gets longer.
    """
    stripped = tags = turns = 0
    # Asked before each pattern, because to make one takes as long as half a hook.
    if not _is_all_seen(text):
        text, stripped = _take_out_unseen(text)
    if _may_open_frame(text):
        text, tags = _pattern(_TAG).subn(_HARMLESS_OPENER, text)
    if any(turn in text for turn in _TURNS):
        text, turns = _pattern(_TURN).subn(f"\\1{_HARMLESS_COLON}", text)
    return Cleaned(text, stripped + tags + turns)


def _is_all_seen(text: str) -> bool:
    if not text.translate(_LINES).isprintable():
        return False
    return text.isascii() or (max(text) < _TAGS and _PRINTABLE_UNSEEN.isdisjoint(text))


def _take_out_unseen(text: str) -> Cleaned:
    stripped = 0

    def unseen(match: Match[str]) -> str:
        nonlocal stripped
        kind = match.lastgroup
        if kind == "kept":
            return match[0]
        if kind == "end":
            return "\n"
        stripped += len(match[0])
        return "\n" if kind == "line" else ""

    text = _pattern(_UNSEEN).sub(unseen, text)
    return Cleaned(text, stripped)


def _may_open_frame(text: str) -> bool:
    if not any(opener in text for opener in _OPENERS):
        return False
    folded = text.translate(_FOLDED).lower()
    return any(
        behind.lstrip(_BEFORE_NAME).startswith(_FRAME_STARTS)
        for opener in _OPENERS
        for behind in folded.split(opener)[1:]
    )


@cache
def _pattern(pattern: str) -> Pattern[str]:
    # With the first text that needs it: many a session meets none, and they take 0.4 MiB.
    import re

    return re.compile(pattern)


def clean_line(text: str) -> Cleaned:
    """Clean a text that belongs on one line: line ends and tabs become single spaces."""
    # What is printable has none of them.
    one_line = text if text.isprintable() else _pattern(_WHITE).sub(" ", text)
    cleaned = clean(one_line)
    return Cleaned(cleaned.text.strip(), cleaned.stripped)


def clean_value(value: Any) -> CleanedValue:
    """Clean every text inside a JSON value, the keys of its objects too."""
    if isinstance(value, str):
        cleaned = clean(value)
        return CleanedValue(cleaned.text, cleaned.stripped)
    stripped = 0

    def inside(one: Any) -> Any:
        nonlocal stripped
        part = clean_value(one)
        stripped += part.stripped
        return part.value

    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        value = {inside(key): inside(one) for key, one in items}
    elif isinstance(value, list | tuple):
        value = [inside(one) for one in cast("list[Any]", value)]
    return CleanedValue(value, stripped)
