"""What proves that a printed result was read: a request behind it, in whatever order news comes."""

from claudemesh_mcp.proofs import Proofs


def test_a_request_that_began_behind_a_result_proves_it_once() -> None:
    proofs = Proofs()
    printed = proofs.add(1, ("row",))
    assert proofs.written(printed, 100) == ()
    assert proofs.request_began(99) == ()
    assert proofs.request_began(100) == ("row",)
    assert proofs.request_began(200) == ()


def test_a_request_that_is_read_before_the_news_of_the_write_proves_it_too() -> None:
    proofs = Proofs()
    first, second = proofs.add(1, ("one",)), proofs.add(2, ("two", "three"))
    assert proofs.request_began(100) == ()
    assert proofs.written(first, 101) == ()
    assert proofs.written(second, 100) == ("two", "three")
    assert proofs.request_began(101) == ("one",)


def test_a_result_whose_asker_gave_up_is_proved_by_nothing() -> None:
    proofs = Proofs()
    printed = proofs.add(1, ("row",))
    assert proofs.request_cancelled(1) == ("row",)
    assert proofs.request_began(100) == ()
    assert proofs.written(printed, 50) == ()
