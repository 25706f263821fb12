"""The figures of a report."""

from datetime import timedelta

import pytest

from storage_cleanup.events.health import Period
from storage_cleanup.model.pricing import GIGABYTE
from storage_cleanup.postgres.observer import DayOfWork, Stored, Trouble, Usage
from storage_cleanup.reports.figures import incidents, make_report
from storage_cleanup.reports.model import SPANS
from tests.unit.reports.history import NOW, PRICE, a_year, material, unwell, well


def usage(*sizes: int) -> list[Usage]:
    """Return one figure a day, the last of them yesterday's."""
    days = [NOW - timedelta(days=ago) for ago in range(len(sizes), 0, -1)]
    return [Usage(day.date(), size, day) for day, size in zip(days, sizes, strict=True)]


def test_a_period_counts_its_own_days_and_compares_with_those_before() -> None:
    work = [DayOfWork(days_ago=ago, succeeded=24, files=10, bytes=100, rows=11, all_seconds=50) for ago in range(14)]
    report = make_report(material(work=work), well())
    assert (report.work.cycles, report.work.files, report.work.bytes, report.work.rows) == (168, 70, 700, 77)
    assert report.before.bytes == 700
    assert report.work.success_percent == 100


def test_charts_are_by_the_day_and_by_the_week_over_a_long_time() -> None:
    steps = {period: (len(a_year(period).charted), a_year(period).step_days) for period in Period}
    assert steps == {
        Period.DAILY: (14, 1),
        Period.WEEKLY: (28, 1),
        Period.MONTHLY: (60, 1),
        Period.QUARTERLY: (52, 7),
    }
    report = a_year(Period.QUARTERLY)
    assert report.charted[-1].ends == NOW.date()
    assert sum(work.cycles for work in report.charted) == 364 * 24


def test_a_straight_trend_is_drawn_on() -> None:
    report = make_report(material(usage=usage(7, 8, 9), stored=[Stored("images", 1, 10)]), well())
    assert report.projection is not None
    assert report.projection.bytes == 10 + SPANS[Period.WEEKLY].ahead
    assert report.projection.at == NOW + timedelta(days=14)


def test_a_shrinking_trend_ends_at_nothing() -> None:
    report = make_report(material(usage=usage(40, 30, 20), stored=[Stored("images", 1, 10)]), well())
    assert report.projection is not None
    assert report.projection.bytes == 0


@pytest.mark.parametrize("sizes", [(), (1,)])
def test_a_short_history_is_not_drawn_on(sizes: tuple[int, ...]) -> None:
    report = make_report(material(usage=usage(*sizes)), well())
    assert report.projection is None
    assert "it would be" in report.sentences[2]


def test_money() -> None:
    work = [DayOfWork(days_ago=0, succeeded=1, bytes=7 * GIGABYTE, all_seconds=1000)]
    money = make_report(material(work=work, stored=[Stored("images", 1, 100 * GIGABYTE)]), well()).money
    assert money.stored_month == pytest.approx(2.1)
    assert money.freed_month == pytest.approx(7 * PRICE)
    assert money.saved == pytest.approx(7 * PRICE * 0.5 / (365.25 / 12))
    assert money.projected_year == pytest.approx(PRICE * 365 * 365 / 2 / (365.25 / 12))
    assert money.running == pytest.approx(0.0067, rel=0.01)


def test_neighbouring_incidents_of_one_reason_are_one() -> None:
    hours = [(1, "failed", "a"), (2, "failed", "a"), (3, "partial", None), (4, "failed", "a")]
    joined = incidents(Trouble(NOW - timedelta(hours=ago), status, message) for ago, status, message in hours)
    assert [(each.cycles, each.status) for each in joined] == [(2, "failed"), (1, "partial"), (1, "failed")]
    assert joined[0].first == NOW - timedelta(hours=2)
    assert joined[0].last == NOW - timedelta(hours=1)
    assert joined[1].message == "some things couldn't be deleted"


def test_the_figures_are_json() -> None:
    figures = a_year(Period.QUARTERLY, unwell()).as_dict()
    assert figures["period"] == "quarterly"
    assert len(figures["by_time"]) == 52
    assert figures["health"]["critical"] == 1
