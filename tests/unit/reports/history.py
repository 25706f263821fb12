"""Made-up histories for reports: nothing at all, and a year of cycles."""

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from storage_cleanup.events.health import Period
from storage_cleanup.health.checks import NAMED
from storage_cleanup.health.findings import found_of, listed
from storage_cleanup.health.model import Found, HealthAnswer, Result, Status
from storage_cleanup.model.pricing import GIGABYTE
from storage_cleanup.postgres.observer import DayOfWork, Finding, Stored, Trouble, Usage
from storage_cleanup.reports.figures import Material, make_report
from storage_cleanup.reports.model import Report

NOW = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
PRICE = 0.021


def well() -> HealthAnswer:
    """All is well."""
    return HealthAnswer([_parameters(), _saved_files(Finding())])


def unwell() -> HealthAnswer:
    """Nearly everything has something to say, with characters that a page must not take as its own."""
    return HealthAnswer(
        [
            _parameters(),
            NAMED["orphans_left"].judge(Found(51, 51)),
            _saved_files(Finding(2, 0, 0, ["<script>alert(1)</script>", "b" * 300])),
        ]
    )


def _parameters() -> Result:
    return NAMED["parameters"].judge(listed([], Status.CRITICAL))


def _saved_files(found: Finding) -> Result:
    return NAMED["saved_file_missing"].judge(found_of(found, "removed"))


def material(**changes: object) -> Material:
    """A week of which nothing is known but what is given."""
    empty = Material(Period.WEEKLY, NOW, "testing", PRICE, [], {}, [], [], [Stored("images", 1, GIGABYTE)])
    return replace(empty, **changes)  # type: ignore[arg-type]


def nothing(period: Period = Period.DAILY) -> Report:
    """A system that was installed a moment ago."""
    return make_report(Material(period, NOW, "testing", PRICE, [], {}, [], [], [Stored("images", 0, 0)]), well())


def a_year(period: Period = Period.DAILY, answer: HealthAnswer | None = None) -> Report:
    """A year of hourly cycles: a few failed, storage grows, one night the database was away."""
    dice = random.Random(7)
    work, usage, stored = [], [], 180e9
    for ago in range(363, -1, -1):
        failed, partial = dice.choice([0] * 20 + [1, 3]), dice.choice([0] * 9 + [2])
        files = int(900 + 300 * math.sin(ago / 7) + dice.random() * 200)
        stored += files * 0.25e6
        slow = 20 if dice.random() < 0.03 else 0
        work.append(
            DayOfWork(
                days_ago=ago,
                succeeded=24 - failed - partial,
                partial=partial,
                failed=failed,
                files=files,
                bytes=int(files * 2.3e6),
                rows=files + 5,
                median_seconds=4 + dice.random() * 3,
                longest_seconds=9 + dice.random() * 18 + slow,
                all_seconds=24 * 5.0,
                left_over=dice.choice([0, 0, 0, 2, 7]),
            )
        )
        at = NOW - timedelta(days=ago, hours=5)
        usage += [Usage(at.date(), int(stored * part), at) for part in (0.7, 0.3)]
    away = 'connection to server at "aws-0-eu-central-1.pooler.supabase.com" <6543> failed: timeout expired'
    troubles = [Trouble(NOW - timedelta(hours=hours), "failed", away) for hours in (20, 21, 22)]
    troubles.append(Trouble(NOW - timedelta(hours=9), "partial", None))
    return make_report(
        Material(
            period=period,
            now=NOW,
            stage="production",
            price=PRICE,
            work=work,
            failures={"still_there": 41, "storage_slow_down": 12, "refused": 3},
            troubles=troubles,
            usage=usage,
            stored=[Stored("images", 62_000, int(stored * 0.7)), Stored("videos", 21_000, int(stored * 0.3))],
        ),
        answer or well(),
    )
