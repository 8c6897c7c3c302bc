"""The public profile: what each known key may hold, and that others are free."""

from typing import Any

import pytest

from claudemesh_wire.errors import MeshError
from claudemesh_wire.profile import check_profile


@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"avatar": "🦊"},
        {"avatar": "👨‍👩‍👧‍👦"},
        {"avatar": "🏴󠁧󠁢󠁳󠁣󠁴󠁿"},
        {"avatar": "👩🏽‍🚀"},
        {"avatar": "ABCDEFGH"},
        {"avatar": "https://example.org/" + "a" * 180},
        {"title": "t" * 80, "bio": "é" * 500},
        {"capabilities": []},
        {"capabilities": ["rust", "code-review", "x" * 40, *"abcdefghijklmnopq"]},
        {"langs": {"de": [1, None]}, "Title": 7},
    ],
)
def test_what_fits_is_taken(profile: dict[str, Any]) -> None:
    check_profile(profile)


@pytest.mark.parametrize(
    "profile",
    [
        {"avatar": ""},
        {"avatar": 7},
        {"avatar": None},
        {"avatar": "ABCDEFGHI"},
        {"avatar": "\u200d\u200d"},
        {"avatar": "a" + "\u0301" * 40},
        {"avatar": "a\nb"},
        {"avatar": "http://example.org/a.png"},
        {"avatar": "https://"},
        {"avatar": "https://[::1/x"},
        {"avatar": "https://me:secret@example.org/"},
        {"avatar": "https://example.org/\u202e"},
        {"avatar": "https://example.org/" + "a" * 181},
        {"title": "t" * 81},
        {"title": ["t"]},
        {"bio": "b" * 501},
        {"capabilities": "rust"},
        {"capabilities": ["two words"]},
        {"capabilities": [""]},
        {"capabilities": ["x" * 41]},
        {"capabilities": [1]},
        {"capabilities": ["a"] * 21},
    ],
)
def test_what_does_not_fit_is_refused(profile: dict[str, Any]) -> None:
    with pytest.raises(MeshError) as caught:
        check_profile(profile)
    assert caught.value.code == "bad_profile"
