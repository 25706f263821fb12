"""The figures of a report in words: three sentences, sizes, money, reasons."""

from collections.abc import Mapping

from storage_cleanup.events.health import Period
from storage_cleanup.health.checks import SUCCESS_PERCENT
from storage_cleanup.health.model import Status
from storage_cleanup.model.reasons import meaning
from storage_cleanup.reports.model import Report

_LAST = {
    Period.DAILY: "24 hours",
    Period.WEEKLY: "7 days",
    Period.MONTHLY: "30 days",
    Period.QUARTERLY: "13 weeks",
}


def three_sentences(report: Report) -> tuple[str, str, str]:
    """Return the three sentences that matter: whether all went well, what was done, what is stored."""
    return _on_trust(report), _on_work(report), _on_storage(report)


def _on_trust(report: Report) -> str:
    urgent = [check for check in report.health.checks if check.status is Status.CRITICAL]
    if urgent:
        more = f" (and {len(urgent) - 1} more)" if len(urgent) > 1 else ""
        return f"Act now{more}: {urgent[0].sentence}"
    return _on_cycles(report) + "".join(f" {each}" for each in _said(report, "unrecorded_cycles", "unended_runs"))


def _on_cycles(report: Report) -> str:
    work, last = report.work, _LAST[report.period]
    if not work.cycles:
        return f"No cycle ran in the last {last}."
    if work.failed:
        return (
            f"{work.failed:,} of {work.cycles:,} cycles of the last {last} failed, "
            f"so {work.success_percent:.1f} % succeeded where {SUCCESS_PERCENT} % is the target."
        )
    which = "The one cycle" if work.cycles == 1 else f"All {work.cycles:,} cycles"
    reached = " that reached the database" if _said(report, "unrecorded_cycles") else ""
    intact = any(check.name == "saved_file_missing" and check.status is Status.OK for check in report.health.checks)
    return f"{which} of the last {last}{reached} succeeded{', and every saved asset has its file' if intact else ''}."


def _on_work(report: Report) -> str:
    work = report.work
    files = "file was" if work.files == 1 else "files were"
    left = "" if work.left_over is None else f"; {work.left_over:,} orphans wait for the next cycle"
    removed = f"{work.files:,} {files} removed, which freed {human_bytes(work.bytes)}"
    return f"{removed}{_compared(report)}{left}." + "".join(f" {each}" for each in _said(report, "switches"))


def _said(report: Report, *names: str) -> list[str]:
    """Return what those of these checks say that aren't well."""
    checks = report.health.checks
    return [check.sentence for check in checks if check.name in names and check.status is not Status.OK]


def _compared(report: Report) -> str:
    before = report.before.bytes
    if not before:
        return ""
    change = 100 * (report.work.bytes - before) / before
    if abs(change) < 1:
        return ", as much as in the period before"
    return f", {abs(change):,.0f} % {'more' if change > 0 else 'less'} than in the period before"


def _on_storage(report: Report) -> str:
    stored, money = report.trend[-1].bytes, report.money
    now = f"{human_bytes(stored)} are stored, which cost {human_money(money.stored_month)} a month"
    if report.projection is None:
        return f"{now}; without what was freed it would be {human_money(money.stored_month + money.freed_month)}."
    when = f"{report.projection.at:%-d %B %Y}"
    return f"{now}; at this pace it will be {human_bytes(report.projection.bytes)} on {when}."


def reasons_in_words(failures: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return what each reason of a failure means with its number, the most frequent first."""
    return sorted(((meaning(reason), number) for reason, number in failures.items()), key=lambda each: -each[1])


def human_bytes(number: float) -> str:
    """Return a size as people write it, in powers of 1000.

    Examples
    --------
    >>> human_bytes(1_500_000_000), human_bytes(999), human_bytes(0)
    ('1.5 GB', '999 B', '0 B')
    """
    size, unit = float(number), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if abs(size) < 999.5 or unit == "PB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 100 else f"{size:.1f} {unit}"


def human_money(dollars: float) -> str:
    """Return dollars and cents; what is less than a cent says so.

    Examples
    --------
    >>> human_money(1234.5), human_money(0.001), human_money(0)
    ('$1,234.50', 'less than $0.01', '$0.00')
    """
    return "less than $0.01" if 0 < dollars < 0.005 else f"${dollars:,.2f}"
