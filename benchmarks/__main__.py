"""Measure: ``python -m benchmarks [names…] [--quick]``.

Prints a table, and writes build/bench.json. Every figure is a ratio of paired runs on this machine, so it says the same
on a fast machine and on a slow one.

With SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY and DATABASE_URL set, those figures that somebody else's project allows are
measured there, with objects in a bucket of their own; nothing else is touched there, and nothing stays behind.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime

from benchmarks import figures, remote
from benchmarks.figures import Figure
from benchmarks.project import embedded
from benchmarks.register import MEASUREMENTS, table
from local.postgres import ROOT

REPORT = ROOT / "build" / "bench.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; return 0 when every goal is met."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="what to measure; all unless given")
    parser.add_argument("--quick", action="store_true", help="few and small runs, to see that all works; no figures")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - MEASUREMENTS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}")
    began = time.monotonic()
    try:
        project = remote.from_environment(os.environ)
    except remote.NotUsableError as error:
        print(error, file=sys.stderr)
        return 2
    measured: list[Figure] = []
    print(figures.HEADER, flush=True)
    with nullcontext(project) if project else embedded() as source:
        for name, measurement in MEASUREMENTS.items():
            if name in (options.names or MEASUREMENTS) and (source.is_embedded or measurement.goals_elsewhere):
                for figure in measurement.run(source, quick=options.quick):
                    measured.append(figure)
                    print(figures.line(figure), flush=True)
    about = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began, 1),
        "server": project.origin if project else "embedded stack",
        "quick": options.quick,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load": [round(load, 1) for load in os.getloadavg()],
    }
    figures.write(REPORT, measured, about)
    missed = [figure.key for figure in measured if figure.met is False]
    verdict = f"missed: {', '.join(missed)}" if missed else "all goals met"
    print(f"\n{about['seconds']:.0f} s; {REPORT.relative_to(ROOT)} written; {verdict}")
    return 1 if missed and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
