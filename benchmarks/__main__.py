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
from datetime import UTC, datetime

from benchmarks import figures, remote
from benchmarks.cold_start import cold_start
from benchmarks.cost import cost
from benchmarks.figures import Figure
from benchmarks.inserts import insert_overhead
from benchmarks.installation import installation
from benchmarks.profile import profile
from benchmarks.project import Ground, embedded
from benchmarks.references import unindexed_reference
from benchmarks.scale import history, memory
from benchmarks.throughput import Projects, throttled, vs_ceiling, vs_original_50ms, vs_original_local
from benchmarks.workers import workers
from local.postgres import ROOT

REPORT = ROOT / "build" / "bench.json"

#: What can be measured on any project.
ANYWHERE: Mapping[str, Callable[..., Iterator[Figure]]] = {
    "vs_original_local": vs_original_local,
    "vs_original_50ms": vs_original_50ms,
    "vs_ceiling": vs_ceiling,
}
#: What needs a server that can be told how to behave, or a database of its own.
EMBEDDED: Mapping[str, Callable[..., Iterator[Figure]]] = {
    "profile": profile,
    "throttled": throttled,
    "workers": workers,
    "history": history,
    "unindexed_reference": unindexed_reference,
    "memory": memory,
    "cold_start": cold_start,
    "cost": cost,
    "insert_overhead": insert_overhead,
    "installation": installation,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; return 0 when every goal is met."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*ANYWHERE, *EMBEDDED]
    parser.add_argument("names", nargs="*", help=f"what to measure: {', '.join(names)}; all unless given")
    parser.add_argument("--quick", action="store_true", help="few and small runs, to see that all works; no figures")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    began = time.monotonic()
    try:
        project = remote.from_environment(os.environ)
    except remote.NotUsableError as error:
        print(error, file=sys.stderr)
        return 2
    measured: list[Figure] = []
    print(figures.HEADER, flush=True)
    source = _on_project(project, options) if project else _on_stack(options)
    for figure in source:
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


def _on_stack(options: argparse.Namespace) -> Iterator[Figure]:
    with embedded() as ground:
        for name, measure in ({**ANYWHERE, **EMBEDDED}).items():
            if not options.names or name in options.names:
                yield from measure(_projects(ground) if name in ANYWHERE else ground, quick=options.quick)


def _projects(ground: Ground) -> Projects:
    return ground.project


def _on_project(project: remote.RemoteProject, options: argparse.Namespace) -> Iterator[Figure]:
    for name, measure in ANYWHERE.items():
        if not options.names or name in options.names:
            yield from measure(project.borrowed, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
