"""The page of a report in a browser: on a phone and on a desk, in light and dark."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage_cleanup.events.health import Period
from storage_cleanup.reports.model import Report
from storage_cleanup.reports.page import render_page
from tests.e2e.browser import PROGRAM, Tab, browser
from tests.unit.reports.history import a_year, nothing, unwell

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium isn't installed (Debian: apt-get install chromium)")

REPORTS: dict[str, Callable[[], Report]] = {
    "nothing": nothing,
    "year": lambda: a_year(Period.MONTHLY),
    "unwell": lambda: a_year(Period.QUARTERLY, unwell()),
}
SCREENS = {"phone": (390, 844), "desk": (1280, 900)}
LOOK = """JSON.stringify({
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    wide: [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > window.innerWidth + 1
          && !e.closest('.scroll') && !e.closest('svg')).map(e => e.tagName + '.' + e.className),
    charts: [...document.querySelectorAll('figure > svg')].map(svg => {
        const box = svg.getBoundingClientRect();
        const marks = [...svg.querySelectorAll('.reactive')].filter(mark => {
            const look = getComputedStyle(mark), at = mark.getBoundingClientRect();
            return look.visibility === 'visible' && look.display !== 'none' && at.width + at.height > 0
                && (look.fill !== 'none' || look.stroke !== 'none');
        });
        return {width: box.width, height: box.height, marks: marks.length,
                text: Math.min(...[...svg.querySelectorAll('text')]
                    .map(text => text.getBoundingClientRect().height).filter(height => height))};
    }),
    background: getComputedStyle(document.body).backgroundColor
})"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("name", REPORTS)
def test_it_looks_right(tab: Tab, tmp_path: Path, name: str, screen: str, scheme: str) -> None:
    page = tmp_path / f"{name}-{screen}-{scheme}.html"
    page.write_text(render_page(REPORTS[name]()), encoding="utf-8")
    width, height = SCREENS[screen]
    tab.open(page, width=width, height=height, scheme=scheme)
    look: dict[str, Any] = json.loads(tab.evaluate(LOOK))
    tab.screenshot(page.with_suffix(".png"))
    assert tab.complaints == []
    assert look["overflow"] <= 0
    assert look["wide"] == []
    assert len(look["charts"]) == (0 if name == "nothing" else 8)
    for chart in look["charts"]:
        assert chart["width"] >= 300
        assert chart["height"] >= 150
        assert chart["marks"] >= 1
        assert chart["text"] >= 10, "words in a chart are readable"
    red, green, blue = (int(part) for part in look["background"][4:-1].split(","))
    assert (red + green + blue > 600) is (scheme == "light")
