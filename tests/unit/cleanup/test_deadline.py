"""When a run stops taking work: its time, and the kill switch."""

from collections.abc import Callable

import pytest

from storage_cleanup.cleanup.deadline import Watch
from storage_cleanup.errors import ConfigurationError, ThrottledError


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Switch:
    """The kill switch, and how often it was read."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.reads = 0
        self.error: ConfigurationError | None = None

    def __call__(self) -> bool:
        self.reads += 1
        if self.error:
            raise self.error
        return self.enabled


def seconds(value: float) -> Callable[[], int]:
    return lambda: int(value * 1000)


def test_a_run_with_time_that_is_enabled_goes_on() -> None:
    watch = Watch(seconds(900), Switch())
    assert watch.stop_reason() is None
    assert watch.remaining_seconds == 900


@pytest.mark.parametrize(("left", "reason"), [(30.0, None), (29.999, "time_is_short"), (0, "time_is_short")])
def test_the_reserve_is_kept_for_what_is_under_way(left: float, reason: str | None) -> None:
    remaining = [900.0]
    watch = Watch(lambda: int(remaining[0] * 1000), Switch(), reserve_seconds=30)
    remaining[0] = left
    assert watch.stop_reason() == reason


@pytest.mark.parametrize(("left", "reason"), [(10.0, None), (9.999, "time_is_short")])
def test_a_short_invocation_keeps_a_quarter_of_its_time(left: float, reason: str | None) -> None:
    remaining = [40.0]
    watch = Watch(lambda: int(remaining[0] * 1000), Switch(), reserve_seconds=30)
    remaining[0] = left
    assert watch.stop_reason() == reason


def test_the_switch_is_read_at_most_every_two_seconds() -> None:
    """So that the 16 workers of a drain stay far below what Parameter Store takes."""
    clock, switch = Clock(), Switch()
    watch = Watch(seconds(900), switch, clock=clock)
    for clock.now in (0.0, 1.0, 1.999):
        watch.stop_reason()
    assert switch.reads == 1
    clock.now = 2.0
    watch.stop_reason()
    assert switch.reads == 2


def test_a_run_that_is_switched_off_stops_and_never_goes_on_again() -> None:
    clock, switch = Clock(), Switch()
    watch = Watch(seconds(900), switch, clock=clock)
    assert watch.stop_reason() is None
    switch.enabled, clock.now = False, 2.0
    assert watch.stop_reason() == "disabled"
    switch.enabled, clock.now = True, 100.0
    assert watch.stop_reason() == "disabled"
    assert switch.reads == 2


def test_a_switch_that_cannot_be_read_stops_the_run_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    switch = Switch()
    switch.error = ConfigurationError(["enabled can't be read: throttled"])
    assert Watch(seconds(900), switch).stop_reason() == "switch_unreadable"
    [line] = caplog.records
    assert line.getMessage() == "The kill switch can't be read, so the run stops"
    assert "enabled can't be read: throttled" in vars(line)["error"]


def test_a_switch_that_is_throttled_is_read_again_and_stops_the_run_after_six_seconds() -> None:
    clock, switch = Clock(), Switch()
    watch = Watch(seconds(900), switch, clock=clock)
    assert watch.stop_reason() is None
    switch.error = ThrottledError(["enabled can't be read: throttled"])
    for clock.now in (2.0, 4.0, 5.999):
        assert watch.stop_reason() is None
    clock.now = 8.0
    assert watch.stop_reason() == "switch_unreadable"
    assert switch.reads == 4


def test_a_switch_that_was_throttled_for_a_moment_counts_again() -> None:
    clock, switch = Clock(), Switch()
    watch = Watch(seconds(900), switch, clock=clock)
    for clock.now in (2.0, 4.0, 6.0, 8.0, 10.0, 12.0):
        switch.error = ThrottledError(["throttled"]) if clock.now % 4 else None
        assert watch.stop_reason() is None
    switch.error, switch.enabled, clock.now = None, False, 14.0
    assert watch.stop_reason() == "disabled"


def test_without_time_the_switch_is_not_read() -> None:
    switch = Switch()
    assert Watch(seconds(0), switch, reserve_seconds=30).stop_reason() is None  # a quarter of nothing
    remaining = [900.0]
    watch = Watch(lambda: int(remaining[0] * 1000), switch)
    switch.reads, remaining[0] = 0, 1.0
    assert watch.stop_reason() == "time_is_short"
    assert switch.reads == 0
