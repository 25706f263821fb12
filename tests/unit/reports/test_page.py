"""The page of a report: it needs nothing else, shows everything, and takes no text for markup."""

import re
from html.parser import HTMLParser

import pytest

from storage_cleanup.events.health import Period
from storage_cleanup.reports.charts import draw
from storage_cleanup.reports.model import Report
from storage_cleanup.reports.page import render_page
from tests.unit.reports.history import a_year, nothing, unwell

_VOID = {"meta", "link", "br", "img"}
_LOADING = {"src", "href", "action", "data", "poster", "srcset", "xlink:href"}
REPORTS = [
    *(pytest.param(nothing(period), id=f"nothing-{period}") for period in Period),
    *(pytest.param(a_year(period), id=f"year-{period}") for period in Period),
    pytest.param(a_year(answer=unwell()), id="unwell"),
]


class Page(HTMLParser):
    """Reads a page: what it would load, its texts, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in _LOADING]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


@pytest.mark.parametrize("report", REPORTS)
def test_the_page_loads_nothing_and_runs_nothing(report: Report) -> None:
    text = render_page(report)
    page = Page(text)
    assert [address for address in page.loaded if not address.startswith("data:")] == []
    assert "script" not in page.tags
    assert not re.search(r"@import|url\(|<!ENTITY", text)
    assert "default-src 'none'" in text
    assert len(page.ids) == len(set(page.ids))
    assert len(text) < 400_000


@pytest.mark.parametrize("report", REPORTS)
def test_the_page_says_the_three_sentences(report: Report) -> None:
    text = render_page(report).replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">")
    for sentence in report.sentences:
        assert sentence in text


def test_a_year_has_every_chart_with_its_table() -> None:
    charts = draw(a_year(Period.MONTHLY))
    assert [chart.title for chart in charts] == [
        "Cycles",
        "Success rate",
        "Files removed",
        "Bytes freed",
        "Storage",
        "Orphans left",
        "Duration of cycles",
        "Failures by reason",
    ]
    for chart in charts:
        assert chart.svg.startswith("<svg")
        assert 'role="img"' in chart.svg
        assert all(len(row) == len(chart.columns) for row in chart.rows)


def test_an_empty_history_draws_nothing_and_says_so() -> None:
    assert [chart.svg for chart in draw(nothing())] == [""] * 8
    text = render_page(nothing())
    assert text.count("Nothing to draw yet.") == 7
    assert "Nothing failed." in text
    assert "No cycle failed in the period." in text


def test_marks_tell_their_values_without_a_script() -> None:
    chart = next(chart for chart in draw(a_year()) if chart.title == "Bytes freed")
    assert re.search(r"<title>[^<]*GB[^<]*</title>", chart.svg)


def test_text_from_the_database_is_no_markup() -> None:
    text = render_page(a_year(answer=unwell()))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "&lt;6543&gt;" in text
