"""A report of what the embedded stack has done, as the health function makes it: a page to open, and its figures.

``python -m local.report [period]`` plays the sample application, lets the rule fire, and writes one.
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from local.aws import Aws
from local.clock import scheduled
from local.functions import Functions
from local.postgres import ROOT
from storage_cleanup.events.health import Period

PAGE = ROOT / "build" / "report.html"


def write_report(aws: Aws, path: Path = PAGE, period: Period = Period.DAILY) -> Path:
    """Ask the health function for a report on the stack whose AWS is given, and write it.

    Returns
    -------
    Path
        Where the page lies; its figures lie beside it as JSON.
    """
    answer = Functions(aws, io.StringIO()).invoke("health", {"action": "report", "period": period.value})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(answer["page"], encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(answer["figures"], indent=2) + "\n", encoding="utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the sample application, run a cycle, and write a report of it."""
    parser = argparse.ArgumentParser(prog="python -m local.report", description=main.__doc__)
    parser.add_argument("period", nargs="?", type=Period, choices=list(Period), default=Period.DAILY)
    period = parser.parse_args(arguments).period
    print("Starting the embedded stack; people render and save ...", file=sys.stderr)
    with scheduled(io.StringIO()) as (scene, clock):
        clock.fire_now()
        path = write_report(scene.stack.aws, period=period)
    print(f"The report lies in {path.relative_to(ROOT)}; its figures in {path.with_suffix('.json').relative_to(ROOT)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
