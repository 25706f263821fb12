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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime

from benchmarks import figures, remote
from benchmarks.cold_start import cold_start
from benchmarks.cost import cost
from benchmarks.figures import Figure, Goal, at_least, at_most
from benchmarks.inserts import insert_overhead
from benchmarks.installation import installation
from benchmarks.profile import profile
from benchmarks.project import embedded
from benchmarks.references import unindexed_reference
from benchmarks.scale import history, memory
from benchmarks.throughput import throttled, vs_ceiling, vs_original_50ms, vs_original_local
from benchmarks.workers import workers
from local.postgres import ROOT

REPORT = ROOT / "build" / "bench.json"

#: What can be measured on any project; all else needs a server that can be told how to behave, or its own database.
ANYWHERE: tuple[Callable[..., Iterator[Figure]], ...] = (vs_original_local, vs_original_50ms, vs_ceiling)
MEASUREMENTS: Mapping[str, Callable[..., Iterator[Figure]]] = {
    measure.__name__: measure
    for measure in (
        *ANYWHERE,
        *(profile, throttled, workers, history, unindexed_reference, memory, cold_start, cost, insert_overhead),
        installation,
    )
}
#: On the embedded stack; a figure without a goal is only told.
GOALS: Mapping[str, Goal] = {
    "vs_original_local": at_least(6),
    "vs_original_50ms": at_least(150),
    "vs_ceiling": at_least(0.6),
    "throttled": at_least(0.5),
    "workers_4_vs_1": at_least(3.2),
    "workers_4_contention": at_least(0.9),
    "queries_slowest_ms_ratio": at_most(1),
    "idle_growth": at_most(2),
    "unindexed_reference": at_most(1.5),
    "memory_growth": at_most(1.15),
    "peak_rss_mb": at_most(200),
    "cold_start_vs_imports": at_most(1.3),
    "insert_overhead": at_most(1.1),
    "install_slowest_s": at_most(1),
    "install_again_slowest_s": at_most(1),
}
GOALS_ELSEWHERE: Mapping[str, Goal] = {**GOALS, "vs_original_local": at_least(14), "vs_ceiling": at_least(0.85)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; return 0 when every goal is met."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help=f"what to measure: {', '.join(MEASUREMENTS)}; all unless given")
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
    goals = GOALS_ELSEWHERE if project else GOALS
    with nullcontext(project) if project else embedded() as source:
        for name, measure in MEASUREMENTS.items():
            if name in (options.names or MEASUREMENTS) and (source.is_embedded or measure in ANYWHERE):
                for figure in measure(source, quick=options.quick):
                    measured.append(replace(figure, goal=goals.get(figure.key)))
                    print(figures.line(measured[-1]), flush=True)
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
