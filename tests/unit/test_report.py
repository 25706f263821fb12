"""The figures of a report, and the three sentences that they make."""

from dataclasses import replace
from datetime import timedelta

import pytest

from storage_cleanup.events.health import Period
from storage_cleanup.model.pricing import GIGABYTE
from storage_cleanup.postgres.observer import DayOfWork, Stored, Trouble, Usage
from storage_cleanup.reports.report import SPANS, Material, human_bytes, human_money, incidents, make_report
from tests.unit.history import NOW, PRICE, a_year, nothing, unwell, well


def material(**changes: object) -> Material:
    empty = Material(Period.WEEKLY, NOW, "testing", PRICE, [], {}, [], [], [Stored("images", 1, GIGABYTE)])
    return replace(empty, **changes)  # type: ignore[arg-type]


def usage(*sizes: int) -> list[Usage]:
    """Return one figure a day, the last of them yesterday's."""
    days = [NOW - timedelta(days=ago) for ago in range(len(sizes), 0, -1)]
    return [Usage(day.date(), "images", 1, size, day) for day, size in zip(days, sizes, strict=True)]


def test_a_period_counts_its_own_days_and_compares_with_those_before() -> None:
    work = [DayOfWork(ago, succeeded=24, files=10, bytes=100, rows=11, all_seconds=50) for ago in range(14)]
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
    work = [DayOfWork(0, succeeded=1, bytes=7 * GIGABYTE, all_seconds=1000)]
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


def test_the_sentences_of_a_good_time() -> None:
    work = [DayOfWork(ago, succeeded=24, files=5, bytes=2_000_000, left_over=0) for ago in range(7)]
    work += [DayOfWork(ago, succeeded=24, bytes=1_000_000) for ago in range(7, 14)]
    assert make_report(material(work=work), well()).sentences == (
        "All 168 cycles of the last 7 days succeeded, and every saved asset has its file.",
        "35 files were removed, which freed 14.0 MB, 100 % more than in the period before; "
        "0 orphans wait for the next cycle.",
        "1.0 GB are stored, which cost $0.02 a month; without what was freed it would be $0.02.",
    )


def test_what_is_critical_comes_first() -> None:
    assert a_year(answer=unwell()).sentences[0].startswith("Act now: 2 saved assets lost the file")


def test_failed_cycles_are_held_against_the_target() -> None:
    work = [DayOfWork(0, succeeded=23, failed=1)]
    assert make_report(material(work=work), well()).sentences[0] == (
        "1 of 24 cycles of the last 7 days failed, so 95.8 % succeeded where 99.9 % is the target."
    )


def test_an_empty_history_says_so() -> None:
    assert nothing().sentences == (
        "No cycle ran in the last 24 hours.",
        "0 files were removed, which freed 0 B.",
        "0 B are stored, which cost $0.00 a month; without what was freed it would be $0.00.",
    )


def test_the_figures_are_json() -> None:
    figures = a_year(Period.QUARTERLY, unwell()).as_dict()
    assert figures["period"] == "quarterly"
    assert len(figures["by_time"]) == 52
    assert figures["health"]["critical"] == 1


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_499, "999 kB"), (999_999, "1.0 MB"), (2.5e15, "2.5 PB")],
)
def test_sizes(size: float, text: str) -> None:
    assert human_bytes(size) == text


def test_money_in_words() -> None:
    assert [human_money(dollars) for dollars in (0, 0.004, 0.006, 1234.5)] == [
        "$0.00",
        "less than $0.01",
        "$0.01",
        "$1,234.50",
    ]
