"""When a run stops, how long a call may take, and the pace of requests: what the server can bear is found out."""

import pytest

from storage_cleanup.cleanup.concurrency import Pace
from storage_cleanup.cleanup.deadline import Watch


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_kill_switch_is_noticed_within_ten_seconds() -> None:
    clock, switch = Clock(), [True]
    watch = Watch(lambda: 900_000, lambda: switch[0], clock=clock)
    assert watch.stop_reason() is None
    switch[0] = False
    clock.now = 10.0
    assert watch.stop_reason() == "disabled"


@pytest.mark.parametrize(("left", "seconds"), [(900, 35), (70, 35), (60, 30), (10, 5), (0, 0)])
def test_no_call_takes_more_than_half_the_time_that_is_left(left: int, seconds: float) -> None:
    watch = Watch(lambda: left * 1000, lambda: True)
    assert watch.seconds_for(35) == seconds


def test_a_server_that_pushes_back_is_asked_half_as_much() -> None:
    pace = Pace(8)
    pace.slow_down()
    assert pace.limit == 4


def test_pushbacks_of_requests_that_were_under_way_count_once() -> None:
    clock = Clock()
    pace = Pace(8, clock=clock)
    for clock.now in (0.0, 0.1, 0.4):
        pace.slow_down()
    assert pace.limit == 4
    clock.now = 0.6
    pace.slow_down()
    assert pace.limit == 2


def test_one_request_is_always_left() -> None:
    clock = Clock()
    pace = Pace(8, clock=clock)
    for clock.now in range(10):
        pace.slow_down()
    assert pace.limit == 1


def test_a_round_without_complaint_adds_one_request_up_to_the_most() -> None:
    pace = Pace(3)
    pace.limit = 2
    limits = []
    for _ in range(7):
        pace.speed_up()
        limits.append(pace.limit)
    assert limits == [2, 3, 3, 3, 3, 3, 3]
