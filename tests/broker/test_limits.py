"""Token buckets: a burst, then a rate, per class and key, in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_broker.limits import Allowance, Limits
from claudemesh_wire.errors import TooMuch
from claudemesh_wire.message import Rate


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limits(clock: Clock, most: int = 100) -> Limits:
    return Limits(
        {Rate.CHAT: Allowance(10.0, 5), Rate.AUTH: Allowance(1.0, 1)}, now_s=clock, most=most
    )


def spend(limits: Limits, key: str = "ada", rate: Rate = Rate.CHAT) -> int:
    """Take until it is refused; gives how many were let in."""
    taken = 0
    while True:
        try:
            limits.take(rate, key)
        except TooMuch:
            return taken
        taken += 1


def test_a_burst_is_let_in_and_then_the_rate(clock: Clock) -> None:
    buckets = limits(clock)
    assert spend(buckets) == 5
    clock.now_s += 0.3
    assert spend(buckets) == 3
    clock.now_s += 3600
    assert spend(buckets) == 5


def test_a_refusal_says_when_to_come_back(clock: Clock) -> None:
    buckets = limits(clock)
    spend(buckets)
    with pytest.raises(TooMuch) as caught:
        buckets.take(Rate.CHAT, "ada")
    assert (caught.value.code, caught.value.status) == ("rate_limited", 429)
    assert caught.value.retry_after_s == pytest.approx(0.1, abs=0.002)
    clock.now_s += caught.value.retry_after_s or 0
    buckets.take(Rate.CHAT, "ada")


def test_keys_and_classes_do_not_draw_on_each_other(clock: Clock) -> None:
    buckets = limits(clock)
    spend(buckets, "ada")
    assert spend(buckets, "bob") == 5
    assert spend(buckets, "ada", Rate.AUTH) == 1


def test_a_clock_that_goes_back_gives_nothing(clock: Clock) -> None:
    buckets = limits(clock)
    spend(buckets)
    clock.now_s -= 100
    assert spend(buckets) == 0


def test_memory_is_bounded_whoever_comes(clock: Clock) -> None:
    buckets = limits(clock, most=50)
    for number in range(1000):
        buckets.take(Rate.CHAT, f"address {number}")
    assert len(buckets) <= 50


def test_idle_buckets_go_as_others_come(clock: Clock) -> None:
    buckets = limits(clock)
    for number in range(60):
        buckets.take(Rate.CHAT, f"early {number}")
    clock.now_s += 10
    for number in range(60):
        buckets.take(Rate.CHAT, f"late {number}")
    assert len(buckets) <= 60 + 1


def test_who_is_refused_is_not_forgotten_while_there_is_room(clock: Clock) -> None:
    buckets = limits(clock)
    spend(buckets, "mallory")
    for number in range(50):
        buckets.take(Rate.CHAT, f"address {number}")
    assert spend(buckets, "mallory") == 0


@given(pauses=st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_nobody_gets_more_than_burst_and_rate(pauses: list[float]) -> None:
    clock = Clock()
    buckets = limits(clock)
    began = clock.now_s
    taken = 0
    for pause in pauses:
        clock.now_s += pause
        taken += spend(buckets)
        assert taken <= 5 + (clock.now_s - began) * 10 + 1e-6
