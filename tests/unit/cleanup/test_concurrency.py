"""The pace of requests: what the server can bear is found out."""

from storage_cleanup.cleanup.concurrency import Pace


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_server_that_pushes_back_is_asked_half_as_much() -> None:
    pace = Pace(most=8, limit=8)
    pace.slow_down()
    assert pace.limit == 4


def test_pushbacks_of_requests_that_were_under_way_count_once() -> None:
    clock = Clock()
    pace = Pace(most=8, limit=8, clock=clock)
    for clock.now in (0.0, 0.1, 0.4):
        pace.slow_down()
    assert pace.limit == 4
    clock.now = 0.6
    pace.slow_down()
    assert pace.limit == 2


def test_one_request_is_always_left() -> None:
    clock = Clock()
    pace = Pace(most=8, limit=8, clock=clock)
    for clock.now in range(10):
        pace.slow_down()
    assert pace.limit == 1


def test_a_round_without_complaint_adds_one_request_up_to_the_most() -> None:
    pace = Pace(most=3, limit=2)
    limits = []
    for _ in range(7):
        pace.speed_up()
        limits.append(pace.limit)
    assert limits == [2, 3, 3, 3, 3, 3, 3]
