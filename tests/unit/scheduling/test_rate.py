"""The interval as a value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_cleanup.scheduling.rate import Interval


@pytest.mark.parametrize(
    ("minutes", "expression"),
    [
        (1, "rate(1 minute)"),
        (3, "rate(3 minutes)"),
        (60, "rate(1 hour)"),
        (90, "rate(90 minutes)"),
        (120, "rate(2 hours)"),
        (10080, "rate(168 hours)"),
    ],
)
def test_an_interval_reads_as_eventbridge_writes_it(minutes: int, expression: str) -> None:
    assert Interval(minutes).expression == expression


@given(st.integers(1, 10080))
def test_an_expression_reads_back_as_its_interval(minutes: int) -> None:
    assert Interval.from_expression(Interval(minutes).expression) == Interval(minutes)


@pytest.mark.parametrize("expression", ["rate(60 minutes)", "rate(1 hour)"])
def test_other_spellings_read_as_the_same_interval(expression: str) -> None:
    assert Interval.from_expression(expression) == Interval(60)


def test_days_are_read() -> None:
    assert Interval.from_expression("rate(1 day)") == Interval(1440)


@pytest.mark.parametrize("minutes", [0, -1, 10081])
def test_an_interval_out_of_range_cannot_exist(minutes: int) -> None:
    with pytest.raises(ValueError, match="minutes"):
        Interval(minutes)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "rate(1 minutes)",
        "rate(3 minute)",
        "rate(0 minutes)",
        "rate(01 minute)",
        "rate(3  minutes)",
        "rate(\u0663 minutes)",
        "rate(3 weeks)",
        "rate(3 minutes)\n",
        "RATE(3 minutes)",
        "cron(0 * * * ? *)",
        "rate(99999 minutes)",
    ],
)
def test_what_is_no_rate_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"rate|minutes"):
        Interval.from_expression(expression)
