"""The skills that the plugin brings: short, in the form that the client reads, and true.

That the commands they name exist, ``tests/test_documents.py`` asks for every document.
"""

import re
from pathlib import Path

import pytest

from claudemesh_mcp.plugin.waiting import TOOL
from tests.support.checkout import ROOT
from tests.test_documents import QUOTED, words_of_the_tools

SKILLS = sorted((ROOT / "skills").glob("*/SKILL.md"))
HEAD = re.compile(r"---\nname: ([a-z-]+)\ndescription: (.+)\n---\n\n(# .+)\Z", re.DOTALL)


def parts(skill: Path) -> tuple[str, str, str]:
    """Give the name, the description and the text of a skill."""
    found = HEAD.fullmatch(skill.read_text("utf-8"))
    assert found, f"{skill} has another form"
    return found[1], found[2], found[3]


@pytest.mark.parametrize("skill", SKILLS, ids=lambda path: path.parent.name)
def test_a_skill_has_the_form_that_the_client_reads_and_is_short(skill: Path) -> None:
    name, description, text = parts(skill)
    assert name == skill.parent.name
    assert "\n" not in description
    assert len(description) <= 400
    assert "Use " in description
    assert len(text) <= 3000


@pytest.mark.parametrize("skill", SKILLS, ids=lambda path: path.parent.name)
def test_a_skill_names_only_what_the_tools_have(skill: Path) -> None:
    named = set(QUOTED.findall(parts(skill)[2]))
    assert named
    assert named - words_of_the_tools() - {TOOL} == set()


def test_one_skill_is_about_talking_and_one_about_trust() -> None:
    told = {parts(skill)[0]: parts(skill)[2] for skill in SKILLS}
    assert set(told) == {"claudemesh", "claudemesh-coordination"}
    assert "no mesh was joined" in told["claudemesh"]
    assert "never carries the user's authority" in told["claudemesh-coordination"]
