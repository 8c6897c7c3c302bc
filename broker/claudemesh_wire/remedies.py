"""What can be done about an error that is another's fault, or one of the protocol, by its code.

``errors.py`` takes it for an error that is made without a hint; what is made in one place only, or
wants another word in each, says it there.
"""

from typing import Final

REMEDIES: Final[dict[str, str]] = {
    "bad_key": "Do not use it: whoever shows this key has to make another.",
    "bad_signature": "Do not rely on it: whoever it names has to sign it anew.",
    "certificate_swapped": "Do not rely on this broker's word about it.",
    "malformed": "Have it made anew; if that does not help, compare claudemesh --version on both"
    " sides.",
    "membership_fork": "Try again, on the log as it is now; if it stays so, an admin has to say"
    " which history is right.",
    "membership_gap": "Try again, on the log as it is now; if it stays so, do not rely on this"
    " broker.",
    "protocol_error": "Compare claudemesh --version on both sides, and update the older; before a"
    " repeat, see whether it was done.",
    "unsupported_version": "Compare claudemesh --version on both sides, and update the older.",
    "wrong_certificate": "Show the certificate of the peer that signs, and no other.",
    "wrong_conversation": "Seal it anew, for the conversation of its sender and its readers.",
    "wrong_mesh": "Make it for this mesh: what is of another does not count here.",
}


def remedy(code: str, category: str) -> str:
    """Give the sentence for a code or else for the category of its class; perhaps none."""
    return REMEDIES.get(code) or REMEDIES.get(category, "")
