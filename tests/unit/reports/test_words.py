"""A report in words: its three sentences, sizes and money."""

import pytest

from storage_cleanup.health.checks import NAMED
from storage_cleanup.health.model import Found, HealthAnswer
from storage_cleanup.postgres.observer import DayOfWork
from storage_cleanup.reports.figures import make_report
from storage_cleanup.reports.words import human_bytes, human_money
from tests.unit.reports.history import a_year, material, nothing, unwell, well


def test_the_sentences_of_a_good_time() -> None:
    work = [DayOfWork(days_ago=ago, succeeded=24, files=5, bytes=2_000_000, left_over=0) for ago in range(7)]
    work += [DayOfWork(days_ago=ago, succeeded=24, bytes=1_000_000) for ago in range(7, 14)]
    assert make_report(material(work=work), well()).sentences == (
        "All 168 cycles of the last 7 days succeeded, and every saved asset has its file.",
        "35 files were removed, which freed 14.0 MB, 100 % more than in the period before; "
        "0 orphans wait for the next cycle.",
        "1.0 GB are stored, which cost $0.02 a month; without what was freed it would be $0.02.",
    )


def test_what_is_critical_comes_first() -> None:
    assert a_year(answer=unwell()).sentences[0].startswith("Act now: 2 saved assets lost the file")


def test_failed_cycles_are_held_against_the_target() -> None:
    work = [DayOfWork(days_ago=0, succeeded=23, failed=1)]
    assert make_report(material(work=work), well()).sentences[0] == (
        "1 of 24 cycles of the last 7 days failed, so 95.8 % succeeded where 99.9 % is the target."
    )


def test_cycles_that_left_no_trace_are_not_passed_over() -> None:
    unrecorded = NAMED["unrecorded_cycles"].judge(Found(2, 2))
    answer = HealthAnswer([*well().checks, unrecorded])
    said = make_report(material(work=[DayOfWork(days_ago=0, succeeded=24)]), answer).sentences[0]
    assert said.startswith("All 24 cycles of the last 7 days that reached the database succeeded")
    assert said.endswith(f". {unrecorded.sentence}")
    assert "2 cycles of the last seven days failed before the database could be reached" in unrecorded.sentence


def test_an_empty_history_says_so() -> None:
    assert nothing().sentences == (
        "No cycle ran in the last 24 hours.",
        "0 files were removed, which freed 0 B.",
        "0 B are stored, which cost $0.00 a month; without what was freed it would be $0.00.",
    )


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
