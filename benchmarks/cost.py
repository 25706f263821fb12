"""What it costs: dollars for a million orphans, and for a month in which there are none.

Measured are the seconds and the CPU seconds of whole invocations of the real handler, what they log, and how many
metrics they emit; the prices are AWS's list prices of us-east-1, without the free tier. docs/cost.md has the formula.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.figures import Figure
from benchmarks.handler import HANDLER, environment_for, output_of
from benchmarks.project import REAL_PACE_MS, Ground
from local.postgres import ROOT
from storage_cleanup.config.parameters import DEFAULTS

GB_SECOND = 0.0000133334  # Lambda on arm64
INVOCATION = 0.20 / 1_000_000
LOGGED_GB = 0.50
METRIC_MONTH = 0.30
ALARM_MONTH = 0.10
COMPOSITE_MONTH = 0.50
FIGURE_READ = 0.01 / 1000  # GetMetricData, for each metric that is asked for

_WATCH_METRICS = 4  # IntervalsOverdue, ConsecutiveFailedCycles, and HoursSinceSuccess of cleanup and health
_HEALTH_METRICS = 4 / 24  # a metric costs for the hours in which it is sent, and health sends once a day
_HOURS = 730

_MONTH_MINUTES = 730 * 60
_MEMORY_MB = 512  # of the cleanup function in template.yaml
_MB_OF_A_CPU = 1769  # Lambda gives CPU in proportion to memory; with so much, a function has one
_LIMIT = int(DEFAULTS["limits/max-deletions-per-run"])

_PROGRAM = f"""
import time
wall, cpu = time.perf_counter(), time.process_time()
def measured():
    global wall, cpu
    print("MEASURED", time.perf_counter() - wall, time.process_time() - cpu)
    wall, cpu = time.perf_counter(), time.process_time()
{HANDLER}
measured()
answer()
measured()
answer()
measured()
"""
"""The init phase, and two invocations."""


@dataclass(frozen=True)
class Work:
    """What an init phase or an invocation took.

    Attributes
    ----------
    logged
        Bytes that it wrote, metrics included.
    metrics
        Distinct metrics that it emitted: names, each with its dimensions.
    """

    wall_seconds: float
    cpu_seconds: float
    logged: int
    metrics: frozenset[str]

    @property
    def billed_seconds(self) -> float:
        """Seconds on Lambda: waiting takes as long, but computing has a share of a CPU only."""
        return max(0.0, self.wall_seconds - self.cpu_seconds) + self.cpu_seconds * _MB_OF_A_CPU / _MEMORY_MB

    @property
    def dollars(self) -> float:
        """Lambda's price of it, and that of its log."""
        return self.billed_seconds * _MEMORY_MB / 1024 * GB_SECOND + self.logged / 1_000_000_000 * LOGGED_GB


def cost(ground: Ground, *, quick: bool) -> Iterator[Figure]:
    """Invoke the handler with as much to do as a cycle may, and with nothing."""
    count = 1000 if quick else _LIMIT
    with ground.project() as project, environment_for(ground, project) as environment:
        project.seed(0, saved=100)
        output_of(_PROGRAM, environment)  # once for the bytecode and the caches
        init, first, warm = _parts(output_of(_PROGRAM, environment))
        project.seed(count, stored=False)
        project.slow_down(REAL_PACE_MS)
        _, busy, _ = _parts(output_of(_PROGRAM, environment))
        if left := project.count("storage.objects"):
            raise RuntimeError(f"The cycle left {left} objects")
    cycles = 1_000_000 / count
    million = cycles * (INVOCATION + init.dollars + busy.dollars)
    note = f"{busy.billed_seconds:.1f} s billed ({busy.cpu_seconds:.2f} s CPU), {busy.logged / 1000:.0f} kB logged"
    yield Figure("usd_per_million_orphans", (million,), f"{cycles:.0f} cold cycles of {count:,}: {note}")
    # Lambda keeps an idle environment for minutes, not for an hour.
    for profile, parts in (("production", (init, first)), ("testing", (warm,))):
        minutes = int(DEFAULTS[f"{profile}/interval-minutes"])
        month = _MONTH_MINUTES / minutes * (INVOCATION + sum(part.dollars for part in parts))
        note = (
            f"every {minutes} min, {sum(part.billed_seconds for part in parts) * 1000:.0f} ms billed"
            f"{' (cold)' if init in parts else ''}, {sum(part.logged for part in parts) / 1000:.1f} kB logged"
        )
        yield Figure(f"usd_idle_month_{profile}", (month,), note)
    yield _watching(len(busy.metrics))


def _watching(of_cleanup: int) -> Figure:
    """Return what a month of being told costs, everything that is deployed for it included."""
    template = (ROOT / "template.yaml").read_text()
    alarms, composites = (template.count(f"Type: AWS::CloudWatch::{kind}\n") for kind in ("Alarm", "CompositeAlarm"))
    metrics = (of_cleanup + _WATCH_METRICS + _HEALTH_METRICS) * METRIC_MONTH
    # Every fifth minute three figures of cycles, every fifteenth four of the hours since a success.
    read = _HOURS * (12 * 3 + 4 * 4) * FIGURE_READ
    ticks = _MONTH_MINUTES * (INVOCATION + 0.1 * 256 / 1024 * GB_SECOND)
    total = metrics + alarms * ALARM_MONTH + composites * COMPOSITE_MONTH + read + ticks
    parts = (
        f"{metrics:.2f} for {of_cleanup + _WATCH_METRICS} metrics and health's",
        f"{alarms * ALARM_MONTH:.2f} for {alarms} alarms",
        f"{composites * COMPOSITE_MONTH:.2f} for {composites} composites",
        f"{read:.2f} for figures read",
        f"{ticks:.2f} for the watch",
    )
    return Figure("usd_watching_month", (total,), ", ".join(parts))


def _parts(output: str) -> list[Work]:
    """Take apart what the program wrote: what each part logged, and then its measurement."""
    found = []
    *parts, _ = re.split(r"^MEASURED (\S+) (\S+)$", output, flags=re.MULTILINE)
    for logged, wall, cpu in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        found.append(Work(float(wall), float(cpu), len(logged.encode()), _metrics(logged)))
    return found


def _metrics(logged: str) -> frozenset[str]:
    names = set()
    for line in logged.splitlines():
        blob = json.loads(line) if line.startswith("{") else {}
        for directive in blob.get("_aws", {}).get("CloudWatchMetrics", ()):
            dimensions = [f"{name}={blob[name]}" for name in directive["Dimensions"][0]]
            names |= {" ".join((metric["Name"], *sorted(dimensions))) for metric in directive["Metrics"]}
    return frozenset(names)
