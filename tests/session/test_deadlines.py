"""Waits that share a timer: each ends in time, and none that was over before."""

import asyncio

import anyio

from claudemesh_mcp.deadlines import Deadlines

LIMIT_S = 5


def a_future() -> asyncio.Future[str]:
    return asyncio.get_running_loop().create_future()


async def test_each_wait_that_lasts_too_long_is_ended() -> None:
    deadlines = Deadlines(0.01, lambda future: future.set_result("late"))
    first, second = a_future(), a_future()
    deadlines.watch(first)
    deadlines.watch(second)
    with anyio.fail_after(LIMIT_S):
        assert (await first, await second) == ("late", "late")
        third = a_future()
        deadlines.watch(third)
        assert await third == "late"


async def test_a_wait_that_was_over_before_is_left_alone() -> None:
    ended: list[asyncio.Future[str]] = []

    def late(future: asyncio.Future[str]) -> None:
        ended.append(future)
        future.set_result("late")

    deadlines = Deadlines(0.01, late)
    answered, cancelled, open_one = a_future(), a_future(), a_future()
    for one in (answered, cancelled, open_one):
        deadlines.watch(one)
    answered.set_result("answer")
    cancelled.cancel()
    with anyio.fail_after(LIMIT_S):
        await open_one
    assert ended == [open_one]
    assert answered.result() == "answer"


async def test_after_a_stop_nothing_is_ended() -> None:
    deadlines = Deadlines(0.01, lambda future: future.set_result("late"))
    stopped = a_future()
    deadlines.watch(stopped)
    deadlines.stop()
    behind = Deadlines(0.02, lambda future: future.set_result("late"))
    watched = a_future()
    behind.watch(watched)
    with anyio.fail_after(LIMIT_S):
        await watched
    assert not stopped.done()
