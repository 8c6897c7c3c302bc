"""Which names are free in a mesh: for who joins, and for who is back."""

from dataclasses import replace

import pytest

from claudemesh_wire.members import Member, name_for_joiner, name_when_back
from claudemesh_wire.membership import Custody
from claudemesh_wire.message import Role
from tests.wire.world import ADA, BOB, CLEO, DAN, NOW, Person

LONG = "a" * 40


def here(who: Person, name: str) -> Member:
    return Member(who.id, who.key.public, name, Role.MEMBER, Custody.SELF)


def gone(who: Person, name: str, kept_until: int | None = None) -> Member:
    return replace(here(who, name), removed=True, removed_by=ADA.id, name_until_ms=kept_until)


@pytest.mark.parametrize(
    ("others", "wished", "name"),
    [
        ([], "bob", "bob"),
        ([here(ADA, "ada")], "bob", "bob"),
        ([here(ADA, "bob")], "bob", "bob-2"),
        ([here(ADA, "bob"), here(CLEO, "bob-2")], "bob", "bob-3"),
        ([here(ADA, "bob"), gone(CLEO, "bob-2", NOW + 1)], "bob", "bob-3"),
        ([gone(ADA, "bob", NOW + 1)], "bob", "bob-2"),
        ([gone(ADA, "bob", NOW)], "bob", "bob"),
        ([gone(ADA, "bob")], "bob", "bob"),
        ([gone(BOB, "bob", NOW + 1)], "bob", "bob"),
        ([here(ADA, LONG)], LONG, "a" * 38 + "-2"),
    ],
)
def test_a_joiner_gets_the_name_it_wishes_for_or_one_with_a_number(
    others: list[Member], wished: str, name: str
) -> None:
    assert name_for_joiner(others, BOB.id, wished, NOW) == name


def test_numbers_grow_as_far_as_they_have_to() -> None:
    people = [here(Person(f"guest {number}"), f"{'a' * 38}-{number}") for number in range(2, 10)]
    people += [here(ADA, LONG)]
    assert name_for_joiner(people, BOB.id, LONG, NOW) == "a" * 37 + "-10"


@pytest.mark.parametrize(
    ("others", "name"),
    [
        ([], "bob"),
        ([here(ADA, "bob")], "bob-2"),
        ([here(ADA, "bob"), gone(CLEO, "bob-2", NOW + 1), here(DAN, "bob-3")], "bob-4"),
        # What is kept is kept from joiners alone.
        ([gone(ADA, "bob", NOW + 1)], "bob"),
    ],
)
def test_who_is_back_has_its_name_unless_another_is_here(others: list[Member], name: str) -> None:
    bob = gone(BOB, "bob", NOW + 1)
    assert name_when_back([*others, bob], bob, NOW) == name
