"""A report as one HTML page that needs nothing else: no network, no script, light and dark, any width."""

from datetime import datetime
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape
from markupsafe import Markup

from storage_cleanup.health.model import Status
from storage_cleanup.reports.charts import draw
from storage_cleanup.reports.model import Report
from storage_cleanup.reports.words import human_bytes, human_money


def render_page(report: Report) -> str:
    """Return the page."""
    return _template().render(
        report=report,
        charts=draw(report),
        worst=report.health.status.value,
        trouble=[check for check in report.health.checks if check.status is not Status.OK],
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("storage_cleanup.reports", ""),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(bytes=human_bytes, money=human_money, moment=_moment, drawing=Markup)
    return environment.get_template("page.html.j2")


def _moment(at: datetime) -> str:
    return f"{at:%-d %b %Y, %H:%M} UTC"
