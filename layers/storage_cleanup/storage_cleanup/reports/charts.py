"""Charts as SVG that takes its colours from the page, so that one drawing serves light and dark."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import pygal  # type: ignore[import-untyped]
from pygal.style import Style  # type: ignore[import-untyped]

from storage_cleanup.health.checks import CYCLE_SECONDS, ORPHANS_LEFT, SUCCESS_PERCENT
from storage_cleanup.postgres.observer import Work
from storage_cleanup.reports.model import Report
from storage_cleanup.reports.words import human_bytes

# pygal leaves a hook for plugins behind that Python 3.12 no longer asks, and about which 3.11 warns at every import of
# something that isn't there.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != pygal.__name__]

_WIDTH, _HEIGHT = 420, 230  # units of the drawing: on a phone they come out as 0.8 pixels, on a desk as 1.2
_LABELS = 5  # dates below a chart
_NOTHING = "\N{EN DASH}"
_DROPPED = frozenset({"script", "style", "title", "desc"})
_FONT_SIZE = 13
_STYLE = Style(  # sizes only, to lay out by: the page says how everything looks
    font_family="system-ui, sans-serif",
    label_font_size=_FONT_SIZE,
    major_label_font_size=_FONT_SIZE,
    legend_font_size=_FONT_SIZE,
    value_font_size=_FONT_SIZE,
    value_label_font_size=_FONT_SIZE,
    no_data_font_size=_FONT_SIZE,
    colors=("#000",) * 4,  # never seen; the page's are the classes color-0 to color-3
)


@dataclass(frozen=True)
class Chart:
    """A chart, and the same figures as a table for whoever can't see it.

    Attributes
    ----------
    kind
        Class of the figure, by which the page colours the chart.
    svg
        Empty when there is nothing to draw; then ``empty`` says so.
    """

    kind: str
    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]] = field(repr=False)
    svg: str = field(repr=False)
    empty: str = "Nothing to draw yet."


def draw(report: Report) -> list[Chart]:
    """Return the charts of a report in the order in which they are read."""
    return [
        _cycles(report),
        _success(report),
        _files(report),
        _bytes(report),
        _storage(report),
        _orphans(report),
        _durations(report),
        _failures(report),
    ]


def _cycles(report: Report) -> Chart:
    chart = _chart(pygal.StackedBar, report, _number, **_whole(work.cycles for work in report.charted))
    chart.add("succeeded", [work.succeeded for work in report.charted])
    chart.add("partial", [work.partial for work in report.charted])
    chart.add("failed", [work.failed for work in report.charted])
    total = sum(work.cycles for work in report.charted)
    return Chart(
        kind="outcomes",
        title="Cycles",
        note=f"{total:,} in all, {_step(report)}",
        columns=["", "succeeded", "partial", "failed"],
        rows=[[_day(work.ends), str(work.succeeded), str(work.partial), str(work.failed)] for work in report.charted],
        svg=_svg(chart, "Cycles by how they ended") if total else "",
    )


def _success(report: Report) -> Chart:
    rates = [work.success_percent for work in report.charted]
    known = [rate for rate in rates if rate is not None]
    chart = _chart(pygal.Line, report, _percent)
    chart.range = (min([*known, 99.0]) if min([*known, 100.0]) > 50 else 0, 100)
    chart.add("success rate", rates)
    chart.add(f"target {SUCCESS_PERCENT} %", [SUCCESS_PERCENT] * len(rates), show_dots=False)
    return Chart(
        kind="against-limit",
        title="Success rate",
        note=f"target {SUCCESS_PERCENT} %",
        columns=["", "success rate"],
        rows=_rows(report, lambda work: _NOTHING if work.success_percent is None else _percent(work.success_percent)),
        svg=_svg(chart, "Success rate of cycles") if known else "",
    )


def _files(report: Report) -> Chart:
    counts = _whole(work.files for work in report.charted)
    chart = _chart(pygal.Bar, report, _number, show_legend=False, **counts)
    chart.add("files", [work.files for work in report.charted])
    total = sum(work.files for work in report.charted)
    return Chart(
        kind="amount",
        title="Files removed",
        note=f"{total:,} in all, {_step(report)}",
        columns=["", "files", "rows of render_jobs"],
        rows=[[_day(work.ends), f"{work.files:,}", f"{work.rows:,}"] for work in report.charted],
        svg=_svg(chart, "Files removed") if total else "",
    )


def _bytes(report: Report) -> Chart:
    chart = _chart(pygal.Bar, report, human_bytes, show_legend=False)
    chart.add("freed", [work.bytes for work in report.charted])
    total = sum(work.bytes for work in report.charted)
    return Chart(
        kind="amount",
        title="Bytes freed",
        note=f"{human_bytes(total)} in all, {_step(report)}",
        columns=["", "freed"],
        rows=_rows(report, lambda work: human_bytes(work.bytes)),
        svg=_svg(chart, "Bytes freed") if total else "",
    )


def _storage(report: Report) -> Chart:
    points = [*report.trend, *([report.projection] if report.projection else [])]
    chart = _configured(
        pygal.DateTimeLine, human_bytes, x_value_formatter=_day, show_legend=report.projection is not None
    )
    chart.x_labels = _dates(points[0].at, points[-1].at)
    dots = len(report.trend) <= _LABELS
    # DateTimeLine takes a time without a zone as UTC, which all of ours are.
    chart.add("stored", [(_plain(point.at), point.bytes) for point in report.trend], fill=True, show_dots=dots)
    if report.projection:
        ahead = [report.trend[-1], report.projection]
        chart.add("projection", [(_plain(point.at), point.bytes) for point in ahead], show_dots=False)
    top = max(point.bytes for point in points)
    chart.range = (0, top * 1.05)
    note = f"{human_bytes(report.trend[-1].bytes)} now"
    if report.projection:
        note += f", {human_bytes(report.projection.bytes)} on {_day(report.projection.at)} at the last month's pace"
    return Chart(
        kind="trend",
        title="Storage",
        note=note,
        columns=["", "stored"],
        rows=[[_day(point.at), human_bytes(point.bytes)] for point in points],
        svg=_svg(chart, "Bytes stored, with projection") if top and len(points) > 1 else "",
    )


def _orphans(report: Report) -> Chart:
    left = [work.left_over for work in report.charted]
    known = [number for number in left if number is not None]
    chart = _chart(pygal.Bar, report, _number, show_legend=False, **_whole(known))
    chart.add("left", left)
    return Chart(
        kind="amount",
        title="Orphans left",
        note=f"by the last cycle {'of each week' if report.step_days == 7 else 'of each day'}; "
        f"over {ORPHANS_LEFT.warning} is a warning",
        columns=["", "left"],
        rows=_rows(report, lambda work: _NOTHING if work.left_over is None else f"{work.left_over:,}"),
        svg=_svg(chart, "Orphans left for the next cycle") if any(known) else "",
        empty="No orphan was left." if known else "Nothing to draw yet.",
    )


def _durations(report: Report) -> Chart:
    chart = _chart(pygal.Line, report, _seconds)
    chart.add("longest", [work.longest_seconds for work in report.charted])
    chart.add(f"warning at {CYCLE_SECONDS.warning} s", [CYCLE_SECONDS.warning] * len(report.charted), show_dots=False)
    chart.add("median", [work.median_seconds for work in report.charted])
    chart.range = (0, max(CYCLE_SECONDS.warning or 0, *(work.longest_seconds or 0 for work in report.charted)) * 1.05)
    return Chart(
        kind="against-limit",
        title="Duration of cycles",
        note="longest and median",
        columns=["", "median", "longest"],
        rows=[
            [
                _day(work.ends),
                *(_NOTHING if each is None else _seconds(each) for each in (work.median_seconds, work.longest_seconds)),
            ]
            for work in report.charted
        ],
        svg=_svg(chart, "Duration of cycles") if any(work.longest_seconds for work in report.charted) else "",
    )


def _failures(report: Report) -> Chart:
    """Draw the reasons without words beside them: sentences don't fit, and stand in the table."""
    shown = report.failures[:4]
    chart = _configured(pygal.HorizontalBar, _number, legend_at_bottom_columns=1, truncate_legend=48)
    for reason, number in shown:
        chart.add(f"{number:,}: {reason}", number)
    total = sum(number for _, number in report.failures)
    return Chart(
        kind="reasons",
        title="Failures by reason",
        note=f"{total:,} in the period",
        columns=["", "times"],
        rows=[[reason, f"{number:,}"] for reason, number in report.failures],
        svg=_svg(chart, "Things that couldn't be deleted, by reason") if shown else "",
        empty="Nothing failed.",
    )


# -- the library -------------------------------------------------------------------------------------------------------


def _chart(kind: Callable[..., Any], report: Report, formatter: Callable[[Any], str], **options: Any) -> Any:
    """Return an empty chart over the report's time."""
    labels = [_day(work.ends) for work in report.charted]
    every = max(1, -(-len(labels) // _LABELS))
    return _configured(
        kind,
        formatter,
        x_labels=labels,
        x_labels_major=labels[::-1][::every],
        show_minor_x_labels=False,
        **options,
    )


def _configured(kind: Callable[..., Any], formatter: Callable[[Any], str], **options: Any) -> Any:
    chart = kind(
        **{
            "css": (),
            "js": (),
            "no_prefix": True,
            "disable_xml_declaration": True,
            "style": _STYLE,
            "width": _WIDTH,
            "height": _HEIGHT,
            "margin": 2,
            "margin_right": 22,  # half of the last date
            "spacing": 6,
            "legend_at_bottom": True,
            "legend_at_bottom_columns": 3,
            "legend_box_size": 10,
            "truncate_label": -1,
            "truncate_legend": -1,
            "value_formatter": formatter,
            "min_scale": 2,
            "max_scale": 5,
            "dots_size": 3,
            "show_x_guides": False,
            "show_y_guides": True,
            **options,
        }
    )
    chart.add_xml_filter(_without_behaviour)
    return chart


def _whole(counts: Iterable[int]) -> dict[str, Any]:
    """Return the labels of an axis of small counts; the library would put fractions between them."""
    top = max(counts, default=0)
    return {"y_labels": list(range(top + 1))} if top < _LABELS else {}


def _svg(chart: Any, label: str) -> str:
    """Return the drawing, with a name for whoever can't see it."""
    chart.add_xml_filter(lambda root: _labelled(root, label))
    return str(chart.render(is_unicode=True))


def _without_behaviour(root: Element) -> Element:
    """Take out scripts, styles and names, and make the values of each mark its tooltip, which needs no script."""
    for parent in root.iter():
        parent.attrib.pop("id", None)  # the same in every chart of the page
        words = [child.text.strip() for child in parent if _name(child) == "desc" and _is_told(child) and child.text]
        for child in [child for child in parent if not isinstance(child.tag, str) or _name(child) in _DROPPED]:
            parent.remove(child)
        if words:
            SubElement(parent, "title").text = ", ".join(reversed(words))
    return root


def _labelled(root: Element, label: str) -> Element:
    root.set("role", "img")
    root.set("aria-label", label)
    return root


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _is_told(element: Element) -> bool:
    return element.get("class") in {"value", "x_label"}


# -- words -------------------------------------------------------------------------------------------------------------


def _rows(report: Report, figure: Callable[[Work], str]) -> list[list[str]]:
    return [[_day(work.ends), figure(work)] for work in report.charted]


def _step(report: Report) -> str:
    return "by the week" if report.step_days == 7 else "by the day"


def _day(day: date) -> str:
    return f"{day:%-d %b}"


def _plain(at: datetime) -> datetime:
    return at.replace(tzinfo=None)


def _dates(first: datetime, last: datetime) -> list[datetime]:
    """Return a few times from the first to the last, evenly apart."""
    parts = _LABELS - 1
    apart = max(timedelta(days=1), (last - first) / parts)
    return [_plain(first + index * apart) for index in range(parts + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _percent(value: float) -> str:
    return f"{value:.4g} %"


def _seconds(value: float) -> str:
    return f"{value:.3g} s"
