"""Bells that were lost: what they were for is rung for again, by itself and ever later."""

import time

import pytest

from claudemesh_mcp.routes import bells
from claudemesh_mcp.routes.bells import CHANNEL, MONITOR, REWAKE
from claudemesh_mcp.routes.facts import Health
from claudemesh_mcp.routes.settings import HOUR_MS, RETRY_MS
from tests.routes.test_bells import SOON, answer, rings
from tests.support.routing import Beside


@pytest.fixture
def now() -> int:
    return time.time_ns() // 1_000_000


def test_what_no_route_could_tell_is_rung_for_again_by_each_in_turn_and_ever_later(
    bob: Beside, now: int
) -> None:
    bob.put(received_ms=now)
    minutes = [
        (second // 60, route)
        for second in range(0, 3_600, 10)
        for route in rings(bob, now + second * 1_000)
    ]
    first = [(0, MONITOR), (0, REWAKE), (0, CHANNEL)]
    later = [(1, MONITOR), (3, REWAKE), (7, CHANNEL), (15, MONITOR), (31, REWAKE)]
    assert minutes == [*first, *later]


def test_a_route_that_is_the_only_one_rings_again_by_itself_for_what_it_lost(
    bob: Beside, now: int
) -> None:
    only = {MONITOR}
    bob.put(received_ms=now)
    rings(bob, now, only)
    answer(bob, MONITOR, now)
    bob.sql.execute("UPDATE inbox SET state = 'seen'")
    bob.put(received_ms=now + SOON)
    assert rings(bob, now + SOON, only) == [MONITOR]
    assert rings(bob, now + RETRY_MS, only) == []
    assert rings(bob, now + SOON + RETRY_MS, only) == [MONITOR]
    answer(bob, MONITOR, now + SOON + RETRY_MS)
    assert bells.health(bob.sql, MONITOR, now + HOUR_MS) is Health.REACHES


def test_a_route_that_nobody_hears_costs_no_more_turns_than_an_hour_has(
    bob: Beside, now: int
) -> None:
    rung = 0
    for minute in range(60):
        at = now + minute * 60_000
        bob.put(received_ms=at)
        rung += len(rings(bob, at, {MONITOR}))
    assert rung == 12
